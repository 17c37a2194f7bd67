/** Rows of a batch parted into columns of their own, in one pass, pure: dictionaries hold only what the rows use. */
import type { MetricColumn, ReadingsBatch, Rows } from '../../protocol/batch.ts';

export type SelectedRows = Pick<ReadingsBatch, 'devices' | 'metrics' | 'shapes' | 'rows'>;

export const selectRows = (batch: ReadingsBatch, isSelected: (row: number) => boolean): SelectedRows =>
  partRows(batch, row => (isSelected(row) ? 0 : null)).get(0) ?? newPart(batch).finish();

/** @param partOf the part a row goes to, or null to leave it out */
export function partRows(
  batch: ReadingsBatch,
  partOf: (row: number) => number | null,
): ReadonlyMap<number, SelectedRows> {
  const parts = new Map<number, Part>();
  const cursors = new Uint32Array(batch.metrics.length);
  for (let row = 0; row < batch.rows.length; row++) {
    const key = partOf(row);
    let part = key === null ? undefined : parts.get(key);
    if (key !== null && part === undefined) {
      part = newPart(batch);
      parts.set(key, part);
    }
    part?.addRow(row);
    for (const column of batch.shapes[batch.rows.shape[row]!]!) {
      const at = cursors[column]!++;
      part?.addValue(column, batch.metrics[column]!.values[at]!);
    }
  }
  return new Map([...parts].map(([key, part]) => [key, part.finish()]));
}

interface Part {
  addRow(row: number): void;
  addValue(column: number, value: number | string): void;
  finish(): SelectedRows;
}

function newPart(batch: ReadingsBatch): Part {
  // By name: names that the registry has made one may stand in the batch twice.
  const devices = numbering<string>();
  const columns = numbering<number>();
  const shapes = numbering<number>();
  const values: (number | string)[][] = [];
  const selected: number[] = [];
  const deviceOf = (row: number) => batch.devices[batch.rows.device[row]!]!;
  return {
    addRow(row) {
      selected.push(row);
      devices.of(deviceOf(row));
      shapes.of(batch.rows.shape[row]!);
    },
    addValue(column, value) {
      const into = columns.of(column);
      values[into] ??= [];
      values[into].push(value);
    },
    finish() {
      const { rows } = batch;
      const pick = (of: (row: number) => number): number[] => selected.map(of);
      return {
        devices: devices.all,
        metrics: columns.all.map((column, into) => columnLike(batch.metrics[column]!, values[into]!)),
        shapes: shapes.all.map(shape => batch.shapes[shape]!.map(columns.of)),
        rows: {
          length: selected.length,
          sequenceOffset: Uint32Array.from(pick(row => rows.sequenceOffset[row]!)),
          element: Uint16Array.from(pick(row => rows.element[row]!)),
          kind: Uint8Array.from(pick(row => rows.kind[row]!)),
          flags: Uint8Array.from(pick(row => rows.flags[row]!)),
          device: Uint32Array.from(pick(row => devices.of(deviceOf(row)))),
          shape: Uint32Array.from(pick(row => shapes.of(rows.shape[row]!))),
          at: Float64Array.from(pick(row => rows.at[row]!)),
          receivedAt: Float64Array.from(pick(row => rows.receivedAt[row]!)),
        } satisfies Rows,
      };
    },
  };
}

function columnLike({ name, type }: MetricColumn, values: readonly (number | string)[]): MetricColumn {
  if (type === 'string') return { name, type, values: values as string[] };
  return type === 'number'
    ? { name, type, values: Float64Array.from(values as number[]) }
    : { name, type, values: Uint8Array.from(values as number[]) };
}

/** Numbers in the order in which things are first asked for. */
function numbering<T>(): { readonly all: T[]; readonly of: (thing: T) => number } {
  const all: T[] = [];
  const known = new Map<T, number>();
  return {
    all,
    of(thing) {
      const number = known.get(thing);
      if (number !== undefined) return number;
      known.set(thing, all.length);
      return all.push(thing) - 1;
    },
  };
}
