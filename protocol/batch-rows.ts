/** Walking a columnar batch row by row. */
import type { MetricColumn, ReadingsBatch, Value } from './batch.ts';
import { limits } from './limits.ts';

export interface RowView {
  /** Row index into the batch's columns. */
  readonly row: number;
  /** Metric names of the row's shape; shared by all rows of the shape. */
  readonly names: readonly string[];
  /** Their values, in the same order. A fresh array per row. */
  readonly values: Value[];
}

/**
 * The time a reading is ordered by: the device's own, unless it cannot be believed, because it lies too far in the future
 * or in the years of a clock that was never set.
 */
export const correctedAt = (at: number, receivedAt: number): number =>
  at > receivedAt + limits.futureToleranceMs || at < limits.earliestBelievedMs ? receivedAt : at;

/** Calls `visit` for every row in order. */
export function forEachRow(batch: ReadingsBatch, visit: (view: RowView) => void): void {
  const names = batch.shapes.map(shape => shape.map(column => batch.metrics[column]!.name));
  const cursors = new Uint32Array(batch.metrics.length);
  for (let row = 0; row < batch.rows.length; row++) {
    const shapeIndex = batch.rows.shape[row]!;
    const shape = batch.shapes[shapeIndex]!;
    const values = new Array<Value>(shape.length);
    for (let i = 0; i < shape.length; i++) {
      const column = shape[i]!;
      values[i] = valueAt(batch.metrics[column]!, cursors[column]!++);
    }
    visit({ row, names: names[shapeIndex]!, values });
  }
}

function valueAt(column: MetricColumn, index: number): Value {
  return column.type === 'boolean' ? column.values[index] === 1 : column.values[index]!;
}

/**
 * A gateway whose clock runs ahead is not believed: its times of arrival end at `nowMs` plus the tolerance, and
 * begin in 1970. Changes the batch in place, before anybody else has seen it.
 */
export function boundClock(batch: ReadingsBatch, nowMs: number): void {
  const latest = nowMs + limits.futureToleranceMs;
  const { receivedAt } = batch.rows;
  for (let row = 0; row < receivedAt.length; row++) {
    if (!(receivedAt[row]! >= 0 && receivedAt[row]! <= latest)) receivedAt[row] = nowMs;
  }
}
