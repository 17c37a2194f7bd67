/**
 * A cloud node, put together: connections, ownership, partitions, push, API, as its roles have it. What is opened
 * registers its release; `close` runs them last in, first out.
 *
 *   actors   NATS ─▶ pumps ─▶ partitions (actors ─▶ Redis ─▶ bus; history ─▶ Postgres ─▶ settled)
 *   push     bus ─▶ dashboards           api   Redis, Postgres ─▶ HTTP
 */

import { randomBytes } from 'node:crypto';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import type { Logger } from 'pino';
import { changeAccess } from './api/http.ts';
import { registerRoutes } from './api/routes.ts';
import { openSiteDirectory, siteNames } from './api/site-directory.ts';
import { attempt } from './attempt.ts';
import { newBackfillGate } from './backfill-gate.ts';
import { openBackupWatch } from './backup/watch.ts';
import { ensureDaysAround, startChores } from './chores.ts';
import { keepOwnership } from './cluster/ownership.ts';
import type { CloudConfig } from './config.ts';
import { loadDashboard } from './dashboard-assets.ts';
import { registerDemoLinks } from './demo-links.ts';
import { failedTwins } from './failed-twins.ts';
import { openGatewayLink } from './gateway-link.ts';
import { type Health, openHealthMonitor } from './health.ts';
import { newBudget } from './history/budget.ts';
import { startCompaction } from './history/chunks/compaction.ts';
import { openDictionary } from './history/dictionary.ts';
import { openDelivery } from './incidents/delivery.ts';
import { newIngestCounters } from './ingest-counters.ts';
import { openLiveState } from './live-state.ts';
import { openMetrics } from './metrics.ts';
import { connectNats } from './nats-connection.ts';
import { openPartition, type Partition, type PartitionShared } from './partition.ts';
import { migrateUnhurried, openLeasePool, openPostgres } from './postgres.ts';
import { publishUpdates } from './push/bus.ts';
import { openPushNode } from './push/push-node.ts';
import { registerRegistryApi } from './registry/api.ts';
import { openRegistry } from './registry/registry.ts';
import { newReleases } from './releases.ts';
import { openRuleBook } from './rule-book.ts';
import { newStreamLocator } from './stream-locator.ts';
import { listen, newApp, serveDashboard } from './web-server.ts';

export interface CloudNode {
  readonly port: number;
  close(): Promise<void>;
}

export type StartOutcome =
  | { readonly outcome: 'started'; readonly node: CloudNode }
  | { readonly outcome: 'refused'; readonly reason: string };

/** All nodes hear it: a partition may be free. */
const NUDGE_SUBJECT = 'cluster.nudge';
const DRAIN_MS = 8000;
const COMPACTION_EVERY_MS = 60_000;
/** Longer than nats-server takes to restart. */
const NATS_PATIENCE_MS = 3000;

