/** What becomes of numbers in an hour or a minute, pure; the same words as the table `aggregate` has. */
import type { Messages } from './chunk.ts';

export interface Aggregate {
  count: number;
  minimum: number;
  maximum: number;
  mean: number;
  first: number;
  /** Microseconds since 2000, as are all times here. */
  firstAt: number;
  last: number;
  lastAt: number;
}

export const HOUR_MICROSECONDS = 3_600_000_000;
export const MINUTE_MICROSECONDS = 60_000_000;

/**
 * @param width of an interval
 * @param into by the interval's beginning
 */
export function aggregateBy(
  width: number,
  at: Messages['at'],
  values: ArrayLike<number>,
  into: Map<number, Aggregate>,
): void {
  let end = Number.NEGATIVE_INFINITY;
  let begin = Number.POSITIVE_INFINITY;
  let known: Aggregate | undefined;
  for (let i = 0; i < at.length; i++) {
    const time = at[i]!;
    // Most lie in the interval of the one before.
    if (time >= end || time < begin) {
      begin = Math.floor(time / width) * width;
      end = begin + width;
      known = into.get(begin);
    }
    if (known) add(known, values[i]!, time);
    else {
      known = ofOne(values[i]!, time);
      into.set(begin, known);
    }
  }
}

const ofOne = (value: number, at: number): Aggregate => ({
  count: 1,
  minimum: value,
  maximum: value,
  mean: value,
  first: value,
  firstAt: at,
  last: value,
  lastAt: at,
});

function add(to: Aggregate, value: number, at: number): void {
  to.count++;
  to.minimum = Math.min(to.minimum, value);
  to.maximum = Math.max(to.maximum, value);
  // The difference of two doubles may be more than a double holds.
  const difference = value - to.mean;
  to.mean = Number.isFinite(difference)
    ? to.mean + difference / to.count
    : to.mean * ((to.count - 1) / to.count) + value / to.count;
  if (at < to.firstAt || (at === to.firstAt && value < to.first)) {
    to.first = value;
    to.firstAt = at;
  }
  if (at > to.lastAt || (at === to.lastAt && value > to.last)) {
    to.last = value;
    to.lastAt = at;
  }
}
