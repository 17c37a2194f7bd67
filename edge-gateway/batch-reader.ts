/**
 * From the disk buffer to an encoded batch: of frames one is made, a block is one already and goes as it stands.
 * Invariant H: a message that cannot be encoded holds up no other.
 */
import type { Logger } from 'pino';
import type { LostBatch } from '../protocol/batch.ts';
import { encodeBatch } from '../protocol/batch-codec.ts';
import type { LogId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { Range } from '../protocol/range-set.ts';
import { encodeFrames } from './frames-batch.ts';
import type { DiskBuffer } from './log/disk-buffer.ts';
import type { Mapping } from './mapping/route.ts';

export interface EncodedBatch {
  /** What it covers: the whole of what was asked for, or less; of a block all that is in it, also outside of that. */
  readonly range: Range;
  readonly bytes: Buffer;
}

/**
 * A batch from the first part of `range` that can be read. A block is given whole: what it repeats the ledger drops (B).
 * @returns null when nothing of the range can be had: it was found damaged, and the log now lists it as lost; or its
 *   file is being thinned at this moment
 * @throws the system error when the disk gives no answer for now
 */
export type ReadBatch = (logId: LogId, range: Range, messagesMax: number) => Promise<EncodedBatch | null>;

export function newBatchReader(options: {
  buffer: Pick<DiskBuffer, 'read'>;
  mapping: Mapping;
  logger: Logger;
}): ReadBatch {
  const { buffer, mapping, logger } = options;

  return async (logId, { from, to }, messagesMax) => {
    const bytesMax = limits.batchPayloadBytesMax;
    const run = await buffer.read(logId, from, { toSequence: to, messagesMax, bytesMax });
    if (run.form === 'block') return { range: run.range, bytes: run.batch };
    const { frames } = run;
    if (frames.length === 0) return null;
    // A batch is one unbroken run; what lies behind a hole goes with the next one.
    const end = frames.findIndex((frame, index) => frame.sequence !== frames[0]!.sequence + index);
    const consecutive = end < 0 ? frames : frames.slice(0, end);
    const { batch, bytes } = encodeFrames(logId, consecutive, mapping, (topic, error) =>
      logger.error({ err: error, topic }, 'uplink: a message cannot be encoded and is set aside'),
    );
    return { range: { from: batch.firstSequence, to: batch.firstSequence + batch.count }, bytes };
  };
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
