/** Runs the seeds that it is told, one after another. */
import { parentPort } from 'node:worker_threads';
import type { Bug } from './cluster.ts';
import { runSeed, type SeedResult } from './run.ts';

parentPort!.on('message', ({ first, last, bug }: { first: number; last: number; bug: Bug | null }) => {
  void (async () => {
    const results: SeedResult[] = [];
    for (let seed = first; seed <= last; seed++) results.push(await runSeed(seed, { bug }));
    parentPort!.postMessage(results);
  })();
});
