/**
 * The uplink: carries the disk buffer to the cloud's stream.
 *
 *   log ─▶ what waits (send-plan.ts), in which lane (lanes.ts) ─▶ batch (batch-reader.ts) ─▶ stream (cloud-link.ts)
 *
 * Two lanes: live goes first, a backlog follows behind it at the full spare rate, limited by the bytes that history has
 * not settled. Live batches grow with load: one leaves as soon as the flush interval since the last one is over, with all
 * that has gathered by then. On a metered link that interval stretches (link-budget.ts). Invariants: A (space is given back
 * only for what history settled), F (batches under way are bounded), R (what was in a lost stream is sent again).
 */
import type { Logger } from 'pino';
import { encodeHeartbeat } from '../protocol/batch-codec.ts';
import type { GatewayReport, StreamPosition } from '../protocol/handshake.ts';
import { HEARTBEAT_MS } from '../protocol/heartbeat.ts';
import type { LogId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { hasBug } from '../protocol/planted-bug.ts';
import { type Range, RangeSet } from '../protocol/range-set.ts';
import { type Lane, lanes } from '../protocol/subjects.ts';
import { type EncodedBatch, lostBatch, newBatchReader } from './batch-reader.ts';
import { openCloudLink } from './cloud-link.ts';
import type { GatewayConfig } from './config.ts';
import { type Hearing, newHeartbeats } from './heartbeat.ts';
import { liveEdge } from './lanes.ts';
import type { LinkAccount } from './link-account.ts';
import { type Allowance, BATCH_OVERHEAD_BYTES } from './link-budget.ts';
import type { DiskBuffer, LogInfo } from './log/disk-buffer.ts';
import type { Mapping } from './mapping/route.ts';
import {
  acknowledged,
  failed,
  newSendPlan,
  passed,
  resettle,
  type SendPlan,
  settle,
  take,
  unsettledOf,
  waiting,
} from './send-plan.ts';

export interface UplinkState {
  readonly connected: boolean;
  /** What is wrong with the link; null while all is well. */
  readonly reason: string | null;
  /** When its loop last took a turn, by `performance.now()`: at rest every second. */
  readonly turnAt: number;
  /** On disk and not in the stream. */
  readonly waitingMessages: number;
  /** What these are likely to cost on the wire; null before the first batch. */
  readonly waitingWireBytes: number | null;
  /** The oldest message that history has not settled. */
  readonly oldest: { readonly logId: LogId; readonly sequence: number } | null;
  /** Since start, by lane. */
  readonly sent: Readonly<Record<Lane, Readonly<Sent>>>;
}

interface Sent {
  batches: number;
  messages: number;
  /** Of the batches alone. */
  bytes: number;
}

export interface Uplink {
  state(): UplinkState;
  /** An event waits on disk, or soon will: it is gathered for less long. */
  eventWaits(): void;
  /** Sends what is on disk, at most for `deadlineMs`, and closes. */
  close(deadlineMs: number): Promise<void>;
}

/** Batches without PubAck. */
const IN_FLIGHT_MAX: Readonly<Record<Lane, number>> = { live: 16, backfill: 4 };
/**
 * Backlog that the stream has and history has not: the rest waits here, so that live is never refused or late because of
 * it. By messages too, because a batch of few bytes may hold thousands: these are some seconds of history's work.
 */
const BACKFILL_UNSETTLED_MAX = { bytes: 8 * 1024 * 1024, messages: 200_000 };
/** Logs that are asked about and sent at a time. */
const LOGS_AT_WORK_MAX = 500;
const RETRY_MS = { first: 100, max: 5000 };
/** The loop takes a turn at least this often. */
const TURN_MS_MAX = 1000;
/** Gathering for longer than this ends early for news: an event, a closing gateway. */
const PLAIN_PAUSE_MS_MAX = 50;
/** For the first batch of a slow link. */
const WIRE_BYTES_PER_MESSAGE = 30;

interface NextBatch extends Range {
  readonly lane: Lane;
  readonly log: LogInfo;
  readonly lost: boolean;
}

export function startUplink(options: {
  config: Pick<GatewayConfig, 'site' | 'gateway' | 'natsUrl' | 'batchMessagesMax' | 'flushIntervalMs'>;
  buffer: DiskBuffer;
  /** What becomes of a message. */
  mapping: Mapping;
  account: LinkAccount;
  /** What the intake hears now. */
  hearing: () => Hearing;
  report: () => GatewayReport;
  logger: Logger;
}): Uplink {
  const { config, buffer, mapping, account, logger } = options;
  const liveMessagesMax = account.metered ? limits.batchMessagesMax : config.batchMessagesMax;
  const readBatch = newBatchReader({ buffer, mapping, logger });
  /** What is settled is the cloud's to say: a history that was replaced or restored is filled from what is still here. */
  const plans = new Map<LogId, SendPlan>();
  const inFlight: Record<Lane, number> = { live: 0, backfill: 0 };
  /** First sequence of the current log that is live. */
  let edge = 1;
  let lastFlushAt = Number.NEGATIVE_INFINITY;
  let retryMs = RETRY_MS.first;
  let phase: 'open' | 'draining' | 'closed' = 'open';
  let turnAt = performance.now();
  let gathering = false;
  let eventWaits = false;
  const sent: Record<Lane, Sent> = {
    live: { batches: 0, messages: 0, bytes: 0 },
    backfill: { batches: 0, messages: 0, bytes: 0 },
  };
  const alarm = newAlarm();
  const heartbeats = newHeartbeats();
  const heartbeatMs = account.metered ? HEARTBEAT_MS.metered : HEARTBEAT_MS.unmetered;
  let heartbeatAt = Number.NEGATIVE_INFINITY;
  let heartbeatUnderWay = false;

  const forgetDurable = buffer.onDurable(() => {
    // What is gathered for is not news.
    if (!gathering || eventWaits) alarm.ring();
  });
  const link = openCloudLink({
    config,
    report: options.report,
    account,
    logger,
    logs: logsAtWork,
    onSettled,
    onCovered(covered) {
      for (const { logId } of logsAtWork()) buffer.cover(logId, covered[logId] ?? RangeSet.empty);
    },
    onOtherHistory() {
      plans.clear();
      // Its backups have nothing of these, whether this hello asked about them or not (A).
      for (const { logId } of buffer.logs()) buffer.cover(logId, RangeSet.empty);
    },
    onNews: alarm.ring,
  });
  const running = run();

  /** The oldest logs and the current one: a box that restarts all the time drains them in turn (F). */
  function logsAtWork(): LogInfo[] {
    const logs = buffer.logs();
    return logs.length <= LOGS_AT_WORK_MAX ? logs : [...logs.slice(0, LOGS_AT_WORK_MAX - 1), logs.at(-1)!];
  }

  function onSettled(
    settled: Readonly<Record<string, RangeSet>>,
    stream: StreamPosition,
    whole: boolean,
  ): void {
    for (const log of logsAtWork()) {
      const ranges = settled[log.logId];
      let plan = planOf(log);
      if (whole && !hasBug('trim-on-puback')) plan = resettle(plan, ranges ?? RangeSet.empty);
      else if (ranges) plan = settle(plan, ranges);
      if (ranges || whole) buffer.settle(log.logId, ranges ?? RangeSet.empty, whole);
      for (const lane of lanes)
        plan = passed(plan, { created: identity(stream.created), sequence: stream[lane] }, lane);
      plans.set(log.logId, plan);
    }
  }

  async function run(): Promise<void> {
    while (phase !== 'closed') {
      turnAt = performance.now();
      heartbeatWhenDue();
      const rateDueInMs = account.dueInMs();
      if (rateDueInMs > 0) {
        await pause(Math.min(rateDueInMs, TURN_MS_MAX));
        continue;
      }
      const allowed = account.now();
      const live = allowed.live && mayPublish('live') ? nextLive() : null;
      const dueInMs = live ? flushDueInMs(live, allowed) : Number.POSITIVE_INFINITY;
      if (live && dueInMs <= 0) {
        lastFlushAt = performance.now();
        eventWaits = false;
        await send(live);
        continue;
      }
      const backfill = allowed.backfill && mayPublish('backfill') ? nextBackfill() : null;
      if (backfill) await send(backfill);
      else if (live) await gather(dueInMs);
      else if (phase === 'draining' && inFlight.live + inFlight.backfill === 0) return;
      else await alarm.rung(TURN_MS_MAX);
    }
  }

  /** At once when the cloud can be reached again, then regularly: it may go when a batch may, and is counted like one. */
  function heartbeatWhenDue(): void {
    heartbeats.hearing(options.hearing(), Date.now(), performance.now());
    if (!link.welcome) heartbeatAt = Number.NEGATIVE_INFINITY;
    const due = performance.now() - heartbeatAt >= heartbeatMs;
    if (!due || heartbeatUnderWay || !link.welcome || !account.now().live || account.dueInMs() > 0) return;
    heartbeatAt = performance.now();
    heartbeatUnderWay = true;
    const bytes = encodeHeartbeat(
      heartbeats.next({
        nowMs: Date.now(),
        monotonicMs: performance.now(),
        logs: buffer.logs(),
        messagesPending: buffer.stats().messagesPending,
        planOf: log => plans.get(log.logId),
        streamCreated: link.welcome.streamCreated,
      }),
    );
    const answered = account.publishing(bytes.length, false);
    link
      .publish('live', bytes)
      .catch((error: Error) => link.trouble(`the stream does not take heartbeats: ${error.message}`))
      .finally(() => {
        heartbeatUnderWay = false;
        answered();
      });
  }

  async function gather(ms: number): Promise<void> {
    if (ms <= PLAIN_PAUSE_MS_MAX) return pause(ms);
    gathering = true;
    await alarm.rung(Math.min(ms, TURN_MS_MAX));
    gathering = false;
  }

  function mayPublish(lane: Lane): boolean {
    return link.welcome !== null && inFlight[lane] < IN_FLIGHT_MAX[lane];
  }

  function flushDueInMs({ from, to }: Range, { gatherMs, eventGatherMs }: Allowance): number {
    if (to - from >= messagesMaxOf('live') || phase === 'draining') return 0;
    return lastFlushAt + (eventWaits ? eventGatherMs : gatherMs) - performance.now();
  }

  function messagesMaxOf(lane: Lane): number {
    const messagesMax = lane === 'live' ? liveMessagesMax : limits.batchMessagesMax;
    const { messages, bytes } = sent[lane];
    return Math.min(
      messagesMax,
      account.messagesMax(messages > 0 ? bytes / messages : WIRE_BYTES_PER_MESSAGE),
    );
  }

  function nextLive(): NextBatch | null {
    const log = buffer.logs().at(-1)!;
    const firstWaiting = waiting(planOf(log), edge, log.nextSequence).ranges[0]?.from ?? log.nextSequence;
    edge = liveEdge(edge, firstWaiting, log.nextSequence);
    return nextOf(log, 'live', edge, log.nextSequence);
  }

  /** What waits in the older logs, oldest first, then in the current one behind the edge. */
  function nextBackfill(): NextBatch | null {
    forgetGoneLogs();
    const logs = logsAtWork();
    const unsettled = logs.map(log => unsettledOf(planOf(log), 'backfill'));
    const sum = (of: 'bytes' | 'messages') => unsettled.reduce((total, entry) => total + entry[of], 0);
    if (sum('bytes') >= BACKFILL_UNSETTLED_MAX.bytes) return null;
    if (sum('messages') >= BACKFILL_UNSETTLED_MAX.messages) return null;
    for (const log of logs) {
      const next = nextOf(log, 'backfill', 1, log.current ? edge : log.nextSequence);
      if (next) return next;
    }
    return null;
  }

  /** The first run of [from, to) that waits and is on disk, or is lost. */
  function nextOf(log: LogInfo, lane: Lane, from: number, to: number): NextBatch | null {
    const onDisk = Math.min(log.firstSequence, log.lost.ranges[0]?.from ?? Number.POSITIVE_INFINITY);
    const first = waiting(planOf(log), Math.max(from, onDisk), to).difference(log.missing).ranges[0];
    if (!first) return null;
    const lost = log.lost.contains(first.from);
    const end = lost
      ? log.lost.watermark(first.from)
      : (log.lost.ranges.find(range => range.from > first.from)?.from ?? first.to);
    return { lane, log, lost, from: first.from, to: Math.min(first.to, end) };
  }

  function planOf(log: LogInfo): SendPlan {
    let plan = plans.get(log.logId);
    if (!plan) {
      plan = newSendPlan();
      plans.set(log.logId, plan);
    }
    return plan;
  }

  function forgetGoneLogs(): void {
    const logs = buffer.logs();
    if (plans.size <= logs.length) return;
    const present = new Set(logs.map(log => log.logId));
    for (const logId of plans.keys()) if (!present.has(logId)) plans.delete(logId);
  }

  async function send({ lane, log, lost, from, to }: NextBatch): Promise<void> {
    if (lost) {
      publish(lane, log.logId, lostBatch(log.logId, { from, to }));
      return;
    }
    const batch = await readBatch(log.logId, { from, to }, messagesMaxOf(lane)).catch(error => {
      link.trouble(`the buffer cannot be read: ${(error as Error).message}`);
      return null;
    });
    if (batch && link.welcome) publish(lane, log.logId, batch);
    else await pause(RETRY_MS.first);
  }

  function publish(lane: Lane, logId: LogId, { range, bytes }: EncodedBatch): void {
    const change = (apply: (plan: SendPlan) => SendPlan) => {
      const plan = plans.get(logId);
      if (plan) plans.set(logId, apply(plan));
    };
    // The identity as it is known now: if the stream is replaced meanwhile, the batch counts as lost with the old one.
    const created = identity(link.welcome!.streamCreated);
    change(plan => take(plan, range, created, lane, bytes.length));
    inFlight[lane]++;
    sent[lane].batches++;
    sent[lane].messages += range.to - range.from;
    sent[lane].bytes += bytes.length;
    const answered = account.publishing(bytes.length, lane === 'live');
    link
      .publish(lane, bytes)
      .then(
        sequence => {
          change(plan => acknowledged(plan, range, sequence));
          if (hasBug('trim-on-puback')) change(plan => settle(plan, RangeSet.from([range])));
          retryMs = RETRY_MS.first;
        },
        async (error: Error) => {
          link.trouble(`the stream does not take batches: ${error.message}`);
          const waitMs = retryMs * (0.5 + Math.random());
          retryMs = Math.min(retryMs * 2, RETRY_MS.max);
          // The slot stays taken meanwhile, so a stream that refuses is asked ever more rarely.
          await pause(waitMs);
          change(plan => failed(plan, range));
        },
      )
      .finally(() => {
        inFlight[lane]--;
        answered();
        alarm.ring();
      });
  }

  function state(): UplinkState {
    let waitingMessages = 0;
    let oldest: UplinkState['oldest'] = null;
    for (const log of logsAtWork()) {
      const plan = planOf(log);
      waitingMessages += waiting(plan, log.firstSequence, log.nextSequence).difference(log.missing).size;
      if (oldest) continue;
      const unsettled = RangeSet.of(log.firstSequence, log.nextSequence)
        .difference(plan.settled.union(log.settled))
        .difference(log.lost)
        .difference(log.missing).ranges[0];
      if (unsettled) oldest = { logId: log.logId, sequence: unsettled.from };
    }
    // A backlog leaves in large batches: what those cost says more than the small ones of a live lane.
    const { messages, bytes } = sent.backfill.messages > 0 ? sent.backfill : sent.live;
    const overhead = Math.ceil(waitingMessages / limits.batchMessagesMax) * BATCH_OVERHEAD_BYTES;
    const { connected, welcome, reason } = link;
    return {
      connected: connected && welcome !== null,
      reason,
      turnAt,
      waitingMessages,
      waitingWireBytes: messages > 0 ? Math.round((waitingMessages * bytes) / messages) + overhead : null,
      oldest,
      sent,
    };
  }

  return {
    state,
    eventWaits() {
      eventWaits = true;
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
      forgetDurable();
      await link.close();
    },
  };
}

const identity = (created: string): string => (hasBug('ignore-stream-identity') ? '' : created);

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
