/**
 * Which rows a column has, and which value of the same device came before: what both ends work out from the rows, so that
 * it need not travel.
 */
import { columnLengths } from './batch-rules.ts';

/** For each row the row before of the same device, or -1. */
export function previousRows(device: Uint32Array, deviceCount: number): Int32Array {
  const last = new Int32Array(deviceCount).fill(-1);
  const previous = new Int32Array(device.length);
  for (let i = 0; i < device.length; i++) {
    previous[i] = last[device[i]!]!;
    last[device[i]!] = i;
  }
  return previous;
}

/**
 * The rows of each column, in order. They lie in one array, column after column, so that time and space grow with the
 * readings, not with rows times columns. A column that every row has is answered with null.
 */
export function rowsOfColumns(
  shapeOfRow: Uint32Array,
  shapes: readonly (readonly number[])[],
  columns: number,
): (column: number) => Uint32Array | null {
  if (shapes.length === 1) return () => null;
  const lengths = columnLengths(shapeOfRow, shapes, columns)!;
  const ends = new Uint32Array(columns);
  let total = 0;
  for (let column = 0; column < columns; column++) {
    ends[column] = total;
    total += lengths[column]!;
  }
  const rows = new Uint32Array(total);
  for (let i = 0; i < shapeOfRow.length; i++) {
    for (const column of shapes[shapeOfRow[i]!]!) rows[ends[column]!++] = i;
  }
  return column => rows.subarray(ends[column]! - lengths[column]!, ends[column]!);
}

/** The same as `previousRows`, counted in the values of a column that only some rows have. */
export function previousInColumns(
  device: Uint32Array,
  deviceCount: number,
  previous: Int32Array,
): (rows: Uint32Array | null) => Int32Array {
  const last = new Int32Array(deviceCount).fill(-1);
  // What earlier columns left in `last` lies below `base`, so it need not be cleared for each.
  let base = 0;
  return rows => {
    if (!rows) return previous;
    const before = new Int32Array(rows.length);
    for (let i = 0; i < rows.length; i++) {
      const at = device[rows[i]!]!;
      before[i] = last[at]! >= base ? last[at]! - base : -1;
      last[at] = base + i;
    }
    base += rows.length;
    return before;
  };
}