/** @param onFatal The node can do nothing useful any more; the process should end with the code. */
export async function startCloudNode(
  config: CloudConfig,
  logger: Logger,
  onFatal: (reason: string, exitCode: number) => void,
): Promise<StartOutcome> {
  const releases = newReleases(logger);
  const { onClose, close } = releases;
  const refuse = async (reason: string): Promise<StartOutcome> => {
    await close();
    return { outcome: 'refused', reason };
  };

  // Postgres first: without it nobody knows who owns what.
  const postgres = openPostgres(config.postgresUrl);
  const { pool } = postgres;
  onClose('PostgreSQL', () => pool.end());
  const history = await attempt(() => migrateUnhurried(config));
  if (!history.ok) return refuse(`PostgreSQL: ${history.reason}`);
  const { historyId, partitions, timescale } = history.value;
  logger.info(timescale, `history: on ${timescale.on === 'stock' ? 'stock PostgreSQL' : 'TimescaleDB'}`);
  if (partitions !== config.partitions) {
    logger.info({ partitions }, 'the history was made with another number of partitions, which it keeps');
  }

  const connection = await attempt(() =>
    connectNats({
      url: config.natsUrl,
      name: config.node,
      logger,
      onEnd: reason => {
        if (!releases.closing) onFatal(reason, 1);
      },
    }),
  );
  if (!connection.ok) return refuse(`NATS: ${connection.reason}`);
  const natsServer = connection.value;
  const { nats, ifOpen } = natsServer;
  onClose('NATS', natsServer.close);
  const manager = await jetstreamManager(nats, { checkAPI: false });
  let partitionsOpen = (): Iterable<Partition> => [];

  const stream = newStreamLocator({
    manager,
    bytesMax: config.streamBytesMax,
    replicas: config.streamReplicas,
    logger,
    onAnother() {
      for (const partition of partitionsOpen()) partition.relocate();
    },
  });
  const located = await attempt(stream.locate);
  if (!located.ok) return refuse(`JetStream: ${located.reason}`);

  // Before it takes anything: a node that cannot serve must not do that.
  const app = newApp();
  const listening = await listen(app, config.httpHost, config.httpPort);
  if (listening.outcome === 'refused') {
    return refuse(`HTTP: ${listening.reason}. Set HOLDFAST_HTTP_PORT to another one, or 0 for any.`);
  }

  const counters = newIngestCounters();
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
    streamCreated: stream.created,
    logger,
  });
  onClose('gateway link', async () => {
    gateways.close();
    await gateways.flush();
  });

  const budget = newBudget(config.historyQueueBytesMax);
  const dictionary = openDictionary(pool);
  const postgresStarted = await dictionary.serverStarted();
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
  const days = await attempt(() => ensureDaysAround(dictionary, Date.now()));
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
    locateStream: stream.locate,
    rules: rules.rules,
    publish: updates => ifOpen(() => publishUpdates(nats, updates)),
    onSettled: (notices, of, cursors) => ifOpen(() => gateways.announce(notices, of, cursors)),
    delivery,
    registry,
  };
  const leasePool = openLeasePool(config.postgresUrl);
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
    fit: () => natsServer.awayMs() < NATS_PATIENCE_MS,
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
      historyTrouble: [...partitionsOpen()].find(of => of.historyTrouble !== null)?.historyTrouble ?? null,
      budget,
      failedTwins: failedTwins(partitionsOpen()),
      push: { clients: push?.clients ?? 0, messagesSent: push?.messagesSent ?? 0 },
      servers: {
        nats: natsServer.health,
        redis: live.connected ? { ok: true, reason: null } : { ok: false, reason: 'not connected' },
        postgres: postgres.health,
      },
    });
  const backups = openBackupWatch(pool);
  void backups.refresh().catch(() => {});
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
    metrics: openMetrics({ health, gateways, channels: delivery.status, backups: () => backups.outlook }),
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
  registerDemoLinks({ app, controlUrl: config.demoControlUrl, onError });
  serveDashboard(app, await loadDashboard());
  onClose('HTTP', () => listening.close());

  natsServer.follow(() => {
    gateways.listenAnew();
    // Consumers live in the server's memory and may be gone with it: open new ones at the known positions.
    for (const partition of partitionsOpen()) partition.relocate();
    push?.resync();
  });

  if (config.roles.has('actors')) {
    const { postgresUrl, compactAfterMs: graceMs } = config;
    const compaction = startCompaction({ postgresUrl, graceMs, everyMs: COMPACTION_EVERY_MS, logger });
    onClose('compaction', () => compaction.close());
  }
  startChores({
    config,
    backups,
    logger,
    onClose,
    postgres,
    postgresStarted,
    dictionary,
    manager,
    stream,
    partitions,
    partitionsOpen,
    gateways,
    registry,
    registryApi,
    rules,
  });

  logger.info({ port: listening.port, partitions: ownership.held.size, historyId }, 'cloud node ready');
  return { outcome: 'started', node: { port: listening.port, close } };
}
