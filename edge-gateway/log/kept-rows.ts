/** The rows that thinning keeps, as one batch of the whole run. */
import type { MetricColumn, ReadingsBatch, SetAside, Value } from '../../protocol/batch.ts';
import { batchBounds } from '../../protocol/batch-rules.ts';
import { limits } from '../../protocol/limits.ts';
import { forEachRow, type Part, type Run } from './thinning-run.ts';

interface GrowingColumn {
  readonly name: string;
  readonly type: MetricColumn['type'];
  readonly values: Value[];
}

/** What the numbers of a part's dictionaries are in the new batch; -1 when it does not have them yet. */
interface Renumbered {
  readonly part: Part;
  readonly device: Int32Array;
  readonly shape: Int32Array;
}

/**
 * @param isKept 1 for every row to keep, counted through the run
 * @returns null when they are over the bounds of one batch
 */
export function keptBatch(run: Run, isKept: Uint8Array): ReadingsBatch | null {
  const setAside = setAsideOf(run);
  const length = isKept.reduce((sum, kept) => sum + kept, 0);
  if (length > limits.batchRowsMax || setAside.length > batchBounds.setAsideMax) return null;

  const devices = new Map<string, number>();
  const metrics: GrowingColumn[] = [];
  const columnOf = new Map<string, number>();
  const shapes: number[][] = [];
  const shapeOf = new Map<string, number>();
  const rows = {
    length,
    sequenceOffset: new Uint32Array(length),
    element: new Uint16Array(length),
    kind: new Uint8Array(length),
    flags: new Uint8Array(length),
    device: new Uint32Array(length),
    shape: new Uint32Array(length),
    at: new Float64Array(length),
    receivedAt: new Float64Array(length),
  };
  let readings = 0;
  let to = 0;
  let numbers: Renumbered | null = null;
  forEachRow(run, ({ part, row, columns, valueAt }) => {
    if (isKept[part.firstRow + row] === 0) return;
    const { rows: from, devices: names, shapes: sets, metrics: values, firstSequence } = part.rows;
    if (numbers?.part !== part) {
      const unknown = (size: number): Int32Array => new Int32Array(size).fill(-1);
      numbers = { part, device: unknown(names.length), shape: unknown(sets.length) };
    }
    const device = from.device[row]!;
    const shape = from.shape[row]!;
    if (numbers.device[device] === -1) numbers.device[device] = indexOf(devices, names[device]!);
    if (numbers.shape[shape] === -1) numbers.shape[shape] = shapeLike(columns.map(column => values[column]!));
    rows.sequenceOffset[to] = firstSequence - run.firstSequence + from.sequenceOffset[row]!;
    rows.element[to] = from.element[row]!;
    rows.kind[to] = from.kind[row]!;
    rows.flags[to] = from.flags[row]!;
    rows.device[to] = numbers.device[device]!;
    rows.shape[to] = numbers.shape[shape]!;
    rows.at[to] = from.at[row]!;
    rows.receivedAt[to] = from.receivedAt[row]!;
    const members = shapes[rows.shape[to]!]!;
    for (let i = 0; i < columns.length; i++) {
      metrics[members[i]!]!.values.push(values[columns[i]!]!.values[valueAt[columns[i]!]!]!);
    }
    readings += columns.length;
    to++;
  });

  function shapeLike(columns: readonly MetricColumn[]): number {
    const members = columns.map(({ name, type }) => {
      const column = indexOf(columnOf, `${type}:${name}`);
      if (column === metrics.length) metrics.push({ name, type, values: [] });
      return column;
    });
    const shape = indexOf(shapeOf, members.join());
    if (shape === shapes.length) shapes.push(members);
    return shape;
  }

  if (readings > batchBounds.readingsMax || metrics.length > batchBounds.metricsMax) return null;
  return {
    settlement: 'raw',
    logId: run.logId,
    firstSequence: run.firstSequence,
    count: run.count,
    devices: [...devices.keys()],
    metrics: metrics.map(freeze),
    shapes,
    rows,
    setAside,
  };
}

const setAsideOf = (run: Run): SetAside[] =>
  run.parts.flatMap(({ rows: { firstSequence, setAside } }) =>
    setAside.map(message => ({
      ...message,
      sequenceOffset: firstSequence - run.firstSequence + message.sequenceOffset,
    })),
  );

function indexOf(dictionary: Map<string, number>, key: string): number {
  const known = dictionary.get(key);
  if (known !== undefined) return known;
  dictionary.set(key, dictionary.size);
  return dictionary.size - 1;
}

function freeze({ name, type, values }: GrowingColumn): MetricColumn {
  if (type === 'string') return { name, type, values: values as string[] };
  return type === 'number'
    ? { name, type, values: Float64Array.from(values as number[]) }
    : { name, type, values: Uint8Array.from(values as number[]) };
}
