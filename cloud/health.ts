/** How the node is doing, as `/health` tells it. */
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import type { Budget } from './history/budget.ts';
import type { IngestCounters } from './partition.ts';

export interface ServerHealth {
  readonly ok: boolean;
  readonly reason: string | null;
}

export interface Health {
  readonly status: 'ok' | 'degraded';
  readonly reasons: readonly string[];
  readonly node: string;
  readonly uptimeSeconds: number;
  readonly messagesPerSecond: number;
  readonly readingsPerSecond: number;
  /** Arrival at the gateway to live state, of the newest batch. */
  readonly lagMs: number;
  readonly totals: IngestCounters;
  readonly historyQueue: { batches: number; bytes: number; bytesMax: number };
  readonly push: { clients: number; messagesSent: number };
  /** Twins whose fold threw, which is a bug of ours: the first few, and whether they are set aside for it. */
  readonly failedTwins: readonly { twin: string; setAside: boolean; reason: string }[];
  readonly eventLoopLagMs: { p50: number; p99: number };
  readonly servers: Record<'nats' | 'redis' | 'postgres', ServerHealth>;
}

const EVENT_LOOP_LAG_WARN_MS = 100;
const WINDOW_MS = 5000;

export interface HealthMonitor {
  report(now: {
    queued: number;
    /** Why PostgreSQL takes no rows, though it answers; null while it does. */
    historyTrouble: string | null;
    budget: Budget;
    push: { clients: number; messagesSent: number };
    failedTwins: Health['failedTwins'];
    servers: Health['servers'];
  }): Health;
  close(): void;
}

export function openHealthMonitor(node: string, counters: IngestCounters): HealthMonitor {
  const startedAt = performance.now();
  const resolutionMs = 10;
  let delay: IntervalHistogram = monitorEventLoopDelay({ resolution: resolutionMs });
  delay.enable();
  let eventLoopLagMs = { p50: 0, p99: 0 };
  let previous = { at: performance.now(), messages: 0, readings: 0 };
  let rate = { messages: 0, readings: 0 };

  const timer = setInterval(() => {
    const at = performance.now();
    const seconds = (at - previous.at) / 1000;
    rate = {
      messages: (counters.messages - previous.messages) / seconds,
      readings: (counters.readings - previous.readings) / seconds,
    };
    previous = { at, messages: counters.messages, readings: counters.readings };
    const beyondResolution = (nanoseconds: number) => Math.max(0, round(nanoseconds / 1e6 - resolutionMs));
    eventLoopLagMs = {
      p50: beyondResolution(delay.percentile(50)),
      p99: beyondResolution(delay.percentile(99)),
    };
    delay.disable();
    delay = monitorEventLoopDelay({ resolution: resolutionMs });
    delay.enable();
  }, WINDOW_MS);
  timer.unref();

  return {
    report({ queued, historyTrouble, budget, push, failedTwins, servers }) {
      const reasons = Object.entries(servers)
        .filter(([, server]) => !server.ok)
        .map(([name, server]) => `${name}: ${server.reason}`);
      // Where it does not answer at all, that has been said.
      if (historyTrouble !== null && servers.postgres.ok)
        reasons.push(`history: PostgreSQL takes no rows: ${historyTrouble}`);
      if (budget.bytes >= budget.bytesMax) reasons.push('history: the queue is full, the stream absorbs');
      if (eventLoopLagMs.p99 > EVENT_LOOP_LAG_WARN_MS)
        reasons.push(`event loop: p99 ${eventLoopLagMs.p99} ms behind`);
      const setAside = failedTwins.filter(entry => entry.setAside).length;
      if (setAside > 0) reasons.push(`twins: ${setAside} set aside after they failed`);
      return {
        status: reasons.length === 0 ? 'ok' : 'degraded',
        reasons,
        node,
        uptimeSeconds: Math.round((performance.now() - startedAt) / 1000),
        messagesPerSecond: round(rate.messages),
        readingsPerSecond: round(rate.readings),
        lagMs: round(counters.lagMs),
        totals: { ...counters },
        historyQueue: { batches: queued, bytes: budget.bytes, bytesMax: budget.bytesMax },
        push,
        failedTwins,
        eventLoopLagMs,
        servers,
      };
    },
    close() {
      clearInterval(timer);
      delay.disable();
    },
  };
}

const round = (value: number) => Math.round(value * 10) / 10;
