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
  /** Unreadable and not settled. */
  lost: RangeSet;
  settled: RangeSet;
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
  settled: RangeSet.empty,
  sent: RangeSet.empty,
  synced: true,
  checkpointStale: false,
  ...o,
});

export const firstSequenceOf = (log: LogState): number => log.segments[0]?.firstSequence ?? log.nextSequence;

export const bytesOf = (log: LogState): number =>
  log.segments.reduce((sum, segment) => sum + segment.bytes, 0);

/** What is left of the log in summaries only, and not settled or lost. */
export const thinnedOf = (log: LogState): RangeSet =>
  RangeSet.from(
    log.segments
      .filter(segment => segment.form === 'blocks' && segment.level > 0)
      .map(segment => ({ from: segment.firstSequence, to: segment.nextSequence })),
  )
    .difference(log.settled)
    .difference(log.lost);

/** Takes note that [from, to) cannot be read; what is settled needs no declaring. @returns whether that is news */
export function noteLost(log: LogState, from: number, to: number): boolean {
  const lost = log.lost.union(RangeSet.of(from, to).difference(log.settled));
  if (lost.size === log.lost.size) return false;
  log.lost = lost;
  return true;
}

/** Takes note of which sealed segments are settled as a whole by now. */
export function noteSettledSegments(log: LogState, nowMs: number): void {
  for (const segment of log.segments) {
    if (!segment.sealed || !log.settled.covers(segment.firstSequence, segment.nextSequence)) continue;
    // A clock that went back must not keep a segment for longer than the rule says.
    segment.settledAtMs = Math.min(segment.settledAtMs ?? nowMs, nowMs);
  }
}

export function checkpointOf(log: LogState, endedAtBytes: number | null): Checkpoint {
  const settledAtMs: Record<string, number> = {};
  for (const segment of log.segments) {
    if (segment.settledAtMs !== null) settledAtMs[segment.firstSequence] = segment.settledAtMs;
  }
  const { generation, bootId, nextSequence, settled } = log;
  return { generation, bootId, nextSequence, endedAtBytes, settled, settledAtMs };
}
