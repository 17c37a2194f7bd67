/**
 * What the gateway's heartbeat says (`protocol/heartbeat.ts`): how far its word is complete, and since when it hears its
 * devices. Pure but for its memory; the uplink sends it.
 *
 * Completeness goes by marks: at a time T everything that has arrived lies below certain sequences. Once the stream has all
 * below them in the live lane, or history has settled it, the word is complete until T, and the next mark is set. So an
 * outage holds it where it began, and after a restart, or with another stream, it is 0 until all that was left has arrived.
 */
import type { Heartbeat } from '../protocol/heartbeat.ts';
import type { LogId } from '../protocol/ids.ts';
import { RangeSet } from '../protocol/range-set.ts';
import type { LogInfo } from './log/disk-buffer.ts';
import type { SendPlan } from './send-plan.ts';

export interface HeartbeatView {
  /** By the gateway's clock, milliseconds since 1970, and by one that never jumps. */
  readonly nowMs: number;
  readonly monotonicMs: number;
  /** Oldest first, the current one last. */
  readonly logs: readonly LogInfo[];
  /** Messages that arrived and are not on disk yet. */
  readonly messagesPending: number;
  readonly planOf: (log: LogInfo) => SendPlan | undefined;
  /** Identity of the stream. */
  readonly streamCreated: string;
}

/** What the gateway hears just now. */
export interface Hearing {
  /** Whether messages of devices reach it. */
  readonly hears: boolean;
  readonly coversSite: boolean;
}

export interface HeartbeatMaker {
  /** Tells what is heard now; to be called at least every second. */
  hearing(hearing: Hearing, nowMs: number, monotonicMs: number): void;
  next(view: HeartbeatView): Heartbeat;
}

interface Mark {
  readonly at: number;
  readonly logId: LogId;
  /** One past the newest message of the current log. */
  readonly end: number;
}

/** A clock that was set moves by more than this against the one that never jumps. */
const CLOCK_SET_MS = 2000;

export function newHeartbeats(): HeartbeatMaker {
  let completeUntil = 0;
  let mark: Mark | null = null;
  /** Of which stream `completeUntil` tells. */
  let stream: string | null = null;
  let heard: { readonly since: number; readonly coversSite: boolean } | null = null;
  let offsetMs: number | null = null;

  /** Times by the clock before say nothing about times by this one. */
  function noticeClock(nowMs: number, monotonicMs: number): void {
    const offset = nowMs - monotonicMs;
    if (offsetMs !== null && Math.abs(offset - offsetMs) > CLOCK_SET_MS) {
      if (heard) heard = { ...heard, since: nowMs };
      completeUntil = 0;
      mark = null;
    }
    offsetMs = offset;
  }

  return {
    hearing({ hears, coversSite }, nowMs, monotonicMs) {
      noticeClock(nowMs, monotonicMs);
      if (!hears) heard = null;
      else if (!heard) heard = { since: nowMs, coversSite };
      else if (heard.coversSite !== coversSite) heard = { ...heard, coversSite };
    },
    next(view) {
      const { nowMs, logs, streamCreated } = view;
      noticeClock(nowMs, view.monotonicMs);
      // What only the stream before had is still to come.
      if (streamCreated !== stream) {
        completeUntil = 0;
        mark = null;
        stream = streamCreated;
      }
      const current = logs.at(-1)!;
      const setMark = (): Mark => ({
        at: nowMs,
        logId: current.logId,
        end: current.nextSequence + view.messagesPending,
      });
      mark ??= setMark();
      if (isComplete(mark, view)) {
        completeUntil = mark.at;
        const following = setMark();
        // With nothing under way the word is complete until now.
        if (isComplete(following, view)) completeUntil = nowMs;
        mark = following;
      }
      return {
        settlement: 'heartbeat',
        logId: current.logId,
        at: nowMs,
        completeUntil: Math.min(completeUntil, nowMs),
        hearingSince: heard ? Math.min(heard.since, nowMs) : null,
        coversSite: heard?.coversSite ?? false,
        streamCreated,
      };
    },
  };
}

function isComplete(mark: Mark, { logs, planOf, streamCreated }: HeartbeatView): boolean {
  // The current one first: it is the one that is behind most often.
  return logs.toReversed().every(log => {
    const end = log.logId === mark.logId ? mark.end : log.nextSequence;
    if (end > log.nextSequence) return false;
    const from = log.firstSequence;
    if (from >= end) return !log.lost.intersects(0, end);
    const plan = planOf(log);
    const inStream = (plan?.sent ?? []).filter(
      sent => sent.lane === 'live' && sent.sequence !== null && sent.created === streamCreated,
    );
    // What a copy lacks is not its to bring.
    const settled = (plan?.settled ?? RangeSet.empty).union(log.missing);
    return settled.union(RangeSet.from(inStream)).covers(from, end);
  });
}
