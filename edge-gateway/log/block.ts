/**
 * The byte layout of one block: a batch as it goes on the wire, made ahead of time from frames. Pure.
 *
 *    0  u32  crc32 of all that follows, seeded with the log's salt
 *    4  u32  length of the whole block
 *    8  u48  first sequence
 *   14  u32  how many sequences it covers
 *   18  u16  zero
 *   20       the encoded batch (`protocol/batch-codec.ts`)
 *
 * All little-endian. The header repeats what the batch says, so that damage is found and stepped over without decoding
 * (invariant I), whatever version of the wire the batch is of.
 */
import { crc32 } from 'node:zlib';
import { limits } from '../../protocol/limits.ts';

export const BLOCK_HEADER_BYTES = 20;
export const BLOCK_BYTES_MAX = BLOCK_HEADER_BYTES + limits.batchWireBytesMax;
const SEQUENCE_HIGH = 2 ** 32;

/** @param batch at most `limits.batchWireBytesMax` */
export function encodeBlock(batch: Uint8Array, firstSequence: number, count: number, salt: number): Buffer {
  const block = Buffer.alloc(BLOCK_HEADER_BYTES + batch.length);
  block.writeUInt32LE(block.length, 4);
  block.writeUIntLE(firstSequence, 8, 6);
  block.writeUInt32LE(count, 14);
  block.set(batch, BLOCK_HEADER_BYTES);
  block.writeUInt32LE(crc32(block.subarray(4), salt), 0);
  return block;
}

export const blockLengthAt = (view: DataView, offset: number): number => view.getUint32(offset + 4, true);

export const blockSequenceAt = (view: DataView, offset: number): number =>
  view.getUint32(offset + 8, true) + view.getUint16(offset + 12, true) * SEQUENCE_HIGH;

export const blockNextSequenceAt = (view: DataView, offset: number): number =>
  blockSequenceAt(view, offset) + view.getUint32(offset + 14, true);

/** The batch in the block at `offset`, which {@link checkBlock} has found right: a view of `buffer`. */
export const blockBatchAt = (buffer: Buffer, view: DataView, offset: number): Buffer =>
  buffer.subarray(offset + BLOCK_HEADER_BYTES, offset + blockLengthAt(view, offset));

/** Looks for a block at `offset`; parameters and answers as of `checkFrame`. */
export function checkBlock(
  buffer: Buffer,
  view: DataView,
  offset: number,
  end: number,
  sequenceFrom: number,
  sequenceTo: number,
  salt: number,
): 'right' | 'short' | 'bad' {
  if (offset + BLOCK_HEADER_BYTES > end) return 'short';
  const length = blockLengthAt(view, offset);
  if (length <= BLOCK_HEADER_BYTES || length > BLOCK_BYTES_MAX) return 'bad';
  const sequence = blockSequenceAt(view, offset);
  const next = blockNextSequenceAt(view, offset);
  if (sequence < sequenceFrom || next <= sequence || next > sequenceTo) return 'bad';
  if (offset + length > end) return 'short';
  return crc32(buffer.subarray(offset + 4, offset + length), salt) === view.getUint32(offset, true)
    ? 'right'
    : 'bad';
}
