/** What the buffer knows of one log, the current one or an older one. */
import type { LogId } from '../../protocol/ids.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import type { Checkpoint } from './checkpoint.ts';
import { saltOf } from './frame.ts';
import type { Segment } from './segment.ts';

export interface LogState {
  readonly logId: LogId;
  readonly folder: string;
  readonly salt: number;
  readonly generation: number;
  readonly bootId: string | null;
  readonly current: boolean;
  /** On disk, in order of sequence, none without frames; the last may be unsealed in the current log. */
  readonly segments: Segment[];
  /** One past the last durable sequence. */
  nextSequence: number;
  /** Unreadable and not settled; none in a copy. */
  lost: RangeSet;
  /** In a copy: unreadable here and not settled. The original may have it, so it is neither sent nor declared lost (A). */
  missing: RangeSet;
  /**
   * History had it and has it no more, and it was given back meanwhile: {@link noteGone}. Since when, by the wall clock, and
   * what of it; null when there is nothing of the kind.
   */
  gone: { readonly sinceMs: number; readonly ranges: RangeSet } | null;
  /** Whether the folder is a copy of one in which another gateway may go on: checkpoint.ts. */
  readonly isCopy: boolean;
  settled: RangeSet;
  /**
   * The part of it that a confirmed backup of history has, as the cloud said last. Not kept over a restart: another history
   * may answer then, and its backups have nothing of this (A).
   */
  covered: RangeSet;
  /** Runs of files that may have been handed to the cloud: sent-marks.ts. */
  sent: RangeSet;
  /** Whether all that can be read is known to be on the disk and not only in the page cache. */
  readonly synced: boolean;
  /** The checkpoint on disk says less than is known. */
  checkpointStale: boolean;
}

export const newLogState = (
  o: Pick<LogState, 'logId' | 'folder' | 'generation' | 'bootId' | 'current'> & Partial<LogState>,
): LogState => ({
  salt: saltOf(o.logId),
  segments: [],
  nextSequence: 1,
  lost: RangeSet.empty,
  missing: RangeSet.empty,
  gone: null,
  isCopy: false,
  settled: RangeSet.empty,
  covered: RangeSet.empty,
  sent: RangeSet.empty,
  synced: true,
  checkpointStale: false,
  ...o,
});

export const firstSequenceOf = (log: LogState): number => log.segments[0]?.firstSequence ?? log.nextSequence;

export const bytesOf = (log: LogState): number =>
  log.segments.reduce((sum, segment) => sum + segment.bytes, 0);

/**
 * The segments that are older than the newest `messages`, newest first. Those newest ones are wanted as frames at the next
 * start, to recognise re-deliveries, as far as they take no more than `bytesMax`.
 * @param logs oldest first
 */
export function* olderThanNewest(
  logs: readonly LogState[],
  { messages, bytesMax }: { readonly messages: number; readonly bytesMax: number },
): Generator<{ readonly log: LogState; readonly segment: Segment }> {
  let messagesBehind = 0;
  let bytesBehind = 0;
  for (const log of logs.toReversed()) {
    for (const segment of log.segments.toReversed()) {
      if (messagesBehind >= messages || bytesBehind >= bytesMax) yield { log, segment };
      messagesBehind += segment.nextSequence - segment.firstSequence;
      bytesBehind += segment.bytes;
    }
  }
}

/** What is left of the log in summaries only, and not settled or lost. */
export const thinnedOf = (log: LogState): RangeSet =>
  RangeSet.from(
    log.segments
      .filter(segment => segment.form === 'blocks' && segment.level > 0)
      .map(segment => ({ from: segment.firstSequence, to: segment.nextSequence })),
  )
    .difference(log.settled)
    .difference(log.lost)
    .difference(log.missing);

/**
 * Takes note that [from, to) cannot be read; what is settled needs no declaring.
 * @returns what to say of it; null when it is no news
 */
export function noteLost(log: LogState, from: number, to: number): string | null {
  const kind = log.isCopy ? 'missing' : 'lost';
  const ranges = log[kind].union(RangeSet.of(from, to).difference(log.settled));
  if (ranges.size === log[kind].size) return null;
  log[kind] = ranges;
  return log.isCopy
    ? 'messages cannot be read in this copy of a folder: left to the original'
    : 'messages cannot be read any more: lost';
}

/** Takes note of which sealed segments are settled as a whole by now: of a copy, all that can be read of them. */
export function noteSettledSegments(log: LogState, nowMs: number): void {
  const done = log.settled.union(log.missing);
  for (const segment of log.segments) {
    if (!segment.sealed || !done.covers(segment.firstSequence, segment.nextSequence)) continue;
    // A clock that went back must not keep a segment for longer than the rule says.
    segment.settledAtMs = Math.min(segment.settledAtMs ?? nowMs, nowMs);
  }
}

/** What was given back and history lacks is not declared lost for so long: the stream may still have it, and then it is not. */
export const GONE_PATIENCE_MS = 10 * 60_000;

/** Declares lost what was given back and history has lacked for long. @returns what to say of it; null when it is no news */
export function noteGone(log: LogState, nowMs: number): string | null {
  if (!log.gone) return null;
  const ranges = log.gone.ranges.difference(log.settled);
  if (!ranges.isEmpty && nowMs - log.gone.sinceMs < GONE_PATIENCE_MS) return null;
  log.gone = null;
  let news: string | null = null;
  for (const { from, to } of ranges.ranges) news = noteLost(log, from, to) ?? news;
  return news;
}

/**
 * Takes note that history, restored to an earlier state, has these no more: their segments are kept until it has them again,
 * and what has been given back already is gone.
 */
export function unsettle(log: LogState, ranges: RangeSet, nowMs: number): void {
  const onDisk = RangeSet.from(
    log.segments.map(segment => ({ from: segment.firstSequence, to: segment.nextSequence })),
  );
  const gone = ranges.difference(onDisk).union(log.gone?.ranges ?? RangeSet.empty);
  if (!gone.isEmpty) log.gone = { sinceMs: nowMs, ranges: gone };
  log.settled = log.settled.difference(ranges);
  log.checkpointStale = true;
  for (const segment of log.segments)
    if (ranges.intersects(segment.firstSequence, segment.nextSequence)) segment.settledAtMs = null;
}

export function checkpointOf(log: LogState, endedAtBytes: number | null): Checkpoint {
  const settledAtMs: Record<string, number> = {};
  for (const segment of log.segments) {
    if (segment.settledAtMs !== null) settledAtMs[segment.firstSequence] = segment.settledAtMs;
  }
  const { generation, bootId, nextSequence, settled, isCopy } = log;
  return { generation, bootId, nextSequence, endedAtBytes, settled, settledAtMs, isCopy };
}
