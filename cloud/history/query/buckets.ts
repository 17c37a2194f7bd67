/**
 * Buckets of any width: of an hour and more out of what is kept by the hour, narrower ones out of the
 * readings themselves, folded as they are read.
 */
import type { Pool } from 'pg';
import { aggregateBuckets, type SeriesBuckets } from './aggregate-buckets.ts';
import { newFold } from './fold.ts';
import { DAY_US, microsOf, type Range, timestampOf } from './micros.ts';
import { readSeries, type Series } from './series.ts';
import { HOUR_MS, wholeBuckets } from './widths.ts';

export interface BucketsRequest {
  readonly series: readonly Series[];
  /** Buckets that touch it are whole. */
  readonly range: Range;
  readonly widthMs: number;
  /** Beginnings of the days that may have readings, ascending. */
  readonly days: readonly number[];
}

/** What one question may decode, over all its series: a few seconds of work (F). */
export const READINGS_MAX = 20_000_000;

export type BucketsOutcome =
  | { readonly outcome: 'found'; readonly series: SeriesBuckets[] }
  | { readonly outcome: 'too-many'; readonly readings: number };

export async function readBuckets(
  pool: Pool,
  request: BucketsRequest,
  readingsMax = READINGS_MAX,
): Promise<BucketsOutcome> {
  const { series, range, widthMs } = request;
  const known = await aggregateBuckets(pool, series, range, widthMs);
  return widthMs >= HOUR_MS
    ? { outcome: 'found', series: known }
    : foldReadings(pool, request, known, readingsMax);
}

/** @param known the summaries of the same buckets, in the order of the series */
export async function foldReadings(
  pool: Pool,
  { series, range, widthMs, days }: BucketsRequest,
  known: readonly SeriesBuckets[],
  readingsMax = READINGS_MAX,
): Promise<BucketsOutcome> {
  const width = widthMs * 1000;
  const whole = wholeBuckets(range, width);
  const readings = await countMessages(pool, series, whole);
  if (readings > readingsMax) return { outcome: 'too-many', readings };
  const found: SeriesBuckets[] = [];
  for (const [i, one] of series.entries()) {
    const fold = newFold(whole, width);
    const { buckets, wide } = known[i]!;
    for (const [from, count, min, max, mean] of buckets) {
      fold.addSummary({ at: microsOf(from), count, min, max, mean });
    }
    for await (const slices of readSeries(pool, { ...one, range: whole, days, ahead: true })) {
      for (const slice of slices) fold.add(slice);
    }
    found.push({ buckets: fold.buckets(), wide });
  }
  return { outcome: 'found', series: found };
}

/** Messages that have to be decoded: chunks count whole. */
async function countMessages(pool: Pool, series: readonly Series[], range: Range): Promise<number> {
  const { rows } = await pool.query<{ messages: number }>(
    `select sum(n)::float8 as messages
       from unnest($1::int[], $2::text[]) as w (device, metric)
      cross join lateral (
        select coalesce(sum(messages), 0) as n from holdfast.chunk
         where device = w.device and at >= $3 and at < $5 and until >= $4
           and shape in (select shape from holdfast.shape_metric where name = w.metric)
        union all
        select count(*) from holdfast.message
         where device = w.device and at >= $4 and at < $5
           and shape in (select shape from holdfast.shape_metric where name = w.metric)) counted`,
    [
      series.map(({ device }) => device),
      series.map(({ metric }) => metric),
      timestampOf(Math.floor(range.from / DAY_US) * DAY_US),
      timestampOf(range.from),
      timestampOf(range.to),
    ],
  );
  return rows[0]?.messages ?? 0;
}
