/**
 * A cloud node, put together: connections, ownership, partitions, push, API. What is opened registers its release;
 * `close` runs them last in, first out.
 *
 *   NATS ─▶ pumps ─▶ partitions (actors ─▶ Redis ─▶ bus; history ─▶ Postgres ─▶ settled) ; push ◀─ bus
 */
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import pg from 'pg';
import type { Logger } from 'pino';
import { natsAddress } from '../protocol/nats-address.ts';
import { registerRoutes } from './api/routes.ts';
import { openSiteDirectory } from './api/site-directory.ts';
import type { CloudConfig } from './config.ts';
import { loadDashboard } from './dashboard-assets.ts';
import { registerDemoLinks } from './demo-links.ts';
import { openGatewayLink } from './gateway-link.ts';
import { type Health, openHealthMonitor, type ServerHealth } from './health.ts';
import { newBudget } from './history/budget.ts';
import { openDictionary } from './history/dictionary.ts';
import { openLiveState } from './live-state.ts';
import { openMetrics } from './metrics.ts';
import { migrate } from './migrate.ts';
import { claimPartitions, lostPartition } from './ownership.ts';
import { type IngestCounters, openPartition, type Partition, type PartitionShared } from './partition.ts';
import { publishUpdates } from './push/bus.ts';
import { openPushNode } from './push/push-node.ts';
import { openRuleBook } from './rule-book.ts';
import { ensureStream, type StreamState } from './stream.ts';
import { purgeHandled } from './stream-purge.ts';
import { listen, newApp, serveDashboard } from './web-server.ts';

export interface CloudNode {
  readonly port: number;
  close(): Promise<void>;
}

export type StartOutcome =
  | { readonly outcome: 'started'; readonly node: CloudNode }
  | { readonly outcome: 'refused'; readonly reason: string };

const POSTGRES_CONNECTIONS = 8;
const POSTGRES_CONNECT_MS = 5000;
/** No statement of ours takes that long: the connection, or what it asks, has got stuck (R). */
const POSTGRES_STATEMENT_MS = 30_000;
/** PostgreSQL frees the locks of a transaction whose client has gone silent. */
const POSTGRES_IDLE_TRANSACTION_MS = 60_000;
const FENCED_EXIT_CODE = 3;
const RULES_REFRESH_MS = 5000;
const GATEWAYS_FLUSH_MS = 5000;
const HOUSEKEEPING_MS = 30_000;
const STREAM_CHECK_MS = 5000;
const DRAIN_MS = 8000;
/** Above DRAIN_MS and the time limit of a NATS request together: the pumps' last one is waited for. */
const RELEASE_MS = 15_000;
const QUARANTINE_ROWS_MAX = 100_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;

interface Release {
  readonly what: string;
  release(): Promise<void> | void;
}

