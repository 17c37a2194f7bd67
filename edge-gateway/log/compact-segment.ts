/**
 * Compaction: the frames of a sealed segment become blocks, batches for the wire made ahead of time. They take a tenth
 * of the room, and are sent with no further work. Every batch is decoded again and compared before it counts, as the
 * frames will be gone (invariants A, I). What cannot be read is left out, and the hole says so.
 *
 * A block holds as many messages as a batch may: neighbours share their dictionaries and predict one another. Half as
 * many would take a sixth more bytes with 500 devices, on the disk and on the link, and would hardly lose less: where flash
 * fails, a page of 4 to 16 KiB goes, and that is a block in either case.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Batch } from '../../protocol/batch.ts';
import { decodeBatch } from '../../protocol/batch-codec.ts';
import { limits } from '../../protocol/limits.ts';
import type { Range } from '../../protocol/range-set.ts';
import { encodeFrames } from '../frames-batch.ts';
import type { Mapping } from '../mapping/route.ts';
import { type BlocksTarget, writeBlocks } from './blocks-writer.ts';
import type { FileOperations } from './files.ts';
import { decodeFrame, type Frame, saltOf } from './frame.ts';
import { newSegment, SEGMENT_HEADER_BYTES } from './segment.ts';
import { type Cursor, scanSegment } from './segment-scan.ts';

export const BLOCK_MESSAGES_MAX = limits.batchMessagesMax;

export interface CompactJob {
  readonly work: 'compact';
  /** The segment, sealed. */
  readonly path: string;
  readonly bytes: number;
  readonly target: BlocksTarget;
}

export interface Compacted {
  readonly bytes: number;
  /** Ranges that could not be read. */
  readonly lost: readonly Range[];
}

const isSame = (a: Batch, b: Batch): boolean => isDeepStrictEqual(comparable(a), comparable(b));

/** Payloads are bytes of either kind. */
const comparable = (batch: Batch) =>
  batch.settlement === 'raw'
    ? { ...batch, setAside: batch.setAside.map(one => ({ ...one, payload: Buffer.from(one.payload) })) }
    : batch;

/** What is wrong with one message is for the uplink to say, when it is sent: what is wrong here may pass. */
function refuse(topic: string, error: Error): never {
  throw new Error(`a message of ${topic} cannot be encoded: ${error.message}`);
}

/** Rejects as `writeBlocks` does, and with the system error when the segment gives no answer. */
export async function compactSegment(
  files: FileOperations,
  mapping: Mapping,
  job: CompactJob,
): Promise<Compacted> {
  const { path, target } = job;
  const { logId, firstSequence, nextSequence } = target;
  const segment = { ...newSegment(path, firstSequence), nextSequence, bytes: job.bytes, sealed: true };
  const lost: Range[] = [];
  let cursor: Cursor = { sequence: firstSequence, offset: SEGMENT_HEADER_BYTES, window: null };

  /** The next frames without a hole, as many as go into one block. */
  async function gather(): Promise<{ frames: Frame[]; ended: boolean }> {
    const frames: Frame[] = [];
    let payloadBytes = 0;
    const end = await scanSegment(segment, cursor, {
      files,
      salt: saltOf(logId),
      sequenceTo: nextSequence,
      // A device that gives no answer is no reason to call anything lost; reading will find out.
      deviceAnswers: () => Promise.resolve(false),
      visit(buffer, view, offset, sequence) {
        const last = frames.at(-1);
        if (last && (sequence !== last.sequence + 1 || frames.length === BLOCK_MESSAGES_MAX)) return false;
        const frame = decodeFrame(buffer, view, offset);
        if (last && payloadBytes + frame.payload.length > limits.batchPayloadBytesMax) return false;
        payloadBytes += frame.payload.length;
        frames.push(frame);
        return true;
      },
      lost: (from, to) => lost.push({ from, to }),
    });
    cursor = end;
    return { frames, ended: end.ended };
  }

  const { bytes } = await writeBlocks(files, target, path, async add => {
    for (let ended = false; !ended; ) {
      const gathered = await gather();
      ended = gathered.ended;
      let left: readonly Frame[] = gathered.frames;
      while (left.length > 0) {
        const encoded = encodeFrames(logId, left, mapping, refuse);
        const from = encoded.batch.firstSequence;
        const { count } = encoded.batch;
        const decoded = decodeBatch(encoded.bytes);
        if (decoded.outcome !== 'batch' || !isSame(decoded.batch, encoded.batch)) {
          throw new Error(`the batch from ${from} on does not decode to what it was made of`);
        }
        await add(encoded.bytes, { from, to: from + count });
        left = left.slice(count);
      }
    }
  });
  if (cursor.sequence < nextSequence) lost.push({ from: cursor.sequence, to: nextSequence });
  return { bytes, lost };
}
