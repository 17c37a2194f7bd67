/**
 * `postgres-away`: PostgreSQL is stopped for ten minutes (`--minutes`) under 2,000 messages/s (`--rate`). What gateways
 * publish a second time, heard on the wire, against the bytes of what came meanwhile; and how live the dashboard stays.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Benchmark } from './benchmark.ts';
import { openIngestTap } from './ingest-tap.ts';
import { percentile } from './live-latency.ts';
import { figuresTable } from './outage.ts';
import { openSteadyScene } from './steady-scene.ts';
import { rounded } from './tables.ts';

const MINUTES = 10;
const MESSAGES_PER_SECOND = 2000;
/** Of each device. */
const INTERVAL_MS = 1000;
const WARM_UP_MS = 5000;
const CALM_MS = 10_000;
const FINISH_MS = 300_000;

export const postgresAway: Benchmark = {
  does: 'PostgreSQL stopped for --minutes at --rate messages/s (2,000): bytes sent again, live meanwhile',
  async run(options) {
    const minutes = options.minutes ?? MINUTES;
    const scene = await openSteadyScene(options, [
      { site: 'far', devices: options.rate ?? MESSAGES_PER_SECOND, intervalMs: INTERVAL_MS },
    ]);
    const { fleet, latency } = scene.sites[0]!;
    const tap = await openIngestTap(scene.stack.nats.url);
    options.releases.add(() => tap.close());
    await sleep(WARM_UP_MS);
    latency.take();
    await sleep(CALM_MS);
    const calm = latency.take();

    options.report(`PostgreSQL stopped for ${minutes} minutes`);
    await scene.stack.postgres.stop();
    const before = { ...tap.totals };
    await sleep(minutes * 60_000);
    const away = latency.take();
    const backlogBytes = tap.totals.bytes - before.bytes;
    const backlogMessages = tap.totals.messages - before.messages;
    const startedAt = Date.now();
    await scene.stack.postgres.start();
    options.report(`back; ${backlogMessages} messages in the stream meanwhile`);
    const count = await scene.finish(FINISH_MS);
    const recoverySeconds = (Date.now() - startedAt) / 1000;
    const resentBytes = tap.totals.resentBytes - before.resentBytes;

    const figures = {
      minutes,
      live_messages_per_s: fleet.messagesPerSecond,
      backlog_messages: backlogMessages,
      backlog_bytes: backlogBytes,
      resent_bytes: Math.round(resentBytes),
      resent_share: rounded(resentBytes / backlogBytes, 4),
      live_p99_ms: rounded(percentile(calm, 0.99), 0),
      live_p99_away_ms: rounded(percentile(away, 0.99), 0),
      live_max_away_ms: rounded(percentile(away, 1), 0),
      recovery_seconds: rounded(recoverySeconds, 1),
      ...count,
      missing: count.acknowledged - count.stored,
    };
    return { tables: [figuresTable(figures)], figures };
  },
};
