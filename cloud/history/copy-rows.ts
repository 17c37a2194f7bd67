/**
 * Rows in PostgreSQL's binary COPY format, pure: the fastest way in.
 * Format: https://www.postgresql.org/docs/15/sql-copy.html#id-1.9.3.55.9.4 ; array and timestamptz layouts as in
 * `array_send` and `timestamptz_send`.
 */
import type { Value } from '../../protocol/batch.ts';

export const COPY_MESSAGES =
  'copy holdfast.message (at, sequence, log, device, shape, element, kind, numbers, texts, claimed_at) ' +
  'from stdin with (format binary)';

/** No gateway lets a later time through; what claims one is kept as this. */
export const LATEST_CLAIM_MS = Date.UTC(9999, 11, 31);

const SIGNATURE = Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1');
const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1);
const FLOAT8_OID = 701;
const TEXT_OID = 25;
const COLUMNS = 10;
/** All fixed parts of a row: field lengths and the columns that always have the same size. */
const FIXED_BYTES = 2 + COLUMNS * 4 + 8 + 8 + 4 * 3 + 2 * 2 + 8;
const ARRAY_HEADER_BYTES = 20;

export interface CopyRow {
  /** Milliseconds since 1970. */
  at: number;
  claimedAt: number | null;
  sequence: number;
  log: number;
  device: number;
  shape: number;
  element: number;
  kind: number;
  values: readonly Value[];
  /** Positions in `values` of the numbers and booleans. */
  numbers: readonly number[];
  /** Positions in `values` of the strings. */
  texts: readonly number[];
}

/** Gathers rows in one growing buffer. `finish()` gives the whole COPY stream and ends the life of the writer. */
export function copyBuffer(bytesExpected: number): {
  add(row: CopyRow): void;
  finish(): Buffer;
  rows(): number;
} {
  let buffer = Buffer.allocUnsafe(Math.max(1024, bytesExpected));
  let offset = SIGNATURE.copy(buffer);
  offset = buffer.writeUInt32BE(0, offset);
  offset = buffer.writeUInt32BE(0, offset);
  let rows = 0;

  function reserve(bytes: number): void {
    if (offset + bytes <= buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(buffer.length * 2, offset + bytes));
    buffer.copy(larger, 0, 0, offset);
    buffer = larger;
  }

  function int8(value: number): void {
    const high = Math.floor(value / 2 ** 32);
    offset = buffer.writeInt32BE(8, offset);
    offset = buffer.writeInt32BE(high, offset);
    offset = buffer.writeUInt32BE(value - high * 2 ** 32, offset);
  }
  function int4(value: number): void {
    offset = buffer.writeInt32BE(4, offset);
    offset = buffer.writeInt32BE(value, offset);
  }
  function int2(value: number): void {
    offset = buffer.writeInt32BE(2, offset);
    offset = buffer.writeInt16BE(value, offset);
  }
  function absent(): void {
    offset = buffer.writeInt32BE(-1, offset);
  }
  function arrayHeader(bytes: number, elementOid: number, length: number): void {
    offset = buffer.writeInt32BE(ARRAY_HEADER_BYTES + bytes, offset);
    offset = buffer.writeInt32BE(1, offset);
    offset = buffer.writeInt32BE(0, offset);
    offset = buffer.writeInt32BE(elementOid, offset);
    offset = buffer.writeInt32BE(length, offset);
    offset = buffer.writeInt32BE(1, offset);
  }

  return {
    rows: () => rows,
    add(row) {
      let textBytes = 0;
      for (const position of row.texts) textBytes += 4 + Buffer.byteLength(row.values[position] as string);
      reserve(FIXED_BYTES + 2 * ARRAY_HEADER_BYTES + 12 * row.numbers.length + textBytes);

      offset = buffer.writeInt16BE(COLUMNS, offset);
      int8(Math.round((row.at - POSTGRES_EPOCH_MS) * 1000));
      int8(row.sequence);
      int4(row.log);
      int4(row.device);
      int4(row.shape);
      int2(row.element);
      int2(row.kind);
      if (row.numbers.length === 0) absent();
      else {
        arrayHeader(12 * row.numbers.length, FLOAT8_OID, row.numbers.length);
        for (const position of row.numbers) {
          offset = buffer.writeInt32BE(8, offset);
          offset = buffer.writeDoubleBE(Number(row.values[position]), offset);
        }
      }
      if (row.texts.length === 0) absent();
      else {
        arrayHeader(textBytes, TEXT_OID, row.texts.length);
        for (const position of row.texts) {
          const text = row.values[position] as string;
          const written = buffer.write(text, offset + 4);
          buffer.writeInt32BE(written, offset);
          offset += 4 + written;
        }
      }
      if (row.claimedAt === null) absent();
      else int8(Math.round((row.claimedAt - POSTGRES_EPOCH_MS) * 1000));
      rows++;
    },
    finish() {
      reserve(2);
      offset = buffer.writeInt16BE(-1, offset);
      return buffer.subarray(0, offset);
    },
  };
}