/** @param onFatal The node can do nothing useful any more; the process should end with the code. */
export async function startCloudNode(
  config: CloudConfig,
  logger: Logger,
  onFatal: (reason: string, exitCode: number) => void,
): Promise<StartOutcome> {
  const releases: Release[] = [];
  const onClose = (what: string, release: Release['release']) => void releases.push({ what, release });
  let closing = false;
  const close = () => {
    closing = true;
    return releaseAll(releases, logger);
  };
  const onFenced = (partition: number) =>
    onFatal(`fenced: partition ${partition} was taken over by another node`, FENCED_EXIT_CODE);
  const refuse = async (reason: string): Promise<StartOutcome> => {
    await close();
    return { outcome: 'refused', reason };
  };

  // Postgres first: without it nobody knows who owns what.
  const pool = new pg.Pool({
    connectionString: config.postgresUrl,
    max: POSTGRES_CONNECTIONS,
    connectionTimeoutMillis: POSTGRES_CONNECT_MS,
    keepAlive: true,
    query_timeout: POSTGRES_STATEMENT_MS,
    statement_timeout: POSTGRES_STATEMENT_MS,
    idle_in_transaction_session_timeout: POSTGRES_IDLE_TRANSACTION_MS,
  });
  let postgres: ServerHealth = { ok: true, reason: null };
  pool.on('error', error => {
    postgres = { ok: false, reason: error.message };
  });
  onClose('PostgreSQL', () => pool.end());
  const history = await attempt(() => migrateUnhurried(config));
  if (!history.ok) return refuse(`PostgreSQL: ${history.reason}`);
  const { historyId, partitions } = history.value;
  if (partitions !== config.partitions) {
    logger.info({ partitions }, 'the history was made with another number of partitions, which it keeps');
  }

  const connection = await attempt(() =>
    connect({
      ...natsAddress(config.natsUrl),
      name: config.node,
      maxReconnectAttempts: -1,
      pingInterval: 5000,
      // A password that is being changed must not end it: the next attempts may be let in again.
      ignoreAuthErrorAbort: true,
    }),
  );
  if (!connection.ok) return refuse(`NATS: ${connection.reason}`);
  const nats = connection.value;
  let natsHealth: ServerHealth = { ok: true, reason: null };
  // Draining asks the server: there is none to wait for while it is away.
  onClose('NATS', () => (natsHealth.ok ? nats.drain() : nats.close()));
  void nats.closed().then(error => {
    if (!closing)
      onFatal(`NATS: the connection has ended for good: ${error?.message ?? 'no reason given'}`, 1);
  });
  /** What is lost on a connection that has ended is asked for again, or told again; a closed one throws. */
  const ifOpen = (send: () => void): void => {
    try {
      send();
    } catch (error) {
      if (!nats.isClosed() && !nats.isDraining()) throw error;
    }
  };
  const manager = await jetstreamManager(nats, { checkAPI: false });
  let created = '';
  let partitionsOpen: Partition[] = [];

  let locating: Promise<StreamState> | null = null;
  /** All pumps ask at the same time after a reconnect: one question serves them. */
  const locateStream = (): Promise<StreamState> => {
    locating ??= locate().finally(() => {
      locating = null;
    });
    return locating;
  };
  const locate = async () => {
    const state = await ensureStream(manager, {
      bytesMax: config.streamBytesMax,
      replicas: config.streamReplicas,
    });
    if (created !== '' && state.created !== created) {
      logger.warn(
        { was: created, is: state.created },
        'the ingest stream is another one: reading it from its start',
      );
      for (const partition of partitionsOpen) partition.relocate();
    }
    created = state.created;
    return state;
  };
  const stream = await attempt(locateStream);
  if (!stream.ok) return refuse(`JetStream: ${stream.reason}`);

  // Before the claim, which takes all from the node that runs now: one that cannot serve must not do that.
  const app = newApp();
  const listening = await listen(app, config.httpHost, config.httpPort);
  if (listening.outcome === 'refused') {
    return refuse(`HTTP: ${listening.reason}. Set HOLDFAST_HTTP_PORT to another one, or 0 for any.`);
  }

  const claims = await claimPartitions(pool, config.node, partitions);
  const confirmLease = async () => {
    const lost = await lostPartition(pool, claims);
    if (lost !== null) {
      onFenced(lost);
      throw new Error('lease lost');
    }
  };

  const counters: IngestCounters = {
    batches: 0,
    messages: 0,
    readings: 0,
    quarantined: 0,
    corrupt: 0,
    refused: 0,
    expired: 0,
    late: 0,
    thinned: 0,
    lost: 0,
    withoutTwin: 0,
    bytes: 0,
    lagMs: 0,
  };
  const live = await openLiveState({
    url: config.redisUrl,
    twinTtlSeconds: config.twinTtlSeconds,
    logger,
    confirmLease,
    onWritable: () => Promise.all(partitionsOpen.map(partition => partition.rewriteLive())),
  });
  onClose('Redis', () => live.close());
  const rules = openRuleBook(pool, logger);
  await rules.refresh();
  const gateways = await openGatewayLink({
    nats,
    pool,
    historyId,
    partitions,
    streamCreated: async () => created,
    logger,
  });
  onClose('gateway link', async () => {
    gateways.close();
    await gateways.flush();
  });

  const budget = newBudget(config.historyQueueBytesMax);
  const dictionary = openDictionary(pool);
  let postgresStarted: string | undefined;
  const days = await attempt(() => dictionary.ensureDays(daysAround(Date.now())));
  if (!days.ok) logger.warn({ reason: days.reason }, 'history: days not made ahead of time, trying again');
  const shared: PartitionShared = {
    pool,
    dictionary,
    live,
    stream: jetstream(nats),
    budget,
    logger,
    partitions,
    commitIntervalMs: config.commitIntervalMs,
    retentionMs: config.retentionMs,
    counters,
    locateStream,
    rules: rules.rules,
    publish: updates => ifOpen(() => publishUpdates(nats, updates)),
    onSettled: (notices, of, cursors) => ifOpen(() => gateways.announce(notices, of, cursors)),
    onStaleEpoch: onFenced,
  };
  partitionsOpen = claims.map(claim => openPartition(shared, claim));
  onClose('partitions', async () => {
    await Promise.all(partitionsOpen.map(partition => partition.close(DRAIN_MS)));
  });

  // Nobody is shown half a fleet.
  await Promise.all(partitionsOpen.map(partition => partition.activated));

  const push = openPushNode({ app, path: '/push', nats, live, logger });
  onClose('push', () => push.close());
  const monitor = openHealthMonitor(config.node, counters);
  onClose('health', () => monitor.close());
  const health = (): Health =>
    monitor.report({
      queued: partitionsOpen.reduce((sum, partition) => sum + partition.queued, 0),
      budget,
      push: { clients: push.clients, messagesSent: push.messagesSent },
      servers: {
        nats: natsHealth,
        redis: live.connected ? { ok: true, reason: null } : { ok: false, reason: 'not connected' },
        postgres,
      },
    });
  registerRoutes({
    app,
    pool,
    live,
    gateways,
    directory: openSiteDirectory(pool),
    health,
    metrics: openMetrics({ health, gateways }),
    onError: (route, error) => logger.warn({ route, reason: (error as Error).message }, 'request failed'),
  });
  registerDemoLinks({
    app,
    controlUrl: config.demoControlUrl,
    onError: (route, error) => logger.warn({ route, reason: (error as Error).message }, 'request failed'),
  });
  serveDashboard(app, await loadDashboard());
  onClose('HTTP', () => listening.close());

  followConnection(nats, {
    onDisconnect: reason => {
      natsHealth = { ok: false, reason };
      logger.warn({ reason }, 'nats: disconnected');
    },
    onReconnect: () => {
      natsHealth = { ok: true, reason: null };
      logger.info('nats: connected again');
      gateways.listenAnew();
      // Consumers live in the server's memory and may be gone with it: open new ones at the known positions.
      for (const partition of partitionsOpen) partition.relocate();
      push.resync();
    },
  });

  const every = (ms: number, work: () => Promise<void>, what: string) => {
    let busy = false;
    const timer = setInterval(() => {
      if (busy) return;
      busy = true;
      work()
        .catch(error => logger.debug({ reason: (error as Error).message }, `${what} failed, trying again`))
        .finally(() => {
          busy = false;
        });
    }, ms);
    onClose(what, () => clearInterval(timer));
  };
  every(STREAM_CHECK_MS, async () => void (await locateStream()), 'stream check');
  every(RULES_REFRESH_MS, rules.refresh, 'reading rules');
  every(GATEWAYS_FLUSH_MS, gateways.flush, 'noting gateways');
  every(
    RULES_REFRESH_MS,
    async () => {
      try {
        const { rows } = await pool.query<{ started: string }>(
          'select pg_postmaster_start_time()::text as started',
        );
        const { started } = rows[0]!;
        if (postgresStarted !== undefined && started !== postgresStarted) {
          logger.info('postgres: was restarted, its ledger and names are read again');
          dictionary.forgetAll();
        }
        postgresStarted = started;
        postgres = { ok: true, reason: null };
      } catch (error) {
        postgres = { ok: false, reason: (error as Error).message };
      }
    },
    'Postgres check',
  );
  every(
    HOUSEKEEPING_MS,
    async () => {
      await dictionary.ensureDays(daysAround(Date.now()));
      await purgeHandled(manager, pool, partitions);
      await pool.query(
        'delete from holdfast.quarantine where id <= (select max(id) - $1 from holdfast.quarantine)',
        [QUARANTINE_ROWS_MAX],
      );
    },
    'housekeeping',
  );

  every(
    HOUR_MS,
    async () => {
      const oldest = Date.now() - config.retentionMs;
      await pool.query('delete from holdfast.ledger_minute where minute < to_timestamp($1 / 1000.0)', [
        oldest,
      ]);
    },
    'forgetting old minutes of the ledger',
  );

  logger.info({ port: listening.port, partitions: claims.length, historyId }, 'cloud node ready');
  return {
    outcome: 'started',
    node: { port: listening.port, close },
  };
}

