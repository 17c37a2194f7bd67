/**
 * The minutes of one metric of a device within an hour, as columns, pure: what the table `minutes` has in a row.
 *
 *   minute of the hour │ count │ sum │ minimum │ maximum │ first │ its time │ last │ its time        (`columns.ts`)
 *
 * Times are microseconds from the minute's beginning. Where all values are decimals their sum is one, and is kept as it would
 * be written down.
 */
import { type Aggregate, MINUTE_MICROSECONDS } from './aggregates.ts';
import { type Columns, decimalsOf, integersOf, newColumnPacker, numbersOf } from './columns.ts';

/** What all readings of a minute come to. */
export interface Minute extends Omit<Aggregate, 'mean'> {
  sum: number;
}

/** By the minute's beginning, microseconds since 2000. */
export type Minutes = Map<number, Minute>;

export interface PackedMinutes extends Columns {
  /** The length of the columns. */
  readonly minutes: number;
}

/** With fewer readings a minute, those themselves are read as quickly, and take less room. */
export const READINGS_PER_MINUTE_MIN = 10;

/** @param values all that were aggregated, in the runs that they came in */
export function minutesOf(
  aggregates: ReadonlyMap<number, Aggregate>,
  values: readonly ArrayLike<number>[],
): Minutes {
  let digits: number | null = 0;
  for (const run of values) digits = moreOf(digits, decimalsOf(run));
  return new Map(
    [...aggregates].map(([at, { mean, ...same }]) => [
      at,
      { ...same, sum: rounded(mean * same.count, digits) },
    ]),
  );
}

export function joinMinutes(to: Minutes, other: Minutes): void {
  for (const [at, minute] of other) {
    const known = to.get(at);
    if (known) join(known, minute);
    else to.set(at, minute);
  }
}

function join(to: Minute, { count, sum, minimum, maximum, first, firstAt, last, lastAt }: Minute): void {
  const digits = moreOf(decimalsOf([to.sum]), decimalsOf([sum]));
  to.count += count;
  to.sum = rounded(to.sum + sum, digits);
  to.minimum = Math.min(to.minimum, minimum);
  to.maximum = Math.max(to.maximum, maximum);
  if (firstAt < to.firstAt || (firstAt === to.firstAt && first < to.first)) {
    to.first = first;
    to.firstAt = firstAt;
  }
  if (lastAt > to.lastAt || (lastAt === to.lastAt && last > to.last)) {
    to.last = last;
    to.lastAt = lastAt;
  }
}

/** @returns null when a sum is more than a double holds: then the hour has no row */
export function packMinutes(minutes: Minutes, hour: number): PackedMinutes | null {
  const ordered = [...minutes].sort(([a], [b]) => a - b);
  const column = (of: (minute: Minute, at: number) => number) =>
    ordered.map(([at, minute]) => of(minute, at));
  const sums = column(({ sum }) => sum);
  if (!sums.every(Number.isFinite)) return null;
  const columns = newColumnPacker();
  columns.integers(column((_, at) => (at - hour) / MINUTE_MICROSECONDS));
  columns.integers(column(({ count }) => count));
  columns.numbers(sums);
  columns.numbers(column(({ minimum }) => minimum));
  columns.numbers(column(({ maximum }) => maximum));
  columns.numbers(column(({ first }) => first));
  columns.integers(column(({ firstAt }, at) => firstAt - at));
  columns.numbers(column(({ last }) => last));
  columns.integers(column(({ lastAt }, at) => lastAt - at));
  return { minutes: ordered.length, ...columns.packed() };
}

export function unpackMinutes(packed: PackedMinutes, hour: number): Minutes {
  const { minutes: length } = packed;
  const integers = (index: number) => integersOf(packed, index, length);
  const numbers = (index: number) => numbersOf(packed, index, length);
  const [minute, count, sum] = [integers(0), integers(1), numbers(2)];
  const [minimum, maximum] = [numbers(3), numbers(4)];
  const [first, firstAt, last, lastAt] = [numbers(5), integers(6), numbers(7), integers(8)];
  return new Map(
    Array.from(minute, (place, i) => {
      const at = hour + place * MINUTE_MICROSECONDS;
      return [
        at,
        {
          ...{ count: count[i]!, sum: sum[i]!, minimum: minimum[i]!, maximum: maximum[i]! },
          ...{ first: first[i]!, firstAt: at + firstAt[i]!, last: last[i]!, lastAt: at + lastAt[i]! },
        },
      ];
    }),
  );
}

const moreOf = (a: number | null, b: number | null): number | null =>
  a === null || b === null ? null : Math.max(a, b);

/** @param digits null: there are others than decimals among what it is the sum of */
const rounded = (sum: number, digits: number | null): number => {
  if (digits === null) return sum;
  const whole = sum * 10 ** digits;
  return Math.abs(whole) < Number.MAX_SAFE_INTEGER ? Math.round(whole) / 10 ** digits : sum;
};
