/**
 * What becomes of readings in buckets of time, pure. A bucket is whole or not there: it counts what is known
 * of all of its time, raw readings and summaries of what was thinned alike.
 */
import type { Minute } from '../chunks/minutes.ts';
import type { Range } from './micros.ts';
import { millisOf } from './micros.ts';
import type { Slice } from './runs.ts';

/**
 * `from` in milliseconds since 1970. Of several readings at one time the lowest counts as the first and the
 * highest as the last; both are null where all were thinned.
 */
export type Bucket = [
  from: number,
  count: number,
  min: number,
  max: number,
  mean: number,
  first: number | null,
  last: number | null,
];

export interface Fold {
  /** Numbers and booleans, the latter as 0 and 1; what lies outside is left out. */
  add(slice: Slice): void;
  /** Of an interval within one bucket. */
  addSummary(summary: {
    readonly at: number;
    readonly count: number;
    readonly min: number;
    readonly max: number;
    readonly mean: number;
  }): void;
  /** @param at its beginning; what does not lie within the buckets is left out */
  addMinute(at: number, minute: Minute): void;
  /** Those that have readings, ascending. */
  buckets(): Bucket[];
}

/** Beyond it, products with a count might be more than a double holds. */
export const LARGE = 1e280;
export const LARGE_UNIT = 1e100;

/**
 * @param sum of values below {@link LARGE}, or of means times their counts; `large` of the others, in {@link
 * LARGE_UNIT}
 */
export const meanOf = (sum: number, large: number, count: number): number =>
  sum / count + (large / count) * LARGE_UNIT;

/** @param range whole buckets @param width microseconds */
export function newFold(range: Range, width: number): Fold {
  const length = Math.round((range.to - range.from) / width);
  const of = (value: number) => new Float64Array(length).fill(value);
  const [count, sum, large] = [of(0), of(0), of(0)];
  const [min, max] = [of(Number.POSITIVE_INFINITY), of(Number.NEGATIVE_INFINITY)];
  const [first, last] = [of(Number.NaN), of(Number.NaN)];
  const [firstAt, lastAt] = [of(Number.POSITIVE_INFINITY), of(Number.NEGATIVE_INFINITY)];

  function addTo(i: number, low: number, high: number, mean: number, times: number): void {
    count[i] = count[i]! + times;
    if (Math.abs(mean) < LARGE) sum[i] = sum[i]! + mean * times;
    else large[i] = large[i]! + (mean / LARGE_UNIT) * times;
    if (low < min[i]!) min[i] = low;
    if (high > max[i]!) max[i] = high;
  }

  function noteFirst(i: number, value: number, time: number): void {
    if (time > firstAt[i]! || (time === firstAt[i] && value >= first[i]!)) return;
    first[i] = value;
    firstAt[i] = time;
  }

  function noteLast(i: number, value: number, time: number): void {
    if (time < lastAt[i]! || (time === lastAt[i] && value <= last[i]!)) return;
    last[i] = value;
    lastAt[i] = time;
  }

  return {
    add({ column, from, to }) {
      if (column.type === 's') return;
      const { at } = column.run;
      const values = column.run.numbers(column.position);
      let i = -1;
      let end = Number.NEGATIVE_INFINITY;
      for (let place = from; place < to; place++) {
        const time = at[place]!;
        if (time < range.from || time >= range.to) continue;
        if (time >= end) {
          i = Math.floor((time - range.from) / width);
          end = range.from + (i + 1) * width;
        }
        const value = values[place]!;
        addTo(i, value, value, value, 1);
        noteFirst(i, value, time);
        noteLast(i, value, time);
      }
    },
    addMinute(begin, minute) {
      if (begin < range.from || begin >= range.to) return;
      const i = Math.floor((begin - range.from) / width);
      addTo(i, minute.minimum, minute.maximum, minute.sum / minute.count, minute.count);
      noteFirst(i, minute.first, minute.firstAt);
      noteLast(i, minute.last, minute.lastAt);
    },
    addSummary({ at, count: times, min: low, max: high, mean }) {
      const i = Math.floor((at - range.from) / width);
      if (i >= 0 && i < length) addTo(i, low, high, mean, times);
    },
    buckets() {
      const found: Bucket[] = [];
      for (let i = 0; i < length; i++) {
        if (count[i] === 0) continue;
        const hasRaw = lastAt[i] !== Number.NEGATIVE_INFINITY;
        found.push([
          millisOf(range.from + i * width),
          ...([count[i]!, min[i]!, max[i]!, meanOf(sum[i]!, large[i]!, count[i]!)] as const),
          ...([hasRaw ? first[i]! : null, hasRaw ? last[i]! : null] as const),
        ]);
      }
      return found;
    },
  };
}
