/**
 * One cloud node of the simulated cluster, put together from production's own parts as `cloud/node.ts` does: ownership,
 * partitions with pumps, actors and history writers, gateway link, push node. Simulated are the servers and the sockets.
 */

import type { TemplatedApp } from 'uWebSockets.js';
import type { Logger } from 'pino';
import { newBackfillGate } from '../cloud/backfill-gate.ts';
import { keepOwnership, type Ownership } from '../cloud/cluster/ownership.ts';
import { openGatewayLink } from '../cloud/gateway-link.ts';
import { newBudget } from '../cloud/history/budget.ts';
import { openDictionary } from '../cloud/history/dictionary.ts';
import { newIngestCounters } from '../cloud/ingest-counters.ts';
import { openPartition, type Partition, type PartitionShared } from '../cloud/partition.ts';
import { publishUpdates } from '../cloud/push/bus.ts';
import { openPushNode } from '../cloud/push/push-node.ts';
import { ensureStream, type StreamState } from '../cloud/stream.ts';
import type { Journal } from './journal.ts';
import type { NatsModel } from './nats.ts';
import type { PostgresModel } from './postgres.ts';
import type { RedisModel } from './redis.ts';
import type { SocketServer } from './sockets.ts';
import { openSocketServer } from './sockets.ts';
import type { Process, World } from './world.ts';

export interface CloudNodeModel {
  readonly name: string;
  readonly process: Process;
  readonly sockets: SocketServer;
  readonly ownership: Ownership<Partition> | null;
  /** SIGTERM: hands over and ends. */
  stop(): void;
}

export interface CloudServers {
  readonly world: World;
  readonly journal: Journal;
  readonly postgres: PostgresModel;
  readonly redis: RedisModel;
  readonly nats: NatsModel;
  readonly partitions: number;
  readonly rules: PartitionShared['rules'];
  readonly network: import('./network.ts').Network;
}

const NUDGE_SUBJECT = 'cluster.nudge';
const HISTORY_ID = '00000000-0000-4000-8000-000000000001';
const CHECK_MS = 5000;
const FENCE_CHECK_MS = 2000;
const LINK_CHECK_MS = 1000;
const NATS_PATIENCE_MS = 3000;
const COMMIT_INTERVAL_MS = 250;
const RETENTION_MS = 365 * 86_400_000;
const DRAIN_MS = 8000;
const QUEUE_BYTES_MAX = 64 * 1024 * 1024;

/** Begins to start it; it serves when its servers let it. */
export function startNode(servers: CloudServers, name: string, run: number): CloudNodeModel {
  const { world } = servers;
  const process = world.spawn(name);
  const sockets = openSocketServer(world, servers.network, process, name);
  const node: { -readonly [K in keyof CloudNodeModel]: CloudNodeModel[K] } = {
    name,
    process,
    sockets,
    ownership: null,
    stop() {
      world.after(0, process, 'SIGTERM', () => {
        const ending = node.ownership?.close(DRAIN_MS) ?? Promise.resolve();
        void ending.then(() => world.kill(process));
      });
    },
  };
  world.after(1, process, 'start', () => {
    open(servers, node, run).catch(error => world.crash(error));
  });
  return node;
}

