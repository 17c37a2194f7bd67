/**
 * The partitions that this node runs, kept in step with the cluster.
 *
 *   every 500 ms, or nudged: beat ─▶ plan ─▶ lost: closed at once
 *                                       ├──▶ claim ─▶ opened
 *                                       └──▶ hand over: closed, what is queued committed, released, all nudged
 *
 * A nudge is a message to all nodes that something is free to take. It may get lost: the next beat does the same. While
 * Postgres is away nothing changes hands: partitions go on, and their history waits (R).
 */
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import {
  beat,
  type Claim,
  claimPartitions,
  LEASE_MS,
  type LeaseHolder,
  leave,
  lostPartitions,
  releasePartition,
} from './leases.ts';
import { type ClusterView, nextSteps } from './plan.ts';

export interface OwnedPartition {
  readonly id: number;
  readonly epoch: number;
  /** Why PostgreSQL takes none of what is queued; null while it does. */
  readonly historyTrouble: string | null;
  /** Writes what is queued, for as long as that. */
  close(deadlineMs: number): Promise<void>;
}

export interface Ownership<P extends OwnedPartition> {
  readonly held: ReadonlyMap<number, P>;
  readonly view: ClusterView;
  /** The first beats. Resolves when every partition has an owner that lives, which takes a lease or so at most. */
  ready(): Promise<void>;
  /** The partition has another owner: it is closed, and whatever it still does has no effect. */
  lost(id: number, epoch: number): void;
  /** Reads the epochs again and gives up what is lost. Rejects when Postgres does not say. */
  confirm(): Promise<void>;
  /** Something may be free. */
  nudged(): void;
  /** Hands everything over and leaves the cluster. */
  close(deadlineMs: number): Promise<void>;
}

const BEAT_MS = 500;
/** One that is handed over serves nobody until the next owner has it: it writes for no longer than that. */
const HAND_OVER_MS = 500;
/** So that those that wait go on being served. */
const HAND_OVERS_AT_ONCE = 8;

