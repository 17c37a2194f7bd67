/**
 * What to send next of one log, and what to send again, pure.
 *
 *   waiting ──take──▶ in flight ──PubAck──▶ in the stream ──settled──▶ done
 *      ▲                  │ failed              │ stream is another one, or history has passed it unsettled
 *      └──────────────────┴─────────────────────┘
 *
 * "Not settled" alone is no reason to send again: the batch may be waiting behind a slow Postgres. Invariants: A (a
 * sequence is done only when history says so), B (sending twice is harmless, the ledger drops it).
 */
import { type Range, RangeSet } from '../protocol/range-set.ts';
import type { Lane } from '../protocol/subjects.ts';

/** Where history stands in one lane of the stream, as the cloud tells it. */
export interface Position {
  /** The stream's identity. */
  readonly created: string;
  /** Everything up to this sequence has been handled. */
  readonly sequence: number;
}

interface Sent extends Range {
  readonly lane: Lane;
  /** On the wire. */
  readonly bytes: number;
  /** Identity of the stream it was published to. */
  readonly created: string;
  /** Its place in that stream, once acknowledged; of several batches joined in one entry, the last one's. */
  readonly sequence: number | null;
  /** Of the first batch in the entry. */
  readonly firstSequence: number | null;
}

/** Places in the stream that one entry may span: what history passed unsettled waits for no more than these. */
const JOINED_SPAN_MAX = 64;

export interface SendPlan {
  readonly settled: RangeSet;
  readonly sent: readonly Sent[];
}

export const newSendPlan = (settled: RangeSet = RangeSet.empty): SendPlan => ({ settled, sent: [] });

/** What of [from, to) waits to be sent, in order. */
export function waiting(plan: SendPlan, from: number, to: number): RangeSet {
  return RangeSet.of(from, to).difference(plan.settled).difference(RangeSet.from(plan.sent));
}

/** A batch with [from, to) is on its way to the stream that is known as `created`. */
export function take(
  plan: SendPlan,
  range: Range,
  created: string,
  lane: Lane = 'live',
  bytes = 0,
): SendPlan {
  return {
    ...plan,
    sent: [...plan.sent, { ...range, lane, bytes, created, sequence: null, firstSequence: null }],
  };
}

/** What of a lane was sent and is not settled. */
export function unsettledOf(plan: SendPlan, lane: Lane): { bytes: number; messages: number } {
  let bytes = 0;
  let messages = 0;
  for (const sent of plan.sent) {
    if (sent.lane !== lane) continue;
    bytes += sent.bytes;
    messages += sent.to - sent.from;
  }
  return { bytes, messages };
}

/** The stream has it. */
export function acknowledged(plan: SendPlan, range: Range, sequence: number): SendPlan {
  const sent: Sent[] = [];
  for (const entry of plan.sent) {
    const now =
      entry.from === range.from && entry.to === range.to
        ? { ...entry, sequence, firstSequence: sequence }
        : entry;
    const last = sent.at(-1);
    // Neighbours that wait for the same thing become one entry, so that a long wait for history stays cheap.
    if (last && mayJoin(last, now)) sent[sent.length - 1] = joined(last, now);
    else sent.push(now);
  }
  return { ...plan, sent };
}

const mayJoin = (a: Sent, b: Sent): boolean =>
  a.sequence !== null &&
  b.sequence !== null &&
  a.lane === b.lane &&
  a.created === b.created &&
  a.to === b.from &&
  Math.max(a.sequence, b.sequence) - Math.min(a.firstSequence!, b.firstSequence!) < JOINED_SPAN_MAX;

const joined = (a: Sent, b: Sent): Sent => ({
  ...a,
  to: b.to,
  bytes: a.bytes + b.bytes,
  sequence: Math.max(a.sequence!, b.sequence!),
  firstSequence: Math.min(a.firstSequence!, b.firstSequence!),
});

/** It may or may not have arrived: it is sent again, the ledger drops the second one. */
export function failed(plan: SendPlan, range: Range): SendPlan {
  return { ...plan, sent: plan.sent.filter(sent => sent.from !== range.from || sent.to !== range.to) };
}

/** All that history has settled, as it says itself: what it has no more, after a restore, waits again. */
export function resettle(plan: SendPlan, settled: RangeSet): SendPlan {
  return settle({ ...plan, settled: RangeSet.empty }, settled);
}

/** History has settled `ranges`. */
export function settle(plan: SendPlan, ranges: RangeSet): SendPlan {
  const settled = plan.settled.union(ranges);
  const sent = plan.sent.flatMap(entry => {
    if (settled.covers(entry.from, entry.to)) return [];
    // In flight: its answer names the whole of it.
    if (entry.sequence === null || !settled.intersects(entry.from, entry.to)) return [entry];
    // What is left of it goes on waiting under its place in the stream.
    const left = RangeSet.of(entry.from, entry.to).difference(settled);
    return left.ranges.map(range => ({ ...entry, ...range }));
  });
  return { settled, sent };
}

/** Gives up waiting for what cannot come any more. Call after {@link settle} with the ranges told together with it. */
export function passed(plan: SendPlan, position: Position, lane: Lane = 'live'): SendPlan {
  return {
    ...plan,
    sent: plan.sent.filter(
      sent =>
        sent.lane !== lane ||
        sent.sequence === null ||
        (sent.created === position.created && sent.sequence > position.sequence),
    ),
  };
}