async function open(
  { world, journal, postgres, redis, nats, partitions, rules }: CloudServers,
  node: { -readonly [K in keyof CloudNodeModel]: CloudNodeModel[K] },
  run: number,
): Promise<void> {
  const { process, name } = node;
  const note = (details: object, message?: string) =>
    world.note?.(`${name}: ${message ?? ''} ${JSON.stringify(details)}`);
  const logger = {
    debug: note,
    info: note,
    warn: note,
    error: note,
  } as unknown as Logger;
  const pool = postgres.pool(process, name);
  const connection = nats.connect(process, name);
  let created = '';
  let partitionsOpen = (): Iterable<Partition> => [];
  let locating: Promise<StreamState> | null = null;
  const locateStream = (): Promise<StreamState> => {
    locating ??= locate().finally(() => {
      locating = null;
    });
    return locating;
  };
  const locate = async () => {
    const state = await ensureStream(connection.manager, {
      bytesMax: 1e9,
      replicas: 1,
    });
    if (created !== '' && state.created !== created) {
      for (const partition of partitionsOpen()) partition.relocate();
    }
    created = state.created;
    return state;
  };
  // A node that cannot serve is started again until it can.
  while (created === '') {
    await locateStream().catch(() => new Promise(resolve => setTimeout(resolve, 500)));
  }

  const isKnown = async (site: string) => {
    const { rows } = await pool.query<{ site: string }>('select distinct site from holdfast.twin');
    return rows.some(row => row.site === site);
  };
  let confirmLeases = async () => {};
  const live = redis.connect(process, name, {
    confirmLease: () => confirmLeases(),
    onWritable: () => Promise.all([...partitionsOpen()].map(partition => partition.recoverLive())),
    isKnown,
  });
  const openLink = () =>
    openGatewayLink({
      nats: connection.nats,
      pool,
      historyId: HISTORY_ID,
      partitions,
      streamCreated: async () => (await locateStream()).created,
      logger,
    });
  let gateways: Awaited<ReturnType<typeof openLink>> | null = null;
  while (!gateways) {
    gateways = await openLink().catch(() => null);
    if (!gateways) await new Promise(resolve => setTimeout(resolve, 500));
  }
  const link = gateways;
  const dictionary = openDictionary(pool);
  let started: string | null = null;
  while (started === null) {
    started = await dictionary.serverStarted().catch(() => null);
    if (started === null) await new Promise(resolve => setTimeout(resolve, 500));
  }
  const shared: PartitionShared = {
    pool,
    dictionary,
    live,
    stream: connection.stream,
    budget: newBudget(QUEUE_BYTES_MAX),
    backfillGate: newBackfillGate(),
    logger,
    partitions,
    commitIntervalMs: COMMIT_INTERVAL_MS,
    retentionMs: RETENTION_MS,
    counters: newIngestCounters(),
    locateStream,
    rules,
    publish: updates => publishUpdates(connection.nats, updates),
    onSettled: (notices, of, cursors) => link.announce(notices, of, cursors),
    registry: { site: () => null, of: () => null },
    delivery: {
      deliverNow(id, epoch, transitions) {
        if (ownership.held.get(id)?.epoch !== epoch) return;
        for (const transition of transitions) {
          if (!redis.tookInto(epoch, transition)) {
            journal.staleEffects.push(
              `a page of ${transition.id} under epoch ${epoch}, which Redis did not take`,
            );
          }
          if (transition.late) continue;
          const isOver = transition.clearedAt !== null;
          journal.pages.set(transition.id, isOver || journal.pages.get(transition.id) === true);
        }
      },
      workOff: async () => {},
      release: async () => {},
    },
    confirmLease: async () => false,
    onStaleEpoch: () => {},
  };
  let natsLostAt: number | null = null;
  const ownership: Ownership<Partition> = await keepOwnership<Partition>({
    pool,
    holder: { id: `${name}.${run}`, name, actors: true },
    partitions,
    logger,
    open: claim =>
      openPartition(
        {
          ...shared,
          confirmLease: async (id, epoch) => {
            await ownership.confirm();
            return ownership.held.get(id)?.epoch === epoch;
          },
          onStaleEpoch: (id, epoch) => ownership.lost(id, epoch),
        },
        claim,
      ),
    nudgeAll: () => connection.nats.publish(NUDGE_SUBJECT),
    fit: () => natsLostAt === null || performance.now() - natsLostAt < NATS_PATIENCE_MS,
  });
  node.ownership = ownership;
  partitionsOpen = () => ownership.held.values();
  confirmLeases = ownership.confirm;
  connection.nats.subscribe(NUDGE_SUBJECT, {
    callback: () => ownership.nudged(),
  });

  const push = openPushNode({
    app: node.sockets.app as unknown as TemplatedApp,
    path: '/push',
    nats: connection.nats,
    live,
    logger,
  });
  connection.listen({
    onDisconnect: () => {
      natsLostAt ??= performance.now();
    },
    onReconnect: () => {
      natsLostAt = null;
      link.listenAnew();
      for (const partition of partitionsOpen()) partition.relocate();
      push.resync();
    },
  });
  setInterval(() => void locateStream().catch(() => {}), CHECK_MS);
  const every = (ms: number, work: () => Promise<unknown>) => {
    let busy = false;
    setInterval(() => {
      if (busy) return;
      busy = true;
      work()
        .catch(error => note({ reason: (error as Error).message }, 'trying again'))
        .finally(() => {
          busy = false;
        });
    }, ms);
  };
  every(CHECK_MS, async () => {
    const { rows } = await pool.query<{ started: string }>('select holdfast.server_started() as started');
    if (rows[0]!.started !== started) {
      dictionary.forgetAll();
      for (const partition of partitionsOpen()) await partition.retell();
    }
    started = rows[0]!.started;
  });
  every(FENCE_CHECK_MS, () => Promise.all([...partitionsOpen()].map(partition => partition.checkFences())));
  every(LINK_CHECK_MS, () => Promise.all([...partitionsOpen()].map(partition => partition.judgeLinks(link))));
}
