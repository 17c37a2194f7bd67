/**
 * A cloud node, put together: connections, ownership, partitions, push, API, as its roles have it. What is opened
 * registers its release; `close` runs them last in, first out.
 *
 *   actors   NATS ─▶ pumps ─▶ partitions (actors ─▶ Redis ─▶ bus; history ─▶ Postgres ─▶ settled)
 *   push     bus ─▶ dashboards           api   Redis, Postgres ─▶ HTTP
 */

import { randomBytes } from 'node:crypto';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import pg from 'pg';
import type { Logger } from 'pino';
import { natsAddress } from '../protocol/nats-address.ts';
import { changeAccess } from './api/http.ts';
import { registerRoutes } from './api/routes.ts';
import { openSiteDirectory, siteNames } from './api/site-directory.ts';
import { newBackfillGate } from './backfill-gate.ts';
import { keepOwnership } from './cluster/ownership.ts';
import type { CloudConfig } from './config.ts';
import { loadDashboard } from './dashboard-assets.ts';
import { registerDemoLinks } from './demo-links.ts';
import { openGatewayLink } from './gateway-link.ts';
import { type Health, openHealthMonitor, type ServerHealth } from './health.ts';
import { newBudget } from './history/budget.ts';
import { openDictionary } from './history/dictionary.ts';
import { openDelivery } from './incidents/delivery.ts';
import { openLiveState } from './live-state.ts';
import { openMetrics } from './metrics.ts';
import { migrate } from './migrate.ts';
import { type IngestCounters, openPartition, type Partition, type PartitionShared } from './partition.ts';
import { publishUpdates } from './push/bus.ts';
import { openPushNode } from './push/push-node.ts';
import { registerRegistryApi } from './registry/api.ts';
import { openRegistry } from './registry/registry.ts';
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
/** All nodes hear it: a partition may be free. */
const NUDGE_SUBJECT = 'cluster.nudge';
const FENCE_CHECK_MS = 2000;
const LINK_CHECK_MS = 1000;
const REGISTRY_REFRESH_MS = 5000;
const PASSIVATION_MS = 60_000;
const RULES_REFRESH_MS = 5000;
const GATEWAYS_FLUSH_MS = 5000;
const HOUSEKEEPING_MS = 30_000;
const STREAM_CHECK_MS = 5000;
const DRAIN_MS = 8000;
const LEASE_TIMEOUT_MS = 3000;
/** Longer than nats-server takes to restart. */
const NATS_PATIENCE_MS = 3000;
const POSTGRES_STARTING_MS = 60_000;
/** Above DRAIN_MS and the time limit of a NATS request together: the pumps' last one is waited for. */
const RELEASE_MS = 15_000;
const QUARANTINE_ROWS_MAX = 100_000;
const FAILED_TWINS_SHOWN = 20;
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
  let natsLostAt = 0;
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
  let partitionsOpen = (): Iterable<Partition> => [];

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
      for (const partition of partitionsOpen()) partition.relocate();
    }
    created = state.created;
    return state;
  };
  const stream = await attempt(locateStream);
  if (!stream.ok) return refuse(`JetStream: ${stream.reason}`);

  // Before it takes anything: a node that cannot serve must not do that.
  const app = newApp();
  const listening = await listen(app, config.httpHost, config.httpPort);
  if (listening.outcome === 'refused') {
    return refuse(`HTTP: ${listening.reason}. Set HOLDFAST_HTTP_PORT to another one, or 0 for any.`);
  }

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
  const directory = openSiteDirectory(pool);
  let confirmLeases = async () => {};
  const live = await openLiveState({
    url: config.redisUrl,
    twinTtlSeconds: config.twinTtlSeconds,
    logger,
    confirmLease: () => confirmLeases(),
    onWritable: () => Promise.all([...partitionsOpen()].map(partition => partition.recoverLive())),
    isKnown: async site => siteNames(await directory.sites()).includes(site),
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
  let postgresStarted = await dictionary.serverStarted();
  const registry = openRegistry({
    pool,
    nats,
    logger,
    onChange(sites) {
      // A device may have another name now.
      dictionary.forgetAll();
      for (const partition of partitionsOpen()) {
        partition
          .onRegistryChange(sites)
          .catch(error => logger.warn({ reason: (error as Error).message }, 'registry: twins not renamed'));
      }
    },
  });
  onClose('registry', () => registry.close());
  await registry.refresh();
  const days = await attempt(() => dictionary.ensureDays(daysAround(Date.now())));
  if (!days.ok) logger.warn({ reason: days.reason }, 'history: days not made ahead of time, trying again');
  const delivery = openDelivery({
    pool,
    nats,
    logger,
    owned: () => [...partitionsOpen()].map(({ id, epoch }) => ({ id, epoch })),
    allowPrivate: config.webhookPrivate,
  });
  onClose('delivery', () => delivery.close(0));
  const shared: Omit<PartitionShared, 'confirmLease' | 'onStaleEpoch'> = {
    pool,
    dictionary,
    live,
    stream: jetstream(nats),
    budget,
    backfillGate: newBackfillGate(),
    logger,
    partitions,
    commitIntervalMs: config.commitIntervalMs,
    retentionMs: config.retentionMs,
    counters,
    locateStream,
    rules: rules.rules,
    publish: updates => ifOpen(() => publishUpdates(nats, updates)),
    onSettled: (notices, of, cursors) => ifOpen(() => gateways.announce(notices, of, cursors)),
    delivery,
    registry,
  };
  // Heartbeats have a connection of their own: they must not queue behind history.
  const leasePool = new pg.Pool({
    connectionString: config.postgresUrl,
    max: 2,
    connectionTimeoutMillis: LEASE_TIMEOUT_MS,
    keepAlive: true,
    query_timeout: LEASE_TIMEOUT_MS,
    statement_timeout: LEASE_TIMEOUT_MS,
  });
  leasePool.on('error', () => {});
  onClose('leases', () => leasePool.end());
  const ownership = keepOwnership<Partition>({
    pool: leasePool,
    holder: {
      id: `${config.node}.${randomBytes(4).toString('hex')}`,
      name: config.node,
      actors: config.roles.has('actors'),
    },
    partitions,
    logger,
    open: (claim): Partition =>
      openPartition(
        {
          ...shared,
          confirmLease: async (id, epoch): Promise<boolean> => {
            await ownership.confirm();
            return ownership.held.get(id)?.epoch === epoch;
          },
          onStaleEpoch: (id, epoch) => ownership.lost(id, epoch),
        },
        claim,
      ),
    // A node that hears nothing of the stream, while others do.
    fit: () => natsHealth.ok || performance.now() - natsLostAt < NATS_PATIENCE_MS,
    nudgeAll: () => ifOpen(() => nats.publish(NUDGE_SUBJECT)),
  });
  partitionsOpen = () => ownership.held.values();
  confirmLeases = ownership.confirm;
  const nudges = nats.subscribe(NUDGE_SUBJECT, { callback: () => ownership.nudged() });
  onClose('partitions', async () => {
    nudges.unsubscribe();
    await ownership.close(DRAIN_MS);
  });

  // Nobody is shown half a fleet.
  await ownership.ready();
  await Promise.all([...partitionsOpen()].map(partition => partition.activated));

  const push = config.roles.has('push') ? openPushNode({ app, path: '/push', nats, live, logger }) : null;
  onClose('push', () => push?.close());
  const monitor = openHealthMonitor(config.node, counters);
  onClose('health', () => monitor.close());
  const health = (): Health =>
    monitor.report({
      queued: [...partitionsOpen()].reduce((sum, partition) => sum + partition.queued, 0),
      budget,
      failedTwins: failedTwins(partitionsOpen()),
      push: { clients: push?.clients ?? 0, messagesSent: push?.messagesSent ?? 0 },
      servers: {
        nats: natsHealth,
        redis: live.connected ? { ok: true, reason: null } : { ok: false, reason: 'not connected' },
        postgres,
      },
    });
  const access = changeAccess(config.adminToken, config.httpHost);
  const onError = (route: string, error: unknown) =>
    logger.warn({ route, reason: (error as Error).message }, 'request failed');
  registerRoutes({
    app,
    pool,
    live,
    gateways,
    directory,
    health,
    metrics: openMetrics({ health, gateways }),
    nats,
    access,
    webhookPrivate: config.webhookPrivate,
    isHidden: (site, device) => registry.of(site, device)?.retired ?? false,
    onError,
  });
  const registryApi = registerRegistryApi({
    app,
    pool,
    registry,
    dictionary,
    stream: shared.stream,
    partitions,
    retentionMs: config.retentionMs,
    access,
    onError,
  });
  registerDemoLinks({
    app,
    controlUrl: config.demoControlUrl,
    onError,
  });
  serveDashboard(app, await loadDashboard());
  onClose('HTTP', () => listening.close());

  followConnection(nats, {
    onDisconnect: reason => {
      if (natsHealth.ok) natsLostAt = performance.now();
      natsHealth = { ok: false, reason };
      logger.warn({ reason }, 'nats: disconnected');
    },
    onReconnect: () => {
      natsHealth = { ok: true, reason: null };
      logger.info('nats: connected again');
      gateways.listenAnew();
      // Consumers live in the server's memory and may be gone with it: open new ones at the known positions.
      for (const partition of partitionsOpen()) partition.relocate();
      push?.resync();
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
  const forEachPartition = (work: (partition: Partition) => Promise<unknown>) => async () => {
    await Promise.all([...partitionsOpen()].map(work));
  };
  every(
    FENCE_CHECK_MS,
    forEachPartition(partition => partition.checkFences()),
    'checking fences',
  );
  every(
    PASSIVATION_MS,
    forEachPartition(async partition => void partition.passivate(config.twinIdleMs)),
    'forgetting idle twins',
  );
  every(
    LINK_CHECK_MS,
    forEachPartition(partition => partition.judgeLinks(gateways)),
    'judging links',
  );
  every(REGISTRY_REFRESH_MS, registry.refresh, 'reading the registry');
  every(HOUSEKEEPING_MS, registryApi.housekeeping, 'telling twins of what was replayed');
  every(STREAM_CHECK_MS, async () => void (await locateStream()), 'stream check');
  every(RULES_REFRESH_MS, rules.refresh, 'reading rules');
  every(GATEWAYS_FLUSH_MS, gateways.flush, 'noting gateways');
  every(
    RULES_REFRESH_MS,
    async () => {
      try {
        const { rows } = await pool.query<{ started: string }>('select holdfast.server_started() as started');
        const { started } = rows[0]!;
        if (started !== postgresStarted) {
          logger.info('postgres: was restarted, its ledger and names are read again');
          dictionary.forgetAll();
          // It may be one from a backup.
          for (const partition of partitionsOpen()) await partition.retell();
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

  logger.info({ port: listening.port, partitions: ownership.held.size, historyId }, 'cloud node ready');
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

/** PostgreSQL is starting up, or goes through its log after a crash. */
const CANNOT_CONNECT_NOW = '57P03';

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
    const startedAt = performance.now();
    for (;;) {
      try {
        return await migrate(pool, config.partitions);
      } catch (error) {
        const starting = (error as { code?: string }).code === CANNOT_CONNECT_NOW;
        if (!starting || performance.now() - startedAt > POSTGRES_STARTING_MS) throw error;
        await new Promise(resolve => setTimeout(resolve, 200));
      }
    }
  } finally {
    await pool.end();
  }
}

function failedTwins(partitions: Iterable<Partition>): Health['failedTwins'] {
  const failed: { twin: string; setAside: boolean; reason: string }[] = [];
  for (const partition of partitions) {
    for (const { twin, failure } of partition.failures()) {
      if (failed.length < FAILED_TWINS_SHOWN) failed.push({ twin, ...failure });
    }
  }
  return failed;
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
