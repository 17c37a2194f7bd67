/** From the disk buffer to an encoded batch: reads a run of frames, makes columns and bytes of it. */
import type { Logger } from 'pino';
import type { LostBatch, ReadingsBatch } from '../protocol/batch.ts';
import { encodeBatch } from '../protocol/batch-codec.ts';
import type { LogId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { Range } from '../protocol/range-set.ts';
import { buildBatch, quarantineBatch } from './batch-builder.ts';
import type { DiskBuffer, Frame } from './log/disk-buffer.ts';
import type { Mapping } from './mapping/route.ts';

export interface EncodedBatch {
  /** What it covers: the whole of what was asked for, or less. */
  readonly range: Range;
  readonly bytes: Buffer;
}

/**
 * @returns null when nothing of the range could be read: it was found damaged, and the log now lists it as lost
 * @throws the system error when the disk gives no answer for now
 */
export type ReadBatch = (logId: LogId, range: Range, messagesMax: number) => Promise<EncodedBatch | null>;

export function newBatchReader(options: { buffer: DiskBuffer; mapping: Mapping; logger: Logger }): ReadBatch {
  const { buffer, mapping, logger } = options;

  /** A frame that cannot be encoded is a mistake of ours, and still must not hold up all that come after it (H). */
  function encodeFrames(logId: LogId, frames: readonly Frame[]): EncodedBatch {
    try {
      return encoded(buildBatch(logId, frames, mapping));
    } catch (error) {
      if (frames.length > 1) return encodeFrames(logId, frames.slice(0, frames.length >> 1));
      const [frame] = frames;
      logger.error(
        { err: error, topic: frame!.topic },
        'uplink: a message cannot be encoded and is set aside',
      );
      return encoded(
        quarantineBatch(logId, frames, `the gateway cannot encode it: ${(error as Error).message}`),
      );
    }
  }

  return async (logId, { from, to }, messagesMax) => {
    const bytesMax = limits.batchPayloadBytesMax;
    const frames = await buffer.read(logId, from, { toSequence: to, messagesMax, bytesMax });
    if (frames.length === 0) return null;
    // A batch is one unbroken run; what lies behind a hole goes with the next one.
    const end = frames.findIndex((frame, index) => frame.sequence !== frames[0]!.sequence + index);
    return encodeFrames(logId, end < 0 ? frames : frames.slice(0, end));
  };
}

function encoded(batch: ReadingsBatch): EncodedBatch {
  const range = { from: batch.firstSequence, to: batch.firstSequence + batch.count };
  return { range, bytes: encodeBatch(batch) };
}

/** Tells the cloud what will never come (I). */
export function lostBatch(logId: LogId, range: Range): EncodedBatch {
  const batch: LostBatch = {
    settlement: 'lost',
    logId,
    firstSequence: range.from,
    count: range.to - range.from,
    reason: 'the gateway cannot read it any more: damaged on its disk',
  };
  return { range, bytes: encodeBatch(batch) };
}
