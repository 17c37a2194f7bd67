/**
 * Reads any log: frames from memory where they are recent, else from segment files; blocks as they stand. Reading on from
 * where a read ended costs nothing extra; starting anywhere else scans at most from the nearest known mark of that file.
 */

import { blockBatchAt, blockLengthAt, blockNextSequenceAt } from './block.ts';
import type { StoredRun } from './buffer-api.ts';
import type { FileOperations } from './files.ts';
import { codeOf } from './files.ts';
import { decodeFrame, type Frame } from './frame.ts';
import { type LogState, noteLost } from './log-state.ts';
import type { ReadLimits, RecentMemory } from './recent-memory.ts';
import { BLOCKS_HEADER_BYTES, type BlockSegment, type FrameSegment, type Segment } from './segment.ts';
import { type Cursor, scanSegment } from './segment-scan.ts';

/** Ends of reads that are remembered, each with at most one window of a file. */
const CURSORS_MAX = 4;

export interface LogReaderOptions {
  readonly files: FileOperations;
  /** Recent frames of the current log. */
  readonly memory: RecentMemory;
  readonly deviceAnswers: () => Promise<boolean>;
  readonly logger: { error(details: object, message: string): void };
}

/** Asked before anything of a file is read. @returns whether it may be */
export type Claim = (log: LogState, segment: Segment) => Promise<boolean>;

/** Rejects with the system error when the disk gives no answer for now. */
export type ReadLog = (
  log: LogState,
  fromSequence: number,
  limits: ReadLimits,
  claim: Claim,
) => Promise<StoredRun>;

/** `full`: the limits are reached, or the disk gives no more for now. `gone`: the file was given back or replaced. */
type PartRead = 'full' | 'more' | 'gone';

interface Gathered {
  readonly frames: Frame[];
  /** Of payload. */
  bytes: number;
}

