/**
 * Which files of a log may have been handed to the cloud, by the link or on a stick. Such a file is never thinned: it may
 * stand in the stream, and then the same readings would come once as they were and once summarised (invariant B). The mark is
 * on the disk before the first read for sending returns, so a restart knows of it.
 *
 *   <log folder>/sent.ranges     int8multirange of the runs of marked files, a line feed, its crc32, a line feed
 *
 * Not there: nothing was sent. Damaged, or in a copy of the folder: all may have been, by the original. A disk that refuses
 * the mark does not hold up the draining, which is what frees it: it is then remembered in memory, and written with the next
 * one.
 */
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { RangeSet } from '../../protocol/range-set.ts';
import { codeOf, type FileOperations, writeFully } from './files.ts';
import type { LogState } from './log-state.ts';
import type { Segment } from './segment.ts';

export const SENT_NAME = 'sent.ranges';
export const ALL_SENT = RangeSet.of(1, Number.MAX_SAFE_INTEGER);

export interface SentMarks {
  /**
   * Marks the file before it is read for sending.
   * @returns whether it may be read; false while it is being thinned
   */
  claim(log: LogState, segment: Segment): Promise<boolean>;
  /** Marks the files with any of [from, to) in them. @returns whether that is on the disk */
  mark(log: LogState, from: number, to: number): Promise<boolean>;
}

/** A file whose run grows is marked by its first sequence. */
export const isMarked = (log: LogState, segment: Segment): boolean =>
  log.sent.contains(segment.firstSequence) ||
  log.sent.intersects(segment.firstSequence, segment.nextSequence);

export function createSentMarks(o: {
  files: FileOperations;
  logger: { warn(details: object, message: string): void };
}): SentMarks {
  /** The last write of a log, under way or done: whether it succeeded. */
  const writing = new WeakMap<LogState, Promise<boolean>>();
  let troubled = false;

  async function write(log: LogState): Promise<boolean> {
    try {
      await writeSent(o.files, log.folder, log.sent);
      troubled = false;
      return true;
    } catch (error) {
      if (!troubled) o.logger.warn({ err: error, logId: log.logId }, 'what is sent cannot be marked on disk');
      troubled = true;
      return false;
    }
  }

  function mark(log: LogState, from: number, to: number): Promise<boolean> {
    log.sent = log.sent.add(from, to);
    // One after the other; each writes all that is marked by then.
    const written = (writing.get(log) ?? Promise.resolve()).then(() => write(log));
    writing.set(log, written);
    return written;
  }

  return {
    async claim(log, segment) {
      if (segment.work === 'thinning') return false;
      if (!log.sent.contains(segment.firstSequence)) {
        void mark(log, segment.firstSequence, segment.nextSequence);
      }
      await writing.get(log);
      return true;
    },
    mark,
  };
}

/** Rejects with the system error. */
export async function writeSent(files: FileOperations, folder: string, sent: RangeSet): Promise<void> {
  const path = join(folder, SENT_NAME);
  const unfinished = `${path}.new`;
  await files.remove(unfinished).catch(() => undefined);
  const text = sent.toString();
  const file = await files.create(unfinished);
  try {
    await writeFully(file, Buffer.from(`${text}\n${crc32(text)}\n`), 0);
    await file.datasync();
  } finally {
    await file.close();
  }
  await files.rename(unfinished, path);
  await files.syncFolder(folder);
}

/** Rejects with the system error when the folder gives no answer. */
export async function readSent(files: FileOperations, folder: string): Promise<RangeSet> {
  let text: string;
  try {
    text = (await files.readWhole(join(folder, SENT_NAME))).toString('latin1');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return RangeSet.empty;
    if (codeOf(error) === 'EIO') return ALL_SENT;
    throw error;
  }
  const [ranges = '', sum] = text.split('\n');
  return String(crc32(ranges)) === sum ? RangeSet.parse(ranges) : ALL_SENT;
}
