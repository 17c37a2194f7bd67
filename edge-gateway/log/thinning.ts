/**
 * Thinning: a run of batches of one log becomes one thinned batch, pure.
 *
 *   kept whole   events and status · messages set aside · a row in which a text differs from the same device's text of that
 *                metric before it · the row that holds the newest reading of a device and metric, by corrected time, then
 *                order · a row with a number that is not finite, or of a time that no interval has
 *   summarised   all other numbers and booleans (as 0 and 1), per device, metric and interval of the corrected time
 *   dropped      texts of rows that are not kept: the row that was kept before says the same
 *
 * Batches that are thinned already, to the same or a finer interval, go in like any other: their summaries are merged,
 * the rows they kept are looked at again.
 *
 * Invariants: B (each number is in a kept row or in one summary, never both), C (live is the newest reading per device
 * and metric, and each of those is in a kept row: a twin folded from the kept rows is the twin folded from all), F (what
 * comes out is within the limits of one batch, or nothing does; memory is a small multiple of what goes in).
 */
import type { ReadingsBatch, Summaries, ThinnedBatch } from '../../protocol/batch.ts';
import { kinds, thinningIntervalsMs } from '../../protocol/batch.ts';
import { encodeBatchWithin } from '../../protocol/batch-codec.ts';
import { correctedAt } from '../../protocol/batch-rows.ts';
import { batchBounds } from '../../protocol/batch-rules.ts';
import { limits } from '../../protocol/limits.ts';
import { keptBatch } from './kept-rows.ts';
import { forEachRow, openRun, type Run, slotOf } from './thinning-run.ts';

/** What a run holds, messages set aside apart, which are always kept. */
export interface RunContent {
  readonly readings: number;
  readonly summaries: number;
}

export interface ThinningForecast {
  readonly before: RunContent;
  readonly after: RunContent;
}

/** In bytes of blocks, measured on the standard fleet: three to five for a summary, less than one for a reading. */
const READINGS_PER_SUMMARY = 4;

/**
 * @param batches consecutive runs of one log, at least one, in order
 * @param intervalMs one of `thinningIntervalsMs`, not finer than what any of the batches is thinned to
 * @returns the thinned batch of the whole run, free of faults (`batchFault`); null when it would not fit the limits of one
 *   batch: try again with fewer
 * @throws RangeError when the batches do not follow one another, or the interval is not one: a bug of the caller
 */
export function thin(
  batches: readonly (ReadingsBatch | ThinnedBatch)[],
  intervalMs: number,
): ThinnedBatch | null {
  const run = openRun(batches, intervalMs);
  const { logId, firstSequence, count } = run;
  if (count > batchBounds.lostMax) return null;
  const isKept = chooseKept(run);
  const kept = keptBatch(run, isKept);
  const cells = kept && summarise(run, isKept, intervalMs);
  const summaries = cells && summariesOf(run, cells);
  if (!kept || !summaries) return null;
  const thinned: ThinnedBatch = {
    settlement: 'thinned',
    logId,
    firstSequence,
    count,
    intervalMs,
    ...arrivalOf(run),
    summaries,
    kept,
  };
  const surelyFits = bytesAtMost(thinned) <= limits.batchWireBytesMax;
  return surelyFits || encodeBatchWithin(thinned) ? thinned : null;
}

/**
 * What thinning would bring, without making the batch; takes about as long as thinning does.
 * @returns null when the summaries would not fit one batch
 * @throws RangeError as `thin` does
 */
export function thinningForecast(
  batches: readonly (ReadingsBatch | ThinnedBatch)[],
  intervalMs: number,
): ThinningForecast | null {
  const run = openRun(batches, intervalMs);
  const isKept = chooseKept(run);
  const cells = summarise(run, isKept, intervalMs);
  if (!cells) return null;
  let summariesBefore = 0;
  let readingsBefore = 0;
  let readingsAfter = 0;
  for (const { thinned } of run.parts) summariesBefore += thinned?.summaries.length ?? 0;
  forEachRow(run, ({ part, row, columns }) => {
    readingsBefore += columns.length;
    if (isKept[part.firstRow + row] === 1) readingsAfter += columns.length;
  });
  return {
    before: { readings: readingsBefore, summaries: summariesBefore },
    after: { readings: readingsAfter, summaries: cells.slot.length },
  };
}

/**
 * Whether thinning would leave about half of the run's bytes or less: more is not worth the detail it costs. A run of events,
 * or of readings hardly closer than the interval, is not thinnable, nor is one that was thinned to this interval before,
 * nor one whose summaries do not fit one batch.
 */