export function createLogReader(o: LogReaderOptions): ReadLog {
  /** By path and sequence, the least recently used first. */
  const cursors = new Map<string, Cursor>();

  function takeCursor(segment: Segment, sequence: number): Cursor {
    const key = `${segment.path} ${sequence}`;
    const cursor = cursors.get(key);
    cursors.delete(key);
    if (cursor) return cursor;
    if (segment.form === 'blocks') {
      return { sequence: segment.firstSequence, offset: BLOCKS_HEADER_BYTES, window: null };
    }
    let mark = segment.marks[0]!;
    for (const next of segment.marks) {
      if (next.sequence > sequence) break;
      mark = next;
    }
    return { ...mark, window: null };
  }

  function keepCursor(segment: Segment, cursor: Cursor): void {
    cursors.set(`${segment.path} ${cursor.sequence}`, cursor);
    if (cursors.size > CURSORS_MAX) cursors.delete(cursors.keys().next().value!);
  }

  function declareLost(log: LogState, segment: Segment, from: number, to: number): void {
    const text = noteLost(log, from, to);
    if (text) o.logger.error({ logId: log.logId, segment: segment.path, from, to }, text);
  }

  const scanOptions = (log: LogState, segment: Segment) => ({
    files: o.files,
    salt: log.salt,
    sequenceTo: segment.nextSequence,
    deviceAnswers: o.deviceAnswers,
    lost: (from: number, to: number) => declareLost(log, segment, from, to),
  });

  /** What a failed read means. @throws the error when the disk gives no answer for now */
  async function afterError(
    log: LogState,
    segment: Segment,
    seen: number,
    error: unknown,
  ): Promise<PartRead> {
    if (!log.segments.includes(segment)) return 'gone';
    if (codeOf(error) !== 'ENOENT' || !(await o.deviceAnswers())) throw error;
    if (!log.segments.includes(segment)) return 'gone';
    declareLost(log, segment, seen, segment.nextSequence);
    return 'more';
  }

  /** Adds frames of one segment. */
  async function readFrames(
    log: LogState,
    segment: FrameSegment,
    fromSequence: number,
    limits: ReadLimits,
    gathered: Gathered,
  ): Promise<PartRead> {
    const { frames } = gathered;
    const sequenceTo = segment.nextSequence;
    const start = takeCursor(segment, fromSequence);
    let seen = start.sequence;
    try {
      const end = await scanSegment(segment, start, {
        ...scanOptions(log, segment),
        visit(buffer, view, offset, sequence) {
          seen = sequence;
          if (sequence < fromSequence) return true;
          if (sequence >= limits.toSequence || frames.length >= limits.messagesMax) return false;
          const frame = decodeFrame(buffer, view, offset);
          if (frames.length > 0 && gathered.bytes + frame.payload.length > limits.bytesMax) return false;
          gathered.bytes += frame.payload.length;
          frames.push(frame);
          return true;
        },
      });
      if (!end.ended) {
        keepCursor(segment, end);
        return 'full';
      }
      if (end.sequence < sequenceTo) declareLost(log, segment, end.sequence, sequenceTo);
      else if (!segment.sealed) keepCursor(segment, end);
      return 'more';
    } catch (error) {
      // Frames read before the disk fell silent are good.
      return afterError(log, segment, seen, error).catch(silence => {
        if (frames.length > 0) return 'full';
        throw silence;
      });
    }
  }

  /** The block with `fromSequence` in it, else the first behind it that begins before `toSequence`. */
  async function readBlock(
    log: LogState,
    segment: BlockSegment,
    fromSequence: number,
    toSequence: number,
  ): Promise<Extract<StoredRun, { form: 'block' }> | PartRead> {
    const start = takeCursor(segment, fromSequence);
    let seen = start.sequence;
    let found: { batch: Buffer; to: number; bytes: number } | null = null;
    try {
      const end = await scanSegment(segment, start, {
        ...scanOptions(log, segment),
        visit(buffer, view, offset, sequence) {
          seen = sequence;
          const to = blockNextSequenceAt(view, offset);
          if (to <= fromSequence) return true;
          if (sequence < toSequence)
            found = { batch: blockBatchAt(buffer, view, offset), to, bytes: blockLengthAt(view, offset) };
          return false;
        },
      });
      if (end.ended) {
        declareLost(log, segment, end.sequence, segment.nextSequence);
        return 'more';
      }
      const block = found as { batch: Buffer; to: number; bytes: number } | null;
      if (!block) return 'full';
      keepCursor(segment, { sequence: block.to, offset: end.offset + block.bytes, window: end.window });
      return { form: 'block', range: { from: end.sequence, to: block.to }, batch: block.batch };
    } catch (error) {
      return afterError(log, segment, seen, error);
    }
  }

  return async (log, fromSequence, limits, claim) => {
    const gathered: Gathered = { frames: [], bytes: 0 };
    const { frames } = gathered;
    if (fromSequence >= limits.toSequence) return { form: 'frames', frames };
    const reached = () => (frames.length > 0 ? frames.at(-1)!.sequence + 1 : fromSequence);
    /** Files that hold nothing readable of what is wanted. */
    const done = new Set<Segment>();
    for (;;) {
      const next = reached();
      const segment = log.segments.find(
        one => one.nextSequence > next && one.firstSequence < limits.toSequence && !done.has(one),
      );
      if (!segment) return { form: 'frames', frames };
      // A block goes alone.
      if (segment.form === 'blocks' && frames.length > 0) return { form: 'frames', frames };
      if (!(await claim(log, segment))) return { form: 'frames', frames };
      if (log.current && next >= o.memory.firstSequence()) {
        const toSequence = Math.min(limits.toSequence, segment.nextSequence);
        o.memory.readOn(next, { ...limits, toSequence }, frames, gathered.bytes);
        gathered.bytes = frames.reduce((sum, frame) => sum + frame.payload.length, 0);
        if (reached() < toSequence) return { form: 'frames', frames };
        done.add(segment);
        continue;
      }
      const read =
        segment.form === 'frames'
          ? await readFrames(log, segment, next, limits, gathered)
          : await readBlock(log, segment, next, limits.toSequence);
      if (typeof read === 'object') return read;
      if (read === 'full') return { form: 'frames', frames };
      if (read === 'more') done.add(segment);
    }
  };
}
