/**
 * `neighbours`: two sites in one partition. One of them drains the backlog of a cut link; how much later the other one's
 * live readings are meanwhile. Rounds in turns: quiet, then draining, on the same stack. The gateway that drains has the
 * least priority: it stands for a box of its own, and what it takes of this machine's cores is no business of the cloud's.
 */
import { constants, setPriority } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Benchmark } from './benchmark.ts';
import { percentile } from './live-latency.ts';
import { openSteadyScene } from './steady-scene.ts';
import { median, rounded, table } from './tables.ts';

const ROUNDS = 3;
const CUT_MS = 120_000;
const WARM_UP_MS = 10_000;
const FINISH_MS = 120_000;
const DRAINED_MESSAGES = 2000;
const POLL_MS = 100;

export const neighbours: Benchmark = {
  does: "one site drains a backlog: the other live site's p99 in the same partition",
  async run(options) {
    const rounds = options.rounds ?? ROUNDS;
    const scene = await openSteadyScene(
      options,
      [
        { site: 'draining', devices: 1000, intervalMs: 1000 },
        { site: 'live', devices: 500, intervalMs: 1000 },
      ],
      { cloudEnv: { HOLDFAST_PARTITIONS: '1' } },
    );
    const [draining, live] = scene.sites as [(typeof scene.sites)[0], (typeof scene.sites)[0]];
    setPriority(scene.stack.gateways.get('draining/gw-1')!.pid()!, constants.priority.PRIORITY_LOW);
    await sleep(WARM_UP_MS);
    const measured: { quiet: number; draining: number; seconds: number }[] = [];
    for (let round = 1; round <= rounds; round++) {
      // Both are at full rate before the cut; with one of them cut the machine would have an easier time.
      live.latency.take();
      await sleep(20_000);
      const quiet = percentile(live.latency.take(), 0.99);
      draining.link.cut();
      await sleep(CUT_MS);
      live.latency.take();
      const healedAt = Date.now();
      draining.link.heal();
      await draining.latency.firstAfter(healedAt);
      while (draining.fleet.acknowledged - (await scene.settled('draining')) > DRAINED_MESSAGES) {
        await sleep(POLL_MS);
      }
      const seconds = (Date.now() - healedAt) / 1000;
      const drainingP99 = percentile(live.latency.take(), 0.99);
      measured.push({ quiet, draining: drainingP99, seconds });
      options.report(
        `round ${round} of ${rounds}: p99 ${quiet} ms quiet, ${drainingP99} ms while the other drains (${seconds.toFixed(1)} s)`,
      );
    }
    const count = await scene.finish(FINISH_MS);
    const ratio = median(measured.map(round => round.draining / round.quiet));
    return {
      tables: [
        table([
          ['round', 'p99 quiet, ms', 'p99 while the other drains, ms', 'drain, s'],
          ...measured.map((round, index) => [
            String(index + 1),
            round.quiet,
            round.draining,
            rounded(round.seconds, 1),
          ]),
        ]),
      ],
      figures: {
        p99_quiet_ms: median(measured.map(round => round.quiet)),
        p99_draining_ms: median(measured.map(round => round.draining)),
        ratio: rounded(ratio, 2),
        rounds,
        ...count,
        missing: count.acknowledged - count.stored,
      },
    };
  },
};