function followConnection(
  nats: NatsConnection,
  listeners: { onDisconnect: (reason: string) => void; onReconnect: () => void },
): void {
  void (async () => {
    for await (const status of nats.status()) {
      if (status.type === 'disconnect') listeners.onDisconnect(`lost ${status.server}`);
      if (status.type === 'reconnect') listeners.onReconnect();
    }
  })();
}

/** A migration may take long; waiting for one that another node applies, too. */
async function migrateUnhurried(config: CloudConfig): ReturnType<typeof migrate> {
  const pool = new pg.Pool({
    connectionString: config.postgresUrl,
    max: 1,
    connectionTimeoutMillis: POSTGRES_CONNECT_MS,
    keepAlive: true,
  });
  pool.on('error', () => {});
  try {
    return await migrate(pool, config.partitions);
  } finally {
    await pool.end();
  }
}

/** Yesterday, today and the next two days, as dates of UTC. */
const daysAround = (now: number): string[] =>
  [-1, 0, 1, 2].map(offset => new Date(now + offset * DAY_MS).toISOString().slice(0, 10));

/** Each in its time; one that fails, or takes longer, does not keep the others. */
async function releaseAll(releases: Release[], logger: Logger): Promise<void> {
  for (const { what, release } of releases.splice(0).reverse()) {
    const deadline = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => deadline.reject(new Error(`not released within ${RELEASE_MS} ms`)),
      RELEASE_MS,
    );
    try {
      await Promise.race([release(), deadline.promise]);
    } catch (error) {
      logger.warn({ what, err: error }, 'not closed cleanly');
    }
    clearTimeout(timer);
  }
}

async function attempt<T>(
  work: () => Promise<T>,
): Promise<{ ok: true; value: T } | { ok: false; reason: string }> {
  try {
    return { ok: true, value: await work() };
  } catch (error) {
    const { message, code } = error as Error & { code?: string };
    return { ok: false, reason: message || code || String(error) };
  }
}
