/**
 * A segment: the file of a run of sequences, in one of two forms.
 *
 *   `<first sequence>-<attempt>.segment`      frames, as they came. Appended to by the process that made it, then sealed
 *   `<first sequence>-<attempt>.blocks`       batches for the wire, made of a sealed segment (compact-segment.ts)
 *   `<first sequence>-<attempt>.thinned-<n>`  the same, thinned to the n-th of `thinningIntervalsMs` (thin-blocks.ts)
 *
 * Of one sequence and attempt the last in this list counts; it has its name only when it is whole and on the disk. It may
 * reach over the runs of later files: then it was made of them as well. Sealed files never change again.
 *
 *   header, 128 bytes, little-endian:
 *     0  8   magic "HOLDFAST"          32  u32  generation of the log: how many opens of this buffer came before
 *     8  u32 crc32 of bytes 12..128    36  16   log id
 *    12  u16 format version            52  u8   length of the boot id, then the boot id, then zeros
 *    16  f64 made at, wall clock ms
 *    24  f64 first sequence
 *
 *   and of blocks 16 bytes more:
 *   128  u32 crc32 of bytes 132..144, seeded with the log's salt
 *   132  u32 zero
 *   136  f64 one past the last sequence
 *
 * Folder and file name already say what records need to be read, so a damaged header costs none.
 */
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { thinningIntervalsMs } from '../../protocol/batch.ts';
import type { LogId } from '../../protocol/ids.ts';

export const SEGMENT_HEADER_BYTES = 128;
export const BOOT_ID_BYTES_MAX = SEGMENT_HEADER_BYTES - 53;
export const BLOCKS_HEADER_BYTES = SEGMENT_HEADER_BYTES + 16;
/** 2: frames may carry the MQTT 5 properties of their message. */
const FORMAT_VERSION = 2;
const MAGIC = Buffer.from('HOLDFAST', 'latin1');
const NAME = /^(\d{16})-(\d{4})\.(?:segment|(blocks)|thinned-(\d))$/;

interface StoredRun {
  readonly path: string;
  readonly firstSequence: number;
  /** One past its last durable sequence. */
  nextSequence: number;
  /** Length of the file as far as it may be read. */
  bytes: number;
  /** When all of it was first known to be settled, wall clock milliseconds; null while it is not. */
  settledAtMs: number | null;
  /** Another form is being made of it: not given back meanwhile; while it is thinned, not read for sending either. */
  work: 'compacting' | 'thinning' | null;
}

export interface FrameSegment extends StoredRun {
  readonly form: 'frames';
  sealed: boolean;
  /** Known frame starts at rising distances of at least {@link MARK_DISTANCE_BYTES}; filled by reading. */
  readonly marks: { readonly sequence: number; readonly offset: number }[];
}

export interface BlockSegment extends StoredRun {
  readonly form: 'blocks';
  readonly sealed: true;
  /** 0: all is there; else it is thinned to this one of `thinningIntervalsMs`, counted from 1. */
  readonly level: number;
}

export type Segment = FrameSegment | BlockSegment;

export const MARK_DISTANCE_BYTES = 64 * 1024;

export const newSegment = (path: string, firstSequence: number): FrameSegment => ({
  form: 'frames',
  path,
  firstSequence,
  nextSequence: firstSequence,
  bytes: SEGMENT_HEADER_BYTES,
  sealed: false,
  settledAtMs: null,
  work: null,
  marks: [{ sequence: firstSequence, offset: SEGMENT_HEADER_BYTES }],
});

export const newBlockSegment = (
  o: Pick<BlockSegment, 'path' | 'firstSequence' | 'nextSequence' | 'bytes' | 'level'>,
): BlockSegment => ({
  form: 'blocks',
  sealed: true,
  settledAtMs: null,
  work: null,
  ...o,
});

