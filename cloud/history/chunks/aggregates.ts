/** What becomes of numbers in an hour, pure; the same words as the table `aggregate` has. */
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

/** @param into by the hour's beginning */
export function aggregateByHour(
  at: Messages['at'],
  values: ArrayLike<number>,
  into: Map<number, Aggregate>,
): void {
  for (let i = 0; i < at.length; i++) {
    const time = at[i]!;
    const hour = Math.floor(time / HOUR_MICROSECONDS) * HOUR_MICROSECONDS;
    const known = into.get(hour);
    if (known) add(known, values[i]!, time);
    else into.set(hour, ofOne(values[i]!, time));
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
