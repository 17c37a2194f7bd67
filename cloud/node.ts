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
import { openGatewayLink } from './gateway-link.ts';
import { type Health, openHealthMonitor, type ServerHealth } from './health.ts';
import { newBudget } from './history/budget.ts';
import { openDictionary } from './history/dictionary.ts';
import { openLiveState } from './live-state.ts';
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
const RULES_REFRESH_MS = 5000;
const HOUSEKEEPING_MS = 30_000;
const STREAM_CHECK_MS = 5000;
const DRAIN_MS = 8000;
const QUARANTINE_ROWS_MAX = 100_000;

export async function startCloudNode(
  config: CloudConfig,
  logger: Logger,
  onFenced: (reason: string) => void,
): Promise<StartOutcome> {
  const releases: (() => Promise<void> | void)[] = [];
  const refuse = async (reason: string): Promise<StartOutcome> => {
    await releaseAll(releases);
    return { outcome: 'refused', reason };
  };

  // Postgres first: without it nobody knows who owns what.
  const pool = new pg.Pool({
    connectionString: config.postgresUrl,
    max: POSTGRES_CONNECTIONS,
    connectionTimeoutMillis: 5000,
  });
  let postgres: ServerHealth = { ok: true, reason: null };
  pool.on('error', error => {
    postgres = { ok: false, reason: error.message };
  });
  releases.push(() => pool.end());
  const history = await attempt(() => migrate(pool, config.partitions));
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
    }),
  );
  if (!connection.ok) return refuse(`NATS: ${connection.reason}`);
  const nats = connection.value;
  releases.push(() => nats.drain());
  let natsHealth: ServerHealth = { ok: true, reason: null };
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
      onFenced(`partition ${lost} was taken over by another node`);
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
  releases.push(() => live.close());
  const rules = openRuleBook(pool, logger);
  await rules.refresh();
  const gateways = openGatewayLink({
    nats,
    pool,
    historyId,
    partitions,
    streamCreated: async () => created,
    logger,
  });
  releases.push(() => gateways.close());

  const budget = newBudget(config.historyQueueBytesMax);
  const shared: PartitionShared = {
    pool,
    dictionary: openDictionary(pool),
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
    publish: updates => publishUpdates(nats, updates),
    onSettled: gateways.announce,
    onStaleEpoch: partition => onFenced(`partition ${partition} was taken over by another node`),
  };
  partitionsOpen = claims.map(claim => openPartition(shared, claim));
  releases.push(async () => {
    await Promise.all(partitionsOpen.map(partition => partition.close(DRAIN_MS)));
  });

  // Nobody is shown half a fleet.
  await Promise.all(partitionsOpen.map(partition => partition.activated));

  const push = openPushNode({ app, path: '/push', nats, live, logger });
  releases.push(() => push.close());
  const monitor = openHealthMonitor(config.node, counters);
  releases.push(() => monitor.close());
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
    onError: (route, error) => logger.warn({ route, reason: (error as Error).message }, 'request failed'),
  });
  serveDashboard(app, await loadDashboard());
  releases.push(() => listening.close());

  followConnection(nats, {
    onDisconnect: reason => {
      natsHealth = { ok: false, reason };
      logger.warn({ reason }, 'nats: disconnected');
    },
    onReconnect: () => {
      natsHealth = { ok: true, reason: null };
      logger.info('nats: connected again');
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
    releases.push(() => clearInterval(timer));
  };
  every(STREAM_CHECK_MS, async () => void (await locateStream()), 'stream check');
  every(RULES_REFRESH_MS, rules.refresh, 'reading rules');
  every(
    RULES_REFRESH_MS,
    async () => {
      try {
        await pool.query('select 1');
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
      await purgeHandled(manager, pool);
      await pool.query(
        'delete from holdfast.quarantine where id <= (select max(id) - $1 from holdfast.quarantine)',
        [QUARANTINE_ROWS_MAX],
      );
    },
    'housekeeping',
  );

  logger.info({ port: listening.port, partitions: claims.length, historyId }, 'cloud node ready');
  return {
    outcome: 'started',
    node: { port: listening.port, close: () => releaseAll(releases) },
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

async function releaseAll(releases: (() => Promise<void> | void)[]): Promise<void> {
  for (const release of releases.splice(0).reverse()) await release();
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
