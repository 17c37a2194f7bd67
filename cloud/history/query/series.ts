/**
 * Readings of one metric of one device: in the order of their times, or the newest of them.
 *
 * What is read ascending is read as it is asked for. The newest are looked for backwards, in windows of which
 * each is longer than the one before.
 */
import type { Pool } from 'pg';
import { withinDays } from './days.ts';
import { DAY_US, type Range } from './micros.ts';
import { readPieces } from './pieces.ts';
import { inOneOrder, type Slice } from './runs.ts';

export interface Series {
  /** Its number in history. */
  readonly device: number;
  readonly metric: string;
}

export interface SeriesRequest extends Series {
  readonly range: Range;
  /** Beginnings of the days that may have readings, ascending. */
  readonly days: readonly number[];
  readonly ahead?: boolean;
  readonly withoutMinutes?: boolean;
}

/** Ascending; never more than a piece at a time. */
export async function* readSeries(
  pool: Pick<Pool, 'query'>,
  request: SeriesRequest,
): AsyncGenerator<Slice[]> {
  const { device, metric, range, days, ahead = false, withoutMinutes = false } = request;
  for await (const piece of readPieces(pool, {
    ...{ device, range, days, ahead, withoutMinutes },
    metrics: [metric],
    withBare: false,
  })) {
    const columns = piece.runs.flatMap(run => run.columns);
    const slices = [...inOneOrder(columns, piece.range)];
    if (slices.length > 0) yield slices;
  }
}

export const lengthOf = (slices: readonly Slice[]): number =>
  slices.reduce((sum, { from, to }) => sum + to - from, 0);

/** Expected of devices; where they send more, or less, windows are read for nothing, or one by one. */
const USUAL_INTERVAL_US = 250_000;
const FIRST_WINDOW_MIN_US = 60_000_000;
const WINDOW_GROWTH = 4;

/** @returns ascending; `more` when there are others before them */
export async function readNewest(
  pool: Pick<Pool, 'query'>,
  request: SeriesRequest,
  count: number,
): Promise<{ slices: Slice[]; more: boolean }> {
  const { days } = request;
  const range = withinDays(request.range, days);
  if (!range) return { slices: [], more: false };
  let found: Slice[] = [];
  let width = Math.min(Math.max(count * USUAL_INTERVAL_US, FIRST_WINDOW_MIN_US), DAY_US);
  let to = range.to;
  while (to > range.from && lengthOf(found) <= count) {
    const window = { from: Math.max(range.from, to - width), to };
    let ofWindow: Slice[] = [];
    for await (const slices of readSeries(pool, { ...request, range: window })) {
      ofWindow.push(...slices);
      // A window with far more than expected: what is older is of no use (F).
      ofWindow = newestOf(ofWindow, count + 1);
    }
    found = [...ofWindow, ...found];
    to = earlierEnd(days, window.from);
    width *= WINDOW_GROWTH;
  }
  return { slices: newestOf(found, count), more: lengthOf(found) > count };
}

function newestOf(slices: readonly Slice[], count: number): Slice[] {
  const kept: Slice[] = [];
  let left = count;
  for (const slice of slices.toReversed()) {
    if (left <= 0) break;
    const from = Math.max(slice.from, slice.to - left);
    kept.push({ ...slice, from });
    left -= slice.to - from;
  }
  return kept.reverse();
}

/** Where the next window before `from` ends: days without tables are passed over. */
function earlierEnd(days: readonly number[], from: number): number {
  const day = days.findLast(begin => begin < from);
  return day === undefined ? Number.NEGATIVE_INFINITY : Math.min(from, day + DAY_US);
}
