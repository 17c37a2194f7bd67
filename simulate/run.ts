/** One seed, from the first event to the verdict. */
import { check, type Verdict } from './checker.ts';
import { type Bug, type Cluster, HEAL_AT_MS, newCluster } from './cluster.ts';
import { newWorld } from './world.ts';

export interface SeedResult extends Verdict {
  readonly seed: number;
  readonly faults: number;
  readonly faultKinds: readonly string[];
  readonly recoveryMs: readonly number[];
  /** A production part threw, or the run could not go on. */
  readonly crashes: readonly string[];
  readonly events: number;
  /** Of all events, in order: equal for two runs of one seed. */
  readonly hash: string;
  readonly isClean: boolean;
}

/** Nobody has anything left to do by then, or never will. */
const GIVE_UP_AT_MS = HEAL_AT_MS + 45_000;
const LOOK_MS = 250;
/** What comes late comes within that. */
const AFTERWARDS_MS = 2500;

export async function runSeed(
  seed: number,
  options: { bug?: Bug | null; trace?: (line: string) => void } = {},
): Promise<SeedResult> {
  const world = newWorld(seed, options.trace);
  const cluster = newCluster(world, options.bug ?? null);
  const look = () => {
    world.after(LOOK_MS, null, 'look', () => {
      if (!isQuiet(cluster)) return look();
      world.after(AFTERWARDS_MS, null, 'end', () => world.finish());
    });
  };
  world.after(HEAL_AT_MS, null, 'look', look);
  await world.run(GIVE_UP_AT_MS);
  const verdict = check(cluster);
  const { faults } = cluster.journal;
  return {
    seed,
    ...verdict,
    faults,
    faultKinds: cluster.faults.map(({ kind }) => kind),
    recoveryMs: cluster.recoveryMs,
    crashes: world.crashes,
    events: world.events,
    hash: world.hash(),
    isClean:
      world.crashes.length === 0 &&
      verdict.lost + verdict.duplicates + verdict.phantoms === 0 &&
      verdict.regressions + verdict.staleEffects + verdict.wrongIncidents === 0,
  };
}

function isQuiet(cluster: Cluster): boolean {
  if (cluster.healedAt() === null) return false;
  if (
    !cluster.sites.every(({ gateway, clones }) => gateway.drained && clones.every(clone => clone.drained))
  ) {
    return false;
  }
  const { lost, regressions } = check(cluster);
  return lost === 0 && regressions <= cluster.journal.regressions.length;
}
