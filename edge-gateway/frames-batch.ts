/** Frames into one encoded batch, whatever they hold: the last stage in which a message could hold up the others (H). */
import type { ReadingsBatch } from '../protocol/batch.ts';
import { encodeBatch } from '../protocol/batch-codec.ts';
import type { LogId } from '../protocol/ids.ts';
import { buildBatch, quarantineBatch } from './batch-builder.ts';
import type { Frame } from './log/frame.ts';
import type { Mapping } from './mapping/route.ts';

export interface EncodedFrames {
  /** Covers the longest run of the frames that fits; `count` says how many. */
  readonly batch: ReadingsBatch;
  readonly bytes: Buffer;
}

/**
 * @param frames consecutive frames of one log, at least one
 * @param onSetAside a frame that cannot be encoded is a mistake of ours, and still must not hold up all that come after it
 */
export function encodeFrames(
  logId: LogId,
  frames: readonly Frame[],
  mapping: Mapping,
  onSetAside: (topic: string, error: Error) => void,
): EncodedFrames {
  try {
    const batch = buildBatch(logId, frames, mapping);
    return { batch, bytes: encodeBatch(batch) };
  } catch (error) {
    if (frames.length > 1)
      return encodeFrames(logId, frames.slice(0, frames.length >> 1), mapping, onSetAside);
    onSetAside(frames[0]!.topic, error as Error);
    const reason = `the gateway cannot encode it: ${(error as Error).message}`;
    const batch = quarantineBatch(logId, frames, reason);
    return { batch, bytes: encodeBatch(batch) };
  }
}
