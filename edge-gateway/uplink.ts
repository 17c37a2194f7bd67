/**
 * The uplink: carries the disk buffer to the cloud's stream and learns what history has settled.
 *
 *   connecting ─▶ greeting (hello) ─▶ sending ──connection lost──▶ greeting …        close ─▶ closed
 *
 * Batches grow with load: one leaves as soon as the flush interval since the last one is over, with all that has
 * gathered by then. Every few seconds, and after every connect, a hello brings ledger and stream position; notices
 * after each commit bring them sooner. Invariants: A (space is given back only for what history settled), F (batches
 * in flight are bounded), R (connects for ever, with jitter; what was in a lost stream is sent again).
 */
import { jetstream } from '@nats-io/jetstream';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import type { Logger } from 'pino';
import type { LostBatch, ReadingsBatch } from '../protocol/batch.ts';
import { encodeBatch, WIRE_VERSION } from '../protocol/batch-codec.ts';
import { type GatewayReport, HelloReply, Settled, type StreamPosition } from '../protocol/handshake.ts';
import type { LogId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { natsAddress } from '../protocol/nats-address.ts';
import type { Range, RangeSet } from '../protocol/range-set.ts';
import {
  helloSubject,
  inboxPrefix,
  ingestSubject,
  type Lane,
  PARTITIONS_DEFAULT,
  partitionOf,
  settledSubject,
} from '../protocol/subjects.ts';
import { buildBatch, quarantineBatch } from './batch-builder.ts';
import type { GatewayConfig } from './config.ts';
import type { DiskBuffer, Frame, LogInfo } from './log/disk-buffer.ts';
import {
  acknowledged,
  failed,
  newSendPlan,
  passed,
  type SendPlan,
  settle,
  take,
  waiting,
} from './send-plan.ts';

export interface Uplink {
  readonly connected: boolean;
  /** Sends what is on disk, at most for `deadlineMs`, and closes. */
  close(deadlineMs: number): Promise<void>;
}

const LANE: Lane = 'live';
const BATCHES_IN_FLIGHT_MAX = 16;
const HELLO_MS = 5000;
const HELLO_TIMEOUT_MS = 5000;
const PUBLISH_TIMEOUT_MS = 10_000;
const RETRY_MS = { first: 100, max: 5000 };

interface NextBatch extends Range {
  readonly log: LogInfo;
  readonly lost: boolean;
}

export function startUplink(options: {
  config: Pick<GatewayConfig, 'site' | 'gateway' | 'natsUrl' | 'batchMessagesMax' | 'flushIntervalMs'>;
  buffer: DiskBuffer;
  report: () => GatewayReport;
  logger: Logger;
}): Uplink {
  const { config, buffer, logger } = options;
  const { site, gateway } = config;
  /** What is settled is the cloud's to say: a history that was replaced or restored is filled from what is still here. */
  const plans = new Map<LogId, SendPlan>();
  const subject = { hello: helloSubject(site, gateway), settled: settledSubject(site, gateway) };
  let nats: NatsConnection | undefined;
  let partitions = PARTITIONS_DEFAULT;
  let historyId: string | undefined;
  /** Identity of the stream, as the last hello told it; null until one was answered. */
  let streamCreated: string | null = null;
  let connected = false;
  let inFlight = 0;
  let lastFlushAt = Number.NEGATIVE_INFINITY;
  let retryMs = RETRY_MS.first;
  let lastReason = '';
  let phase: 'open' | 'draining' | 'closed' = 'open';
  const alarm = newAlarm();
  /** Rejects when the link goes down: nobody waits for an answer that cannot come any more. */
  let linkDown = newLinkDown();

  const forgetDurable = buffer.onDurable(alarm.ring);
  const connecting = keepConnecting();
  const running = run();
  const helloTimer = setInterval(() => void hello(), HELLO_MS);

  async function keepConnecting(): Promise<void> {
    while (phase === 'open') {
      try {
        const opened = await connect({
          ...natsAddress(config.natsUrl),
          name: `${site}/${gateway}`,
          inboxPrefix: inboxPrefix(site, gateway),
          maxReconnectAttempts: -1,
          reconnectTimeWait: 500,
          reconnectJitter: 1500,
          pingInterval: 5000,
          maxPingOut: 2,
          ignoreAuthErrorAbort: true,
        });
        nats = opened;
        opened.subscribe(subject.settled, {
          callback: (error, message) => void (error ?? onSettled(message.data)),
        });
        onConnected();
        void followStatus(opened);
        return;
      } catch (error) {
        trouble(`NATS at ${natsAddress(config.natsUrl).servers.join(', ')}: ${(error as Error).message}`);
        await pause(jittered(RETRY_MS.max / 2));
      }
    }
  }

  async function followStatus(connection: NatsConnection): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type === 'reconnect') onConnected();
      if (status.type === 'disconnect') {
        connected = false;
        linkDown.reject(new Error('the link to the cloud went down'));
        linkDown = newLinkDown();
        trouble('the link to the cloud is down');
      }
    }
  }

  function onConnected(): void {
    connected = true;
    retryMs = RETRY_MS.first;
    logger.info('uplink: connected');
    lastReason = '';
    void hello();
  }

  function trouble(reason: string): void {
    if (reason !== lastReason) logger.warn({ reason }, 'uplink: trouble, trying again');
    lastReason = reason;
  }

  async function hello(): Promise<void> {
    if (!nats || !connected || phase === 'closed') return;
    const logs = buffer.logs();
    for (const log of logs) planOf(log);
    try {
      const message = JSON.stringify({
        wireVersions: [WIRE_VERSION],
        logs: logs.map(log => log.logId),
        report: options.report(),
      });
      const answer = await nats.request(subject.hello, message, { timeout: HELLO_TIMEOUT_MS });
      const reply = HelloReply.parse(answer.json());
      if (reply.outcome === 'refused') {
        trouble(`the cloud refuses this gateway: ${reply.reason}`);
        return;
      }
      if (historyId !== undefined && historyId !== reply.historyId) {
        logger.warn(
          { was: historyId, is: reply.historyId },
          'the cloud has another history: it gets all that is still here',
        );
        plans.clear();
        for (const log of logs) planOf(log);
      }
      ({ historyId, partitions } = reply);
      applySettled(reply.settled, reply.stream);
      streamCreated = reply.stream.created;
      if (lastReason) logger.info('uplink: the cloud answers');
      lastReason = '';
      alarm.ring();
    } catch (error) {
      trouble(`the cloud does not answer: ${(error as Error).message}`);
    }
  }

  function onSettled(data: Uint8Array): void {
    try {
      const { settled, stream } = Settled.parse(JSON.parse(Buffer.from(data).toString()));
      applySettled(settled, stream);
      alarm.ring();
    } catch (error) {
      trouble(`a settled notice makes no sense: ${(error as Error).message}`);
    }
  }

  function applySettled(settled: Record<string, RangeSet>, stream: StreamPosition): void {
    for (const [logId, plan] of plans) {
      const ranges = settled[logId];
      const after = ranges ? settle(plan, ranges) : plan;
      plans.set(logId, passed(after, { created: stream.created, sequence: stream[LANE] }));
      if (ranges) buffer.settle(logId, ranges);
    }
  }

  async function run(): Promise<void> {
    while (phase !== 'closed') {
      const next = readyToSend() ? nextBatch() : null;
      if (!next) {
        if (phase === 'draining' && inFlight === 0) return;
        await alarm.rung(1000);
        continue;
      }
      const sinceFlush = performance.now() - lastFlushAt;
      if (
        sinceFlush < config.flushIntervalMs &&
        next.to - next.from < config.batchMessagesMax &&
        !next.lost
      ) {
        await pause(config.flushIntervalMs - sinceFlush);
        continue;
      }
      lastFlushAt = performance.now();
      await send(next);
    }
  }

  function readyToSend(): boolean {
    return connected && streamCreated !== null && inFlight < BATCHES_IN_FLIGHT_MAX;
  }

  /** The first run of sequences that waits, over all logs, oldest log first. */
  function nextBatch(): NextBatch | null {
    const logs = buffer.logs();
    forgetGoneLogs(logs);
    for (const log of logs) {
      const plan = planOf(log);
      const from = Math.max(
        1,
        Math.min(log.firstSequence, log.lost.ranges[0]?.from ?? Number.POSITIVE_INFINITY),
      );
      const first = waiting(plan, from, log.nextSequence).ranges[0];
      if (!first) continue;
      const lost = log.lost.contains(first.from);
      const edge = lost
        ? log.lost.watermark(first.from)
        : (log.lost.ranges.find(range => range.from > first.from)?.from ?? first.to);
      return { log, lost, from: first.from, to: Math.min(first.to, edge) };
    }
    return null;
  }

  function planOf(log: LogInfo): SendPlan {
    let plan = plans.get(log.logId);
    if (!plan) {
      plan = newSendPlan();
      plans.set(log.logId, plan);
    }
    return plan;
  }

  function forgetGoneLogs(logs: readonly LogInfo[]): void {
    if (plans.size === logs.length) return;
    const present = new Set(logs.map(log => log.logId));
    for (const logId of plans.keys()) if (!present.has(logId)) plans.delete(logId);
  }

  async function send({ log, lost, from, to }: NextBatch): Promise<void> {
    if (lost) {
      publish(log.logId, { from, to }, encodeBatch(lostBatch(log.logId, { from, to })));
      return;
    }
    const frames = await readFrames(log, { from, to });
    // Found damaged while reading: the log now lists it as lost. Or the disk gives no answer for now.
    if (frames.length === 0) return pause(RETRY_MS.first);
    const { batch, bytes } = encodeFrames(log.logId, frames);
    const { firstSequence, count } = batch;
    publish(log.logId, { from: firstSequence, to: firstSequence + count }, bytes);
  }

  /** A frame that cannot be encoded is a mistake of ours, and still must not hold up all that come after it (H). */
  function encodeFrames(logId: LogId, frames: readonly Frame[]): { batch: ReadingsBatch; bytes: Buffer } {
    try {
      const batch = buildBatch(logId, frames);
      return { batch, bytes: encodeBatch(batch) };
    } catch (error) {
      if (frames.length > 1) return encodeFrames(logId, frames.slice(0, frames.length >> 1));
      logger.error(
        { error, topic: frames[0]!.topic },
        'uplink: a message cannot be encoded and is set aside',
      );
      const batch = quarantineBatch(
        logId,
        frames,
        `the gateway cannot encode it: ${(error as Error).message}`,
      );
      return { batch, bytes: encodeBatch(batch) };
    }
  }

  async function readFrames(log: LogInfo, { from, to }: Range) {
    try {
      const frames = await buffer.read(log.logId, from, {
        toSequence: to,
        messagesMax: config.batchMessagesMax,
        bytesMax: limits.batchPayloadBytesMax,
      });
      // A batch is one unbroken run; what lies behind a hole goes with the next one.
      const end = frames.findIndex((frame, index) => frame.sequence !== frames[0]!.sequence + index);
      return end < 0 ? frames : frames.slice(0, end);
    } catch (error) {
      trouble(`the buffer cannot be read: ${(error as Error).message}`);
      return [];
    }
  }

  function publish(logId: LogId, range: Range, bytes: Buffer): void {
    const change = (apply: (plan: SendPlan) => SendPlan) => {
      const plan = plans.get(logId);
      if (plan) plans.set(logId, apply(plan));
    };
    const created = streamCreated!;
    change(plan => take(plan, range, created));
    inFlight++;
    const to = ingestSubject(partitionOf(site, partitions), LANE, site, gateway);
    Promise.race([jetstream(nats!).publish(to, bytes, { timeout: PUBLISH_TIMEOUT_MS }), linkDown.promise])
      .then(
        ack => {
          change(plan => acknowledged(plan, range, ack.seq));
          retryMs = RETRY_MS.first;
        },
        async (error: Error) => {
          trouble(`the stream does not take batches: ${error.message}`);
          const waitMs = jittered(retryMs);
          retryMs = Math.min(retryMs * 2, RETRY_MS.max);
          // The slot stays taken meanwhile, so a stream that refuses is asked ever more rarely.
          await pause(waitMs);
          change(plan => failed(plan, range));
        },
      )
      .finally(() => {
        inFlight--;
        alarm.ring();
      });
  }

  return {
    get connected() {
      return connected && streamCreated !== null;
    },
    async close(deadlineMs) {
      phase = 'draining';
      alarm.ring();
      const giveUp = setTimeout(() => {
        phase = 'closed';
        alarm.ring();
      }, deadlineMs);
      await running;
      clearTimeout(giveUp);
      phase = 'closed';
      clearInterval(helloTimer);
      forgetDurable();
      await connecting;
      await nats?.close();
    },
  };
}

const lostBatch = (logId: LogId, { from, to }: Range): LostBatch => ({
  settlement: 'lost',
  logId,
  firstSequence: from,
  count: to - from,
  reason: 'the gateway cannot read it any more: damaged on its disk',
});

const jittered = (ms: number) => ms * (0.5 + Math.random());
const pause = (ms: number) => new Promise<void>(resolve => setTimeout(resolve, ms));

/** Wakes one waiter; a ring while nobody waits is kept. */
function newAlarm(): { ring(): void; rung(timeoutMs: number): Promise<void> } {
  let pending = false;
  let wake: (() => void) | null = null;
  return {
    ring() {
      pending = true;
      wake?.();
    },
    async rung(timeoutMs) {
      if (!pending) {
        await new Promise<void>(resolve => {
          const timer = setTimeout(resolve, timeoutMs);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
      wake = null;
      pending = false;
    },
  };
}

function newLinkDown(): PromiseWithResolvers<never> {
  const linkDown = Promise.withResolvers<never>();
  linkDown.promise.catch(() => {});
  return linkDown;
}
