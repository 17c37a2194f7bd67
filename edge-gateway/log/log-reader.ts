/**
 * Reads frames of any log: from memory where they are recent, else from segment files. Reading on from where a read
 * ended costs nothing extra; starting anywhere else scans at most from the nearest known mark of that segment.
 */
import type { FileOperations } from './files.ts';
import { codeOf } from './files.ts';
import { decodeFrame, type Frame } from './frame.ts';
import { type LogState, noteLost } from './log-state.ts';
import type { ReadLimits, RecentMemory } from './recent-memory.ts';
import type { Segment } from './segment.ts';
import { type Cursor, scanSegment } from './segment-scan.ts';

/** Ends of reads that are remembered, each with at most one block of a file. */
const CURSORS_MAX = 8;

export interface LogReaderOptions {
  readonly files: FileOperations;
  /** Recent frames of the current log. */
  readonly memory: RecentMemory;
  readonly deviceAnswers: () => Promise<boolean>;
  readonly logger: { error(details: object, message: string): void };
}

/** Rejects with the system error when the disk gives no answer for now. */
export type ReadLog = (log: LogState, fromSequence: number, limits: ReadLimits) => Promise<Frame[]>;

export function createLogReader(o: LogReaderOptions): ReadLog {
  /** By path and sequence, the least recently used first. */
  const cursors = new Map<string, Cursor>();

  function takeCursor(segment: Segment, sequence: number): Cursor {
    const key = `${segment.path} ${sequence}`;
    const cursor = cursors.get(key);
    cursors.delete(key);
    if (cursor) return cursor;
    let mark = segment.marks[0]!;
    for (const next of segment.marks) {
      if (next.sequence > sequence) break;
      mark = next;
    }
    return { ...mark, block: null };
  }

  function keepCursor(segment: Segment, cursor: Cursor): void {
    cursors.set(`${segment.path} ${cursor.sequence}`, cursor);
    if (cursors.size > CURSORS_MAX) cursors.delete(cursors.keys().next().value!);
  }

  function declareLost(log: LogState, segment: Segment, from: number, to: number): void {
    if (!noteLost(log, from, to)) return;
    const details = { logId: log.logId, segment: segment.path, from, to };
    o.logger.error(details, 'frames cannot be read any more: lost');
  }

  /** Adds frames of one segment. `full`: the limits are reached, or the disk gives no more for now. */
  async function readSegment(
    log: LogState,
    segment: Segment,
    fromSequence: number,
    limits: ReadLimits,
    frames: Frame[],
    bytesBefore: number,
  ): Promise<{ bytes: number; full: boolean }> {
    let bytes = bytesBefore;
    const sequenceTo = segment.nextSequence;
    const start = takeCursor(segment, fromSequence);
    let seen = start.sequence;
    try {
      const end = await scanSegment(segment, start, {
        files: o.files,
        salt: log.salt,
        sequenceTo,
        deviceAnswers: o.deviceAnswers,
        lost: (from, to) => declareLost(log, segment, from, to),
        visit(buffer, view, offset, sequence) {
          seen = sequence;
          if (sequence < fromSequence) return true;
          if (sequence >= limits.toSequence || frames.length >= limits.messagesMax) return false;
          const frame = decodeFrame(buffer, view, offset);
          if (frames.length > 0 && bytes + frame.payload.length > limits.bytesMax) return false;
          bytes += frame.payload.length;
          frames.push(frame);
          return true;
        },
      });
      if (!end.ended) {
        keepCursor(segment, end);
        return { bytes, full: true };
      }
      if (end.sequence < sequenceTo) declareLost(log, segment, end.sequence, sequenceTo);
      else if (!segment.sealed) keepCursor(segment, end);
      return { bytes, full: false };
    } catch (error) {
      // Reclaimed meanwhile: history has it. Frames read before the disk fell silent are good.
      if (!log.segments.includes(segment)) return { bytes, full: false };
      if (codeOf(error) !== 'ENOENT' || !(await o.deviceAnswers())) {
        if (frames.length > 0) return { bytes, full: true };
        throw error;
      }
      declareLost(log, segment, seen, sequenceTo);
      return { bytes, full: false };
    }
  }

  return async (log, fromSequence, limits) => {
    const frames: Frame[] = [];
    let bytes = 0;
    for (const segment of [...log.segments]) {
      const next = frames.length > 0 ? frames.at(-1)!.sequence + 1 : fromSequence;
      if (log.current && next >= o.memory.firstSequence()) break;
      if (segment.nextSequence <= next || segment.firstSequence >= limits.toSequence) continue;
      const read = await readSegment(log, segment, next, limits, frames, bytes);
      if (read.full) return frames;
      bytes = read.bytes;
    }
    const next = frames.length > 0 ? frames.at(-1)!.sequence + 1 : fromSequence;
    if (log.current && next >= o.memory.firstSequence()) o.memory.readOn(next, limits, frames, bytes);
    return frames;
  };
}
