/** Reads back what `cloud/history/copy-rows.ts` writes, as PostgreSQL does. Texts are skipped. Pure. */

export interface CopiedRow {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly sequence: number;
  readonly log: number;
  readonly device: number;
  readonly shape: number;
  readonly element: number;
  readonly numbers: readonly number[];
}

const HEADER_BYTES = 19;
const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1);
const ARRAY_HEADER_BYTES = 20;

/** @throws Error when it is not ten columns per row and an end */
export function readCopy(bytes: Buffer): CopiedRow[] {
  const rows: CopiedRow[] = [];
  let offset = HEADER_BYTES;
  for (;;) {
    const columns = bytes.readInt16BE(offset);
    offset += 2;
    if (columns === -1) return rows;
    if (columns !== 10) throw new Error(`a row of ${columns} columns`);
    const starts: number[] = [];
    const lengths: number[] = [];
    for (let i = 0; i < columns; i++) {
      const length = bytes.readInt32BE(offset);
      starts.push(offset + 4);
      lengths.push(length);
      offset += 4 + Math.max(0, length);
    }
    const int4 = (column: number) => bytes.readInt32BE(starts[column]!);
    const int8 = (column: number) => Number(bytes.readBigInt64BE(starts[column]!));
    const numbers: number[] = [];
    if (lengths[7]! > 0) {
      const end = starts[7]! + lengths[7]!;
      for (let at = starts[7]! + ARRAY_HEADER_BYTES; at < end; at += 12)
        numbers.push(bytes.readDoubleBE(at + 4));
    }
    rows.push({
      at: int8(0) / 1000 + POSTGRES_EPOCH_MS,
      sequence: int8(1),
      log: int4(2),
      device: int4(3),
      shape: int4(4),
      element: bytes.readInt16BE(starts[5]!),
      numbers,
    });
  }
}
