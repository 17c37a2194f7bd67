/** How wide buckets are, pure: from a list of round widths, all of them counted from 1970 by UTC. */
import { microsOf, type Range } from './micros.ts';

const SECOND_MS = 1000;
export const MINUTE_MS = 60 * SECOND_MS;
export const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

const of = (unitMs: number, ...counts: number[]): number[] => counts.map(count => count * unitMs);
/** Each is a whole part of an hour, or so many hours, or days. */
const WIDTHS_MS: readonly number[] = [
  ...of(SECOND_MS, 1, 2, 5, 10, 15, 30),
  ...of(MINUTE_MS, 1, 2, 5, 10, 15, 30),
  ...of(HOUR_MS, 1, 2, 3, 6, 12),
  ...of(DAY_MS, 1, 2, 7),
  ...Array.from({ length: 14 }, (_, power) => 7 * DAY_MS * 2 ** (power + 1)),
];

export type BucketLevel = 'second' | 'minute' | 'hour' | 'day';

/** The unit that a width counts in. */
export function levelOf(widthMs: number): BucketLevel {
  if (widthMs < MINUTE_MS) return 'second';
  if (widthMs < HOUR_MS) return 'minute';
  return widthMs < DAY_MS ? 'hour' : 'day';
}

/**
 * The narrowest with which no more than so many buckets touch the range, wherever they begin: it goes by the
 * length alone, so a chart that moves on keeps its width. Two buckets may always be touched.
 */
export function widthFor({ from, to }: Range, bucketsMax: number): number {
  const lengthMs = (to - 1 - from) / 1000;
  const fits = (widthMs: number) => Math.ceil(lengthMs / widthMs) + 1 <= Math.max(2, bucketsMax);
  return WIDTHS_MS.find(fits) ?? WIDTHS_MS.at(-1)!;
}

const ORIGIN_US = microsOf(0);

/** The beginning of the bucket that the time lies in; microseconds since 2000, as is the width. */
export const bucketOf = (time: number, width: number): number =>
  Math.floor((time - ORIGIN_US) / width) * width + ORIGIN_US;

/** The range from the beginning of its first bucket to the end of its last one. */
export const wholeBuckets = ({ from, to }: Range, width: number): Range => ({
  from: bucketOf(from, width),
  to: bucketOf(to - 1, width) + width,
});
