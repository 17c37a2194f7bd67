/**
 * A segment: a file `<first sequence>-<attempt>.segment` with a header and then frames, in the order of sequence
 * and without gaps. It is appended to by the process that made it, then sealed, and never changes again.
 *
 *   header, 128 bytes, little-endian:
 *     0  8   magic "HOLDFAST"          32  u32  generation of the log: how many opens of this buffer came before
 *     8  u32 crc32 of bytes 12..128    36  16   log id
 *    12  u16 format version            52  u8   length of the boot id, then the boot id, then zeros
 *    16  f64 made at, wall clock ms
 *    24  f64 first sequence
 *
 * Folder and file name already say what frames need to be read, so a damaged header costs no frame.
 */
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { LogId } from '../../protocol/ids.ts';

export const SEGMENT_HEADER_BYTES = 128;
export const BOOT_ID_BYTES_MAX = SEGMENT_HEADER_BYTES - 53;
/** 2: frames may carry the MQTT 5 properties of their message. */
const FORMAT_VERSION = 2;
const MAGIC = Buffer.from('HOLDFAST', 'latin1');
const NAME = /^(\d{16})-(\d{4})\.segment$/;

export interface Segment {
  readonly path: string;
  readonly firstSequence: number;
  /** One past its last durable sequence. */
  nextSequence: number;
  /** Length of the file as far as it may be read. */
  bytes: number;
  sealed: boolean;
  /** When all of it was first known to be settled, wall clock milliseconds; null while it is not. */
  settledAtMs: number | null;
  /** Known frame starts at rising distances of at least {@link MARK_DISTANCE_BYTES}; filled by reading. */
  readonly marks: { readonly sequence: number; readonly offset: number }[];
}

export const MARK_DISTANCE_BYTES = 64 * 1024;

export const newSegment = (path: string, firstSequence: number): Segment => ({
  path,
  firstSequence,
  nextSequence: firstSequence,
  bytes: SEGMENT_HEADER_BYTES,
  sealed: false,
  settledAtMs: null,
  marks: [{ sequence: firstSequence, offset: SEGMENT_HEADER_BYTES }],
});

/** @param attempt tells apart segments of the same first sequence, when the earlier ones failed before they held a durable frame */
export const segmentPath = (folder: string, firstSequence: number, attempt: number): string =>
  join(folder, `${String(firstSequence).padStart(16, '0')}-${String(attempt).padStart(4, '0')}.segment`);

/** @returns the first sequence in a segment's file name, or null when it is none. */
export function parseSegmentName(name: string): { firstSequence: number; attempt: number } | null {
  const match = NAME.exec(name);
  if (!match) return null;
  const firstSequence = Number(match[1]);
  return firstSequence >= 1 ? { firstSequence, attempt: Number(match[2]) } : null;
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