export function isThinnable(batches: readonly (ReadingsBatch | ThinnedBatch)[], intervalMs: number): boolean {
  const forecast = thinningForecast(batches, intervalMs);
  const before = forecast ? weightOf(forecast.before) : 0;
  return forecast !== null && before > 0 && before >= 2 * weightOf(forecast.after);
}

const weightOf = ({ readings, summaries }: RunContent): number => readings + READINGS_PER_SUMMARY * summaries;

const isSummarisedKind = Uint8Array.from(kinds, kind =>
  kind === 'telemetry' || kind === 'location' ? 1 : 0,
);

const timeOf = ({ at, receivedAt }: ReadingsBatch['rows'], row: number): number =>
  correctedAt(at[row]!, receivedAt[row]!);

/** @returns 1 for every row that is kept whole */
function chooseKept(run: Run): Uint8Array {
  const isKept = new Uint8Array(run.rowCount);
  /** By slot; slots are visited first in the order of their numbers. */
  const newestAt: number[] = [];
  const newestRow: number[] = [];
  const textBefore = new Map<number, string>();
  forEachRow(run, ({ part, row, columns, slots, valueAt }) => {
    const { rows, metrics } = part.rows;
    const at = timeOf(rows, row);
    let keep = isSummarisedKind[rows.kind[row]!] === 0 || at < 0 || at >= batchBounds.summaryTimeMax;
    for (let i = 0; i < columns.length; i++) {
      const slot = slots[i]!;
      // Of two at the same time the later one counts, as in the order of twins (invariant C).
      if (slot === newestAt.length || at >= newestAt[slot]!) {
        newestAt[slot] = at;
        newestRow[slot] = part.firstRow + row;
      }
      const column = columns[i]!;
      const value = metrics[column]!.values[valueAt[column]!]!;
      if (typeof value === 'number') keep ||= !Number.isFinite(value);
      else if (textBefore.get(slot) !== value) {
        textBefore.set(slot, value);
        keep = true;
      }
    }
    if (keep) isKept[part.firstRow + row] = 1;
  });
  for (const row of newestRow) isKept[row] = 1;
  return isKept;
}

/** Summaries in the making, column by column, in the order they came up. */
interface Cells {
  readonly slot: number[];
  readonly from: number[];
  readonly minimum: number[];
  readonly maximum: number[];
  readonly mean: number[];
  readonly count: number[];
  /** By number of the interval and slot. */
  readonly byKey: Map<number, number>;
}

/** Intervals there are: with it the key of a cell is exact for more slots than memory holds. */
const INTERVALS_MAX = Math.ceil(batchBounds.summaryTimeMax / thinningIntervalsMs[0]);

/** @returns null when there are too many, or one counts further than it can */
function summarise(run: Run, isKept: Uint8Array, intervalMs: number): Cells | null {
  const cells: Cells = {
    slot: [],
    from: [],
    minimum: [],
    maximum: [],
    mean: [],
    count: [],
    byKey: new Map(),
  };
  forEachRow(run, ({ part, row, columns, slots, valueAt }) => {
    if (isKept[part.firstRow + row] === 1 || cells.slot.length > batchBounds.summariesMax) return;
    const { rows, metrics } = part.rows;
    const interval = Math.floor(timeOf(rows, row) / intervalMs);
    for (let i = 0; i < columns.length; i++) {
      const column = columns[i]!;
      const value = metrics[column]!.values[valueAt[column]!]!;
      if (typeof value === 'number') addTo(cells, cellOf(slots[i]!, interval), value, value, value, 1);
    }
  });
  for (const { thinned } of run.parts) {
    if (!thinned) continue;
    const { length, devices, metrics, device, metric, from, minimum, maximum, mean, count } =
      thinned.summaries;
    for (let i = 0; i < length && cells.slot.length <= batchBounds.summariesMax; i++) {
      const slot = slotOf(run, devices[device[i]!]!, metrics[metric[i]!]!);
      const cell = cellOf(slot, Math.floor(from[i]! / intervalMs));
      addTo(cells, cell, minimum[i]!, maximum[i]!, mean[i]!, count[i]!);
    }
  }

  function cellOf(slot: number, interval: number): number {
    const key = slot * INTERVALS_MAX + interval;
    let cell = cells.byKey.get(key);
    if (cell === undefined) {
      cell = cells.slot.push(slot) - 1;
      cells.from.push(interval * intervalMs);
      cells.minimum.push(Number.POSITIVE_INFINITY);
      cells.maximum.push(Number.NEGATIVE_INFINITY);
      cells.mean.push(0);
      cells.count.push(0);
      cells.byKey.set(key, cell);
    }
    return cell;
  }

  const countable = cells.count.every(count => count < 2 ** 32);
  return countable && cells.slot.length <= batchBounds.summariesMax ? cells : null;
}

