/**
 * The batches of one run as thinning sees them: one numbering of rows, and one of slots. A slot is a device and metric,
 * which is what twins hold a value for and summaries are about; a metric that comes in two types is one slot.
 */
import type { ReadingsBatch, ThinnedBatch } from '../../protocol/batch.ts';
import { thinningIntervalsMs } from '../../protocol/batch.ts';

export interface Part {
  /** The batch, or the rows that a thinned one has kept. */
  readonly rows: ReadingsBatch;
  readonly thinned: ThinnedBatch | null;
  /** Number of its first row, counted through the run. */
  readonly firstRow: number;
}

export interface Run {
  readonly logId: ReadingsBatch['logId'];
  readonly firstSequence: number;
  readonly count: number;
  readonly rowCount: number;
  readonly parts: readonly Part[];
  /** Grows as rows are visited. */
  readonly slots: { readonly device: string; readonly metric: string }[];
  /** By device, then metric. */
  readonly slotOf: Map<string, Map<string, number>>;
}

/** @throws RangeError as `thin` does */
export function openRun(batches: readonly (ReadingsBatch | ThinnedBatch)[], intervalMs: number): Run {
  const first = batches[0];
  if (!first) throw new RangeError('a run of no batches');
  if (!thinningIntervalsMs.some(known => known === intervalMs)) {
    throw new RangeError(`an interval of ${intervalMs} ms`);
  }
  const parts: Part[] = [];
  const { logId, firstSequence } = first;
  let next = firstSequence;
  let rowCount = 0;
  for (const batch of batches) {
    if (batch.logId !== logId || batch.firstSequence !== next) throw new RangeError('a gap in the run');
    next += batch.count;
    const thinned = batch.settlement === 'thinned' ? batch : null;
    if (thinned && thinned.intervalMs > intervalMs) {
      throw new RangeError('a batch that is thinned to a coarser interval');
    }
    const rows = batch.settlement === 'thinned' ? batch.kept : batch;
    parts.push({ rows, thinned, firstRow: rowCount });
    rowCount += rows.rows.length;
  }
  return { logId, firstSequence, count: next - firstSequence, rowCount, parts, slots: [], slotOf: new Map() };
}

/** Slots are numbered in the order in which they first occur. */
export function slotOf(run: Run, device: string, metric: string): number {
  let ofDevice = run.slotOf.get(device);
  if (!ofDevice) {
    ofDevice = new Map();
    run.slotOf.set(device, ofDevice);
  }
  let slot = ofDevice.get(metric);
  if (slot === undefined) {
    slot = run.slots.push({ device, metric }) - 1;
    ofDevice.set(metric, slot);
  }
  return slot;
}

export interface RowVisit {
  readonly part: Part;
  /** Within the part. */
  row: number;
  /** Indexes of the row's columns, and the slot of each. */
  columns: readonly number[];
  slots: Uint32Array;
  /** By column: the index of the row's value. */
  readonly valueAt: Uint32Array;
}

/** Calls `visit` for every row in order; the object it gets is good for the call only. */
export function forEachRow(run: Run, visit: (row: RowVisit) => void): void {
  for (const part of run.parts) {
    const { rows, shapes, devices, metrics } = part.rows;
    const slotsOf = new Map<number, Uint32Array>();
    const valueAt = new Uint32Array(metrics.length);
    const visited: RowVisit = { part, row: 0, columns: [], slots: new Uint32Array(0), valueAt };
    for (let row = 0; row < rows.length; row++) {
      const shape = rows.shape[row]!;
      const columns = shapes[shape]!;
      const key = rows.device[row]! * shapes.length + shape;
      let slots = slotsOf.get(key);
      if (!slots) {
        const device = devices[rows.device[row]!]!;
        slots = Uint32Array.from(columns, column => slotOf(run, device, metrics[column]!.name));
        slotsOf.set(key, slots);
      }
      visited.row = row;
      visited.columns = columns;
      visited.slots = slots;
      visit(visited);
      for (const column of columns) valueAt[column]!++;
    }
  }
}
