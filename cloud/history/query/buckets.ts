/**
 * Buckets of any width: of an hour and more out of what is kept by the hour, of minutes out of what is kept by
 * the minute, and all else out of the readings themselves, folded as they are read.
 */
import type { Pool } from 'pg';
import { inSnapshot } from '../../in-transaction.ts';
import type { Minutes } from '../chunks/minutes.ts';
import { MINUTES_COLUMNS, type MinutesRow, minutesIn } from '../chunks/store-minutes.ts';
import { aggregateBuckets, type SeriesBuckets } from './aggregate-buckets.ts';
import { newFold } from './fold.ts';
import { DAY_US, HOUR_US, microsOf, type Range, timestampOf } from './micros.ts';
import { hasMinutes } from './pieces.ts';
import { placeOf, type Slice } from './runs.ts';
import { readSeries, type Series } from './series.ts';
import { HOUR_MS, MINUTE_MS, wholeBuckets } from './widths.ts';

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
  if (widthMs < HOUR_MS) return foldReadings(pool, request, readingsMax);
  return { outcome: 'found', series: await aggregateBuckets(pool, series, range, widthMs) };
}

/** Of less than an hour: of the minutes that are kept, where they fit, and of readings. */
export function foldReadings(
  pool: Pool,
  { series, range, widthMs, days }: BucketsRequest,
  readingsMax = READINGS_MAX,
): Promise<BucketsOutcome> {
  const width = widthMs * 1000;
  const whole = wholeBuckets(range, width);
  const withoutMinutes = widthMs % MINUTE_MS === 0;
  // What is compacted meanwhile would be counted twice, or not at all.
  return inSnapshot(pool, async client => {
    const readings = await countMessages(client, series, whole, withoutMinutes);
    if (readings > readingsMax) return { outcome: 'too-many', readings };
    const known = await aggregateBuckets(client, series, range, widthMs, { withoutMinutes });
    const found: SeriesBuckets[] = [];
    for (const [i, one] of series.entries()) {
      const fold = newFold(whole, width);
      const { buckets, wide } = known[i]!;
      for (const [from, count, min, max, mean] of buckets) {
        fold.addSummary({ at: microsOf(from), count, min, max, mean });
      }
      const hours = new Set<number>();
      if (withoutMinutes) {
        for (const { hour, minutes } of await readMinutes(client, one, whole)) {
          hours.add(hour);
          for (const [at, minute] of minutes) fold.addMinute(at, minute);
        }
      }
      for await (const slices of readSeries(client, {
        ...{ ...one, range: whole, days, withoutMinutes },
        ahead: true,
      })) {
        for (const slice of slices) for (const part of withoutHours(slice, hours)) fold.add(part);
      }
      found.push({ buckets: fold.buckets(), wide });
    }
    return { outcome: 'found', series: found };
  });
}

async function readMinutes(
  client: Pick<Pool, 'query'>,
  { device, metric }: Series,
  { from, to }: Range,
): Promise<{ hour: number; minutes: Minutes }[]> {
  const { rows } = await client.query<MinutesRow>(
    `select ${MINUTES_COLUMNS} from holdfast.minutes
      where device = $1 and metric = (select id from holdfast.metric where name = $2) and at > $3 and at < $4 order by at`,
    [device, metric, timestampOf(from - HOUR_US), timestampOf(to)],
  );
  return rows.map(row => ({ hour: Number(row.at), minutes: minutesIn(row) }));
}

/** A chunk may hold some of an hour whose minutes are known. */
function* withoutHours(slice: Slice, hours: ReadonlySet<number>): Generator<Slice> {
  const { column, to } = slice;
  if (hours.size === 0 || !column.run.isCompacted || column.type === 's') return yield slice;
  const { at } = column.run;
  for (let from = slice.from; from < to; ) {
    const hour = Math.floor(at[from]! / HOUR_US) * HOUR_US;
    const end = Math.min(to, placeOf(at, hour + HOUR_US));
    if (!hours.has(hour)) yield { column, from, to: end };
    from = end;
  }
}

/** Messages that have to be decoded: chunks count whole. */
async function countMessages(
  client: Pick<Pool, 'query'>,
  series: readonly Series[],
  range: Range,
  withoutMinutes: boolean,
): Promise<number> {
  const { rows } = await client.query<{ messages: number }>(
    `select sum(n)::float8 as messages
       from unnest($1::int[], $2::text[]) as w (device, metric)
      cross join lateral (
        select coalesce(sum(messages), 0) as n from holdfast.chunk c
         where device = w.device and at >= $3 and at < $5 and until >= $4
           and shape in (select shape from holdfast.shape_metric where name = w.metric)
           ${withoutMinutes ? `and not ${hasMinutes('c', '(select id from holdfast.metric where name = w.metric)')}` : ''}
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
