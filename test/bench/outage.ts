/**
 * `outage`: the link of a site at 2,000 messages/s is cut for ten minutes (`--minutes`). How soon the dashboard is fresh
 * after its return, how live it stays while the backlog drains, and how fast that goes.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Benchmark } from './benchmark.ts';
import { percentile } from './live-latency.ts';
import { openSteadyScene } from './steady-scene.ts';
import { rounded, table } from './tables.ts';

const MINUTES = 10;
const DEVICES = 2000;
const INTERVAL_MS = 1000;
const CALM_MS = 20_000;
const FINISH_MS = 120_000;
/** The backlog counts as drained when no more waits than this many milliseconds of live data. */
const DRAINED_MS = 1000;
const POLL_MS = 100;

export const outage: Benchmark = {
  does: 'a link cut for --minutes at 2,000 messages/s: fresh when, live meanwhile, drained how fast',
  async run(options) {
    const minutes = options.minutes ?? MINUTES;
    const scene = await openSteadyScene(options, [
      { site: 'far', devices: DEVICES, intervalMs: INTERVAL_MS },
    ]);
    const { fleet, latency, link } = scene.sites[0]!;
    await sleep(CALM_MS);
    const calm = latency.take();

    options.report(`cut for ${minutes} minutes`);
    link.cut();
    await sleep(minutes * 60_000);
    const backlog = fleet.acknowledged - (await scene.settled('far'));
    const upBefore = link.bytes.up;
    latency.take();
    const healedAt = Date.now();
    const fresh = latency.firstAfter(healedAt);
    link.heal();
    const freshMs = (await fresh) - healedAt;
    // What came before the first fresh value is old by the length of the reconnect; it is in `freshMs`.
    latency.take();
    options.report(`${backlog} messages waited; fresh after ${freshMs} ms`);
    const drainedBelow = (fleet.messagesPerSecond * DRAINED_MS) / 1000;
    while (fleet.acknowledged - (await scene.settled('far')) > drainedBelow) await sleep(POLL_MS);
    const drainSeconds = (Date.now() - healedAt) / 1000;
    const draining = latency.take();
    const bytesUp = link.bytes.up - upBefore;
    options.report(`drained in ${drainSeconds.toFixed(1)} s`);
    await sleep(CALM_MS / 4);
    const count = await scene.finish(FINISH_MS);

    const drainRate = backlog / drainSeconds;
    const figures = {
      minutes,
      live_messages_per_s: fleet.messagesPerSecond,
      backlog_messages: backlog,
      first_live_ms: freshMs,
      live_p99_ms: rounded(percentile(calm, 0.99), 0),
      live_p99_draining_ms: rounded(percentile(draining, 0.99), 0),
      live_max_draining_ms: rounded(percentile(draining, 1), 0),
      drain_seconds: rounded(drainSeconds, 1),
      drain_messages_per_s: Math.round(drainRate),
      drain_ratio: rounded(drainRate / fleet.messagesPerSecond, 1),
      wire_bytes_per_message: rounded(bytesUp / (backlog + drainSeconds * fleet.messagesPerSecond), 2),
      ...count,
      missing: count.acknowledged - count.stored,
    };
    return { tables: [figuresTable(figures)], figures };
  },
};

export const figuresTable = (figures: Readonly<Record<string, number>>): string =>
  table([['figure', 'value'], ...Object.entries(figures)]);