function addTo(
  cells: Cells,
  cell: number,
  minimum: number,
  maximum: number,
  mean: number,
  count: number,
): void {
  // Plus 0, so that a zero has no sign: which of two was less would depend on their order.
  if (minimum < cells.minimum[cell]!) cells.minimum[cell] = minimum + 0;
  if (maximum > cells.maximum[cell]!) cells.maximum[cell] = maximum + 0;
  const before = cells.count[cell]!;
  const total = before + count;
  // Weighted, not a sum divided at the end: the largest float64 values have a mean too.
  cells.mean[cell] = cells.mean[cell]! * (before / total) + mean * (count / total);
  cells.count[cell] = total;
}

/** In the order that `batch-rules.ts` asks for, the metrics as they first came, the devices by name. */
function summariesOf(run: Run, cells: Cells): Summaries {
  const slots = cells.slot.map(slot => run.slots[slot]!);
  const metrics = [...new Set(slots.map(({ metric }) => metric))];
  const devices = [...new Set(slots.map(({ device }) => device))].sort();
  const metricIndex = new Map(metrics.map((name, index) => [name, index]));
  const deviceIndex = new Map(devices.map((name, index) => [name, index]));
  const metric = Uint32Array.from(slots, slot => metricIndex.get(slot.metric)!);
  const device = Uint32Array.from(slots, slot => deviceIndex.get(slot.device)!);
  const { from, minimum, maximum, mean, count } = cells;
  const order = Uint32Array.from(slots.keys()).sort(
    (a, b) => metric[a]! - metric[b]! || device[a]! - device[b]! || from[a]! - from[b]!,
  );
  const floats = (column: readonly number[]): Float64Array => Float64Array.from(order, cell => column[cell]!);
  return {
    length: order.length,
    devices,
    metrics,
    device: Uint32Array.from(order, cell => device[cell]!),
    metric: Uint32Array.from(order, cell => metric[cell]!),
    from: floats(from),
    minimum: floats(minimum),
    maximum: floats(maximum),
    mean: Float64Array.from(order, cell => roundedMean(mean[cell]!, minimum[cell]!, maximum[cell]!)),
    count: Uint32Array.from(order, cell => count[cell]!),
  };
}

/** To nine significant digits, but never outside the extremes. */
function roundedMean(mean: number, minimum: number, maximum: number): number {
  if (minimum === maximum) return minimum;
  return Math.min(maximum, Math.max(minimum, Number(mean.toPrecision(9))));
}

/** When the run arrived; 1970 for a run in which nothing says so. */
function arrivalOf(run: Run): Pick<ThinnedBatch, 'receivedFrom' | 'receivedTo'> {
  let receivedFrom = Number.POSITIVE_INFINITY;
  let receivedTo = Number.NEGATIVE_INFINITY;
  const see = (from: number, to: number): void => {
    receivedFrom = Math.min(receivedFrom, from);
    receivedTo = Math.max(receivedTo, to);
  };
  for (const { rows, thinned } of run.parts) {
    for (const at of rows.rows.receivedAt) see(at, at);
    for (const { receivedAt } of rows.setAside) see(receivedAt, receivedAt);
    if (thinned && thinned.receivedTo !== 0) see(thinned.receivedFrom, thinned.receivedTo);
  }
  return receivedFrom <= receivedTo ? { receivedFrom, receivedTo } : { receivedFrom: 0, receivedTo: 0 };
}

/** More than the batch can take on the wire, so that most need not be encoded to know that they fit. */
function bytesAtMost({ summaries, kept }: ThinnedBatch): number {
  const TEXT = 3;
  let bytes = 1024 + 48 * summaries.length + 80 * kept.rows.length + 512 * kept.setAside.length;
  const texts = [...summaries.devices, ...summaries.metrics, ...kept.devices];
  for (const { name, type, values } of kept.metrics) {
    bytes += 64 + name.length * TEXT + values.length * 10;
    if (type === 'string') for (const value of values) bytes += value.length * TEXT;
  }
  for (const shape of kept.shapes) bytes += 16 + shape.length * 8;
  for (const text of texts) bytes += 64 + text.length * TEXT;
  for (const { topic, reason, payload } of kept.setAside) {
    bytes += payload.length + (topic.length + reason.length) * TEXT;
  }
  return bytes;
}
