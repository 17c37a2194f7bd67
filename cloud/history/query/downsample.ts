/**
 * Series in so many points as a chart has room for: the readings themselves where they fit, else buckets, in
 * which nothing is hidden.
 *
 *   what the aggregates say ─▶ more than fit? ─yes─▶ buckets
 *                                   └──no──▶ the newest readings ─▶ all of them? ─▶ they are the answer
 */
import type { Pool } from 'pg';
import type { Value } from '../../../protocol/batch.ts';
import { aggregateBuckets, NO_WIDTH_MS, type SeriesBuckets, type WideInterval } from './aggregate-buckets.ts';
import { foldReadings, READINGS_MAX } from './buckets.ts';
import type { Bucket } from './fold.ts';
import { microsOf, millisOf, type Range } from './micros.ts';
import type { Slice } from './runs.ts';
import { lengthOf, readNewest, type Series } from './series.ts';
import { type BucketLevel, HOUR_MS, levelOf, widthFor } from './widths.ts';

/** Milliseconds since 1970; ascending. */
export type Point = [at: number, value: Value];

interface Level {
  /**
   * What is known only of intervals, and is in no point and no bucket: of thinned readings, and of ones too
   * old to be kept.
   */
  readonly summaries: readonly WideInterval[];
}
export interface RawSeries extends Level {
  readonly level: 'raw';
  readonly bucketMs: null;
  readonly points: readonly Point[];
  /** There are older ones: texts have no buckets. */
  readonly truncated: boolean;
}
export interface BucketSeries extends Level {
  readonly level: BucketLevel;
  readonly bucketMs: number;
  /** Those that have readings. The first and the last may reach beyond the range. */
  readonly buckets: readonly Bucket[];
}

export type DownsampleOutcome =
  | { readonly outcome: 'found'; readonly series: (RawSeries | BucketSeries)[] }
  | { readonly outcome: 'too-many'; readonly readings: number; readonly readingsMax: number };

export interface DownsampleRequest {
  readonly series: readonly Series[];
  readonly range: Range;
  readonly pointsMax: number;
  /** Beginnings of the days that may have readings, ascending. */
  readonly days: readonly number[];
}

export async function downsample(
  pool: Pool,
  request: DownsampleRequest,
  readingsMax = READINGS_MAX,
): Promise<DownsampleOutcome> {
  const { series, range, pointsMax, days } = request;
  const widthMs = widthFor(range, pointsMax);
  const known = await aggregateBuckets(pool, series, range, widthMs);
  const raw = new Map<Series, Omit<RawSeries, 'summaries'>>();
  for (const [i, one] of series.entries()) {
    const points = await pointsIfTheyFit(pool, request, one, known[i]!, widthMs);
    if (points) raw.set(one, points);
  }
  const beside = raw.size > 0 ? await aggregateBuckets(pool, [...raw.keys()], range, NO_WIDTH_MS) : [];
  const others = series.filter(one => !raw.has(one));
  let buckets = known.filter((_, i) => !raw.has(series[i]!));
  if (widthMs < HOUR_MS && others.length > 0) {
    const folded = await foldReadings(pool, { series: others, range, widthMs, days }, readingsMax);
    if (folded.outcome === 'too-many') return { ...folded, readingsMax };
    buckets = folded.series;
  }
  const level = levelOf(widthMs);
  return {
    outcome: 'found',
    series: series.map(one => {
      const points = raw.get(one);
      if (points) return { ...points, summaries: beside[[...raw.keys()].indexOf(one)]!.wide };
      const { buckets: found, wide } = buckets[others.indexOf(one)]!;
      return { level, bucketMs: widthMs, buckets: found, summaries: wide };
    }),
  };
}

/** @returns null when there are more, and numbers among them: those have buckets */
async function pointsIfTheyFit(
  pool: Pool,
  { range, pointsMax, days }: DownsampleRequest,
  series: Series,
  { buckets, wide }: SeriesBuckets,
  widthMs: number,
): Promise<Omit<RawSeries, 'summaries'> | null> {
  const within = buckets.filter(
    ([from]) => microsOf(from) >= range.from && microsOf(from + widthMs) <= range.to,
  );
  if (countOf(within) > pointsMax) return null;
  const { slices, more } = await readNewest(pool, { ...series, range, days }, pointsMax);
  if (more && slices.some(({ column }) => column.type !== 's')) return null;
  // Of narrow buckets only the summaries were known before.
  const thinned = countOf(buckets) + wide.reduce((sum, [, , , , , count]) => sum + count, 0);
  if (widthMs < HOUR_MS && lengthOf(slices) + thinned > pointsMax && thinned > 0) return null;
  return { level: 'raw', bucketMs: null, points: pointsOf(slices), truncated: more };
}

const countOf = (buckets: readonly Bucket[]): number => buckets.reduce((sum, [, count]) => sum + count, 0);

export function pointsOf(slices: readonly Slice[]): Point[] {
  const points: Point[] = [];
  for (const { column, from, to } of slices) {
    const { run, type, position } = column;
    if (type === 's') {
      const texts = textsOf(column);
      for (let i = from; i < to; i++) points.push([millisOf(run.at[i]!), texts[i]!]);
      continue;
    }
    const numbers = run.numbers(position);
    for (let i = from; i < to; i++) {
      points.push([millisOf(run.at[i]!), type === 'b' ? numbers[i] !== 0 : numbers[i]!]);
    }
  }
  return points;
}

const textsOf = ({ run, position }: Slice['column']): readonly string[] =>
  run.messages().texts[position - 1]!;