export function keepOwnership<P extends OwnedPartition>(options: {
  /** Not the pool of the history writers: a heartbeat must not queue behind them. */
  pool: Pool;
  holder: LeaseHolder;
  partitions: number;
  logger: Logger;
  open: (claim: Claim) => P;
  nudgeAll: () => void;
  /** Whether partitions are served here at all. While they are not, those go to nodes that can, if there is one. */
  fit: () => boolean;
}): Ownership<P> {
  const { pool, holder, logger } = options;
  const held = new Map<number, P>();
  const leaving = new Map<number, Promise<void>>();
  let view: ClusterView = { nodes: [], partitions: [] };
  let phase: 'running' | 'draining' | 'closed' = 'running';
  let stepping: Promise<void> | null = null;
  let again = false;
  let lastBeatAt = Number.NEGATIVE_INFINITY;
  /** Who could not say that it lives, like us, is not dead for it. */
  let trustDeathsFrom = 0;
  let lastReason = '';

  async function step(): Promise<void> {
    const started = performance.now();
    const seen = await beat(pool, holder, phase !== 'running' || !options.fit());
    const now = performance.now();
    if (lastBeatAt > 0 && started - lastBeatAt > LEASE_MS) trustDeathsFrom = now + LEASE_MS;
    lastBeatAt = now;
    view = seen;
    if (lastReason) logger.info('cluster: heartbeats get through again');
    lastReason = '';
    if (!holder.actors || phase === 'closed') return;
    const epochs = new Map([...held.values()].map(partition => [partition.id, partition.epoch]));
    const steps = nextSteps(holder.id, seen, epochs);
    for (const id of steps.lost) lost(id, epochs.get(id)!);
    for (const { id, epoch } of seen.partitions) {
      if (steps.release.includes(id)) await releasePartition(pool, id, epoch);
    }
    if (steps.release.length > 0) options.nudgeAll();
    for (const id of steps.handOver) {
      if (leaving.size >= HAND_OVERS_AT_ONCE) break;
      // The next owner would begin without what is queued here.
      if (held.get(id)?.historyTrouble) continue;
      void handOver(id, HAND_OVER_MS);
    }
    const owners = new Map(seen.partitions.map(({ id, owner }) => [id, owner]));
    const free = steps.claim.filter(id => owners.get(id) === null || now >= trustDeathsFrom);
    if (phase !== 'running' || free.length === 0) return;
    const claims = await claimPartitions(pool, holder.id, free, options.partitions);
    for (const claim of claims) held.set(claim.id, options.open(claim));
    if (claims.length > 0) {
      logger.info({ partitions: claims.map(({ id }) => id), of: seen.nodes.length }, 'cluster: claimed');
    }
  }

  /** One step at a time; asked for meanwhile, another one follows. */
  function run(): Promise<void> {
    if (stepping !== null) {
      again = true;
      return stepping;
    }
    stepping = step()
      .catch(error => {
        const reason = (error as Error).message;
        if (reason !== lastReason) logger.warn({ reason }, 'cluster: no heartbeat, trying again');
        lastReason = reason;
      })
      .finally(() => {
        stepping = null;
        if (!again) return;
        again = false;
        void run();
      });
    return stepping;
  }

  function handOver(id: number, deadlineMs: number): Promise<void> {
    const partition = held.get(id);
    if (!partition) return Promise.resolve();
    const known = leaving.get(id);
    if (known !== undefined) return known;
    const done = (async () => {
      await partition.close(deadlineMs);
      await releasePartition(pool, id, partition.epoch);
    })()
      .catch(error =>
        // It is free when our lease ends, or when we claim it again.
        logger.warn({ partition: id, reason: (error as Error).message }, 'cluster: not released'),
      )
      .finally(() => {
        if (held.get(id) === partition) held.delete(id);
        leaving.delete(id);
        options.nudgeAll();
        // The next one that waits, if any.
        if (phase === 'running') void run();
      });
    leaving.set(id, done);
    return done;
  }

  function lost(id: number, epoch: number): void {
    const partition = held.get(id);
    if (!partition || partition.epoch !== epoch) return;
    held.delete(id);
    logger.warn({ partition: id, epoch }, 'cluster: fenced, the partition has another owner');
    partition.close(0).catch(error => logger.warn({ partition: id, err: error }, 'partition not closed'));
  }

  const timer = setInterval(() => void run(), BEAT_MS);

  return {
    held,
    get view() {
      return view;
    },
    async ready() {
      const started = performance.now();
      const patienceMs = LEASE_MS + 2 * BEAT_MS;
      while (phase === 'running' && holder.actors) {
        await run();
        const sinceMs = performance.now() - started;
        // Those that were heard since we are here. Of the others it will turn out that they are dead.
        const living = new Set(view.nodes.filter(node => node.heartbeatAgeMs < sinceMs).map(node => node.id));
        const open = view.partitions.some(({ id, owner }) => !held.has(id) && (!owner || !living.has(owner)));
        if ((!open && view.partitions.length > 0) || sinceMs > patienceMs) return;
        await new Promise(resolve => setTimeout(resolve, BEAT_MS / 5));
      }
    },
    lost,
    async confirm() {
      if (held.size === 0) return;
      const epochs = new Map([...held.values()].map(partition => [partition.id, partition.epoch]));
      for (const id of await lostPartitions(pool, epochs)) lost(id, epochs.get(id)!);
    },
    nudged: () => void run(),
    async close(deadlineMs) {
      phase = 'draining';
      await run();
      const others = view.nodes.some(node => node.id !== holder.id && node.actors && !node.draining);
      const waiting = [...held.keys()];
      const next = async () => {
        for (let id = waiting.shift(); id !== undefined; id = waiting.shift()) {
          await handOver(id, others ? HAND_OVER_MS : deadlineMs);
        }
      };
      // With nobody to take over, nobody is kept waiting: all at once.
      const atOnce = others ? HAND_OVERS_AT_ONCE : waiting.length;
      await Promise.all(Array.from({ length: atOnce }, next));
      phase = 'closed';
      clearInterval(timer);
      await stepping;
      await leave(pool, holder.id).catch(() => {});
    },
  };
}
