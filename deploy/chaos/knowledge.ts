/**
 * Who knows what people were shown and told last: the owner of a site in its memory, Redis, and stream with history together. Each
 * may lose it, and so may two of them at a time; what all three have lost within seconds nobody knows any more, whatever a
 * system does, so the third waits until the others have it again. Pure.
 */
import type { FaultKind } from './plan.ts';

export type Knower = 'owner' | 'redis' | 'stream and history';

const LOSES: Partial<Record<FaultKind, readonly Knower[]>> = {
  'cloud-kill': ['owner'],
  'cloud-pause': ['owner'],
  'cloud-cut': ['owner'],
  'cloud-half-open': ['owner'],
  // Who leaves has nowhere to put what he knows.
  'cloud-rolling-restart': ['owner'],
  'redis-emptied': ['redis'],
  'redis-flushed': ['redis'],
  // A node sleeps meanwhile.
  'redis-stale': ['owner', 'redis'],
  'nats-emptied': ['stream and history'],
  'stream-deleted': ['stream and history'],
  'postgres-restored': ['stream and history'],
};
const KNOWERS = 3;
/** After the end of a fault: a lease, a hello of every gateway, and what they send again. */
const KNOWS_AGAIN_AFTER_MS = 10_000;

export const losersOf = (kind: FaultKind): readonly Knower[] => LOSES[kind] ?? [];

/** @param lostAt by knower, when the last fault that hit it ended; infinite while one is under way */
export function mayLose(kind: FaultKind, lostAt: ReadonlyMap<Knower, number>, nowMs: number): boolean {
  const losers = losersOf(kind);
  if (losers.length === 0) return true;
  const without = new Set<Knower>(losers);
  for (const [knower, at] of lostAt) if (nowMs - at < KNOWS_AGAIN_AFTER_MS) without.add(knower);
  return without.size < KNOWERS;
}