/** @param attempt tells apart segments of the same first sequence, when the earlier ones failed before they held a durable frame */
export const segmentPath = (folder: string, firstSequence: number, attempt: number): string =>
  join(folder, `${String(firstSequence).padStart(16, '0')}-${String(attempt).padStart(4, '0')}.segment`);

/** The path of the blocks that are made of the segment at `path`. @param level 0 for all that is there */
export const blocksPath = (path: string, level: number): string =>
  path.replace(/\.[^.]+$/, level === 0 ? '.blocks' : `.thinned-${level}`);

export interface SegmentName {
  readonly firstSequence: number;
  readonly attempt: number;
  /** Of blocks; null of frames. */
  readonly level: number | null;
}

/** @returns what a segment's file name says, or null when it is none. */
export function parseSegmentName(name: string): SegmentName | null {
  const match = NAME.exec(name);
  if (!match) return null;
  const [, first, attempt, blocks, thinned] = match;
  const level = blocks ? 0 : thinned ? Number(thinned) : null;
  if (Number(first) < 1 || (level ?? 0) > thinningIntervalsMs.length || thinned === '0') return null;
  return { firstSequence: Number(first), attempt: Number(attempt), level };
}

export interface SegmentHeader {
  readonly version: number;
  readonly createdAtMs: number;
  readonly firstSequence: number;
  readonly generation: number;
  readonly logId: LogId;
  readonly bootId: string;
}

export function encodeHeader(header: Omit<SegmentHeader, 'version'>): Buffer {
  const buffer = Buffer.alloc(SEGMENT_HEADER_BYTES);
  MAGIC.copy(buffer);
  buffer.writeUInt16LE(FORMAT_VERSION, 12);
  buffer.writeDoubleLE(header.createdAtMs, 16);
  buffer.writeDoubleLE(header.firstSequence, 24);
  buffer.writeUInt32LE(header.generation, 32);
  buffer.write(header.logId, 36, 'hex');
  buffer.writeUInt8(buffer.write(header.bootId, 53, 'utf8'), 52);
  buffer.writeUInt32LE(crc32(buffer.subarray(12)), 8);
  return buffer;
}

/** @returns the header, or null when it is damaged. Its version may be one that this program does not know. */
export function decodeHeader(buffer: Buffer): SegmentHeader | null {
  if (buffer.length < SEGMENT_HEADER_BYTES || !buffer.subarray(0, 8).equals(MAGIC)) return null;
  if (crc32(buffer.subarray(12, SEGMENT_HEADER_BYTES)) !== buffer.readUInt32LE(8)) return null;
  return {
    version: buffer.readUInt16LE(12),
    createdAtMs: buffer.readDoubleLE(16),
    firstSequence: buffer.readDoubleLE(24),
    generation: buffer.readUInt32LE(32),
    logId: buffer.toString('hex', 36, 52) as LogId,
    bootId: buffer.toString('utf8', 53, 53 + buffer.readUInt8(52)),
  };
}

export const isKnownVersion = (header: SegmentHeader): boolean => header.version <= FORMAT_VERSION;

/** Of a file of blocks. @param header as {@link encodeHeader} made it */
export function encodeBlocksHeader(header: Buffer, nextSequence: number, salt: number): Buffer {
  const buffer = Buffer.alloc(BLOCKS_HEADER_BYTES);
  header.copy(buffer);
  buffer.writeDoubleLE(nextSequence, 136);
  buffer.writeUInt32LE(crc32(buffer.subarray(132), salt), 128);
  return buffer;
}

/** @returns one past the last sequence of a file of blocks, or null when its header is damaged. */
export function decodeBlocksEnd(buffer: Buffer, salt: number): number | null {
  if (buffer.length < BLOCKS_HEADER_BYTES) return null;
  const right = crc32(buffer.subarray(132, BLOCKS_HEADER_BYTES), salt) === buffer.readUInt32LE(128);
  return right ? buffer.readDoubleLE(136) : null;
}
