/**
 * Many seeds, on two cores unless told otherwise: each worker takes the next one that nobody has. Seeds know nothing of one another, so which
 * worker runs one changes nothing.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { Bug } from './cluster.ts';
import type { SeedResult } from './run.ts';

export interface SeedsSummary {
  readonly faults: number;
  readonly acknowledged: number;
  readonly lost: number;
  readonly duplicates: number;
  readonly phantoms: number;
  readonly regressions: number;
  readonly stale_effects: number;
  readonly wrong_incidents: number;
  /** From a kill until all partitions have a living owner again, milliseconds of simulated time. */
  readonly recovery_ms: { readonly p50: number; readonly p99: number };
  readonly seeds: number;
}

export interface SeedsOutcome {
  readonly summary: SeedsSummary;
  /** Those that were not clean, in order. */
  readonly failed: readonly SeedResult[];
}

export interface SeedsOptions {
  readonly from: number;
  readonly to: number;
  readonly bug?: Bug | null;
  readonly workers?: number;
  /** Ends at the first seed that is not clean. */
  readonly untilFailed?: boolean;
  readonly onResult?: (result: SeedResult) => void;
}

const WORKERS = 2;
/** Seeds that a worker is given at a time: enough that nobody waits, few enough that all end together. */
const SEEDS_AT_ONCE = 10;

export async function simulateSeeds(options: SeedsOptions): Promise<SeedsOutcome> {
  const { from, to, bug = null } = options;
  const results: SeedResult[] = [];
  let next = from;
  let failed = false;
  const count = Math.min(
    options.workers ?? Math.min(WORKERS, availableParallelism()),
    Math.ceil((to - from + 1) / SEEDS_AT_ONCE),
  );

  async function work(): Promise<void> {
    const worker = new Worker(new URL('./worker.ts', import.meta.url));
    try {
      while (next <= to && !(failed && options.untilFailed)) {
        const first = next;
        next += SEEDS_AT_ONCE;
        const last = Math.min(to, first + SEEDS_AT_ONCE - 1);
        for (const result of await ask(worker, { first, last, bug })) {
          if (!result.isClean) failed = true;
          results.push(result);
          options.onResult?.(result);
        }
      }
    } finally {
      await worker.terminate();
    }
  }
  await Promise.all(Array.from({ length: Math.max(1, count) }, work));
  results.sort((a, b) => a.seed - b.seed);
  return { summary: summaryOf(results), failed: results.filter(({ isClean }) => !isClean) };
}

function ask(
  worker: Worker,
  question: { first: number; last: number; bug: Bug | null },
): Promise<SeedResult[]> {
  return new Promise((resolve, reject) => {
    worker.once('error', reject);
    worker.once('message', (results: SeedResult[]) => {
      worker.off('error', reject);
      resolve(results);
    });
    worker.postMessage(question);
  });
}

export function summaryOf(results: readonly SeedResult[]): SeedsSummary {
  const sum = (of: (result: SeedResult) => number) =>
    results.reduce((total, result) => total + of(result), 0);
  const recovery = results.flatMap(({ recoveryMs }) => recoveryMs).sort((a, b) => a - b);
  const percentile = (share: number) => recovery[Math.ceil(recovery.length * share) - 1] ?? 0;
  return {
    faults: sum(result => result.faults),
    acknowledged: sum(result => result.acknowledged),
    lost: sum(result => result.lost),
    duplicates: sum(result => result.duplicates),
    phantoms: sum(result => result.phantoms),
    regressions: sum(result => result.regressions),
    stale_effects: sum(result => result.staleEffects),
    wrong_incidents: sum(result => result.wrongIncidents),
    recovery_ms: { p50: percentile(0.5), p99: percentile(0.99) },
    seeds: results.length,
  };
}
