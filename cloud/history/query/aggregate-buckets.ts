/**
 * What is known of buckets of time without decoding a chunk, of several series at a time, in one statement
 * and so of one snapshot: every number is in exactly one of the aggregates, the rows that are not compacted,
 * and the summaries (B, C).
 *
 *   aggregates of hours and days ─┐
 *   rows of days that have some   ├─▶ by series and bucket ─▶ packed, a value per series
 *   summaries ────────────────────┘   what no bucket holds: by itself
 *
 * Buckets of an hour or more are whole so. Of narrower ones only the summaries are here: raw readings are for
 * `buckets.ts`.
 */
import type { Pool } from 'pg';
import { hotTables } from './days.ts';
import { type Bucket, LARGE, LARGE_UNIT, meanOf } from './fold.ts';
import { DAY_US, HOUR_US, type Range, timestampOf } from './micros.ts';
import type { Series } from './series.ts';
import { HOUR_MS, wholeBuckets } from './widths.ts';

/**
 * `[from, intervalMs, min, max, mean, count]`: an interval of whose readings nothing finer is known; `from`
 * in milliseconds since 1970.
 */
export type WideInterval = [
  from: number,
  intervalMs: number,
  min: number,
  max: number,
  mean: number,
  count: number,
];

export interface SeriesBuckets {
  /** Ascending. */
  readonly buckets: Bucket[];
  /** What is known only of intervals that do not lie within one bucket; ascending. */
  readonly wide: WideInterval[];
}

/** A day's tables in a statement of its own text each, up to here; beyond it all of them. */
const HOT_DAYS_MAX = 16;
/** So few days are looked into without asking first whether there is anything. */
const FEW_DAYS_US = 3 * DAY_US;
/** The table of a day was there when we asked, and is not any more. */
const UNDEFINED_TABLE = '42P01';

/** No interval lies within a bucket of it: what is known beside raw readings. */
export const NO_WIDTH_MS = 1;

/**
 * @param more `withoutMinutes`: hours whose minutes are known are left out
 * @returns as many as `series`; buckets that touch the range are whole
 */
export async function aggregateBuckets(
  pool: Pick<Pool, 'query'>,
  series: readonly Series[],
  range: Range,
  widthMs: number,
  { withoutMinutes = false } = {},
): Promise<SeriesBuckets[]> {
  const whole = wholeBuckets(range, widthMs * 1000);
  const values = [
    series.map(({ device }) => device),
    series.map(({ metric }) => metric),
    timestampOf(whole.from),
    timestampOf(whole.to),
    `${widthMs} milliseconds`,
    widthMs,
  ];
  const ask = async () => {
    const isWhole = widthMs >= HOUR_MS;
    const source = isWhole ? await hotSource(pool, whole) : null;
    const { rows } = await pool.query<{ series: number; packed: Buffer }>({
      // Others read tables of days: they are planned for these, and a connection would remember each.
      ...(isWhole && source === null && { name: 'holdfast aggregate buckets' }),
      text: statement(isWhole, source, withoutMinutes),
      values: isWhole ? values : [...values, ...chunkTimes(whole)],
    });
    return rows;
  };
  const rows = await ask().catch(error => {
    if ((error as { code?: string }).code === UNDEFINED_TABLE) return ask();
    throw error;
  });
  const found = new Map(rows.map(row => [row.series, row.packed]));
  return series.map((_, i) => unpacked(found.get(i + 1), widthMs));
}

/** Between which the chunks begin that may have readings of an hour which reaches into the range. */
const chunkTimes = ({ from, to }: Range): [string, string] => [
  timestampOf(Math.floor((from - HOUR_US) / DAY_US) * DAY_US),
  timestampOf(to + HOUR_US),
];

/** @returns what to read rows from; null when there are none */
async function hotSource(pool: Pick<Pool, 'query'>, range: Range): Promise<string | null> {
  if (range.to - range.from <= FEW_DAYS_US) return 'holdfast.message';
  const tables = await hotTables(pool, range);
  if (tables.length === 0) return null;
  if (tables.length > HOT_DAYS_MAX) return 'holdfast.message';
  return `(${tables.map(table => `select * from ${table}`).join(' union all ')})`;
}

const ORIGIN = `timestamptz '1970-01-01 00:00:00Z'`;
/** Arrays compare by their first elements first: the value of the least time, the lowest of several. */
const at = (time: string, value: string) => `array[date_part('epoch', ${time}), ${value}]`;
const bucketOf = (time: string) => `date_bin($5, ${time}, ${ORIGIN})`;
/** The hour's readings have left history: with others of their time this is all there is of them. */
const RAW_IS_GONE = `
     and not exists (
       select from holdfast.chunk c
        where c.device = w.device and c.at >= $7 and c.at < $8
          and c.at < a.at + interval '1 hour' and c.until >= a.at
          and c.shape in (select shape from holdfast.shape_metric where name = w.name))`;

/** Apart, so that nothing overflows. */
const sumsOf = (mean: string, count: string) => `
         case when abs(${mean}) < ${LARGE} then ${mean} * ${count} else 0 end as sum,
         case when abs(${mean}) < ${LARGE} then 0 else ${mean} / ${LARGE_UNIT} * ${count} end as large`;

const aggregatesOf = (seconds: 3600 | 86_400, begin: string, span: string, more = '') => `
  select w.series, ${begin} as at, ${span}::float8 as span,
         a.count::float8 as count, a.minimum, a.maximum, ${sumsOf('a.mean', 'a.count')},
         case when a.first_at is not null then ${at('a.first_at', 'a.first')} end as first,
         case when a.last_at is not null then ${at('a.last_at', 'a.last')} end as last
    from wanted w
    join holdfast.aggregate a on a.device = w.device and a.metric = w.metric and a.seconds = ${seconds}
   where a.at > $3::timestamptz - interval '${seconds} seconds' and a.at < $4 ${more}`;

/** Thousands of a long range: put together by themselves, before they meet the few others. */
const HOURS_HELD = `
  select w.series, h.at, $6::float8 as span, h.count, h.minimum, h.maximum, h.sum, h.large, h.first, h.last
    from wanted w cross join lateral (
      select ${bucketOf('a.at')} as at, sum(a.count::float8) as count,
             min(a.minimum) as minimum, max(a.maximum) as maximum,
             sum(case when abs(a.mean) < ${LARGE} then a.mean * a.count else 0 end) as sum,
             coalesce(sum(a.mean / ${LARGE_UNIT} * a.count) filter (where not abs(a.mean) < ${LARGE}), 0) as large,
             min(case when a.first_at is not null then ${at('a.first_at', 'a.first')} end) as first,
             max(case when a.last_at is not null then ${at('a.last_at', 'a.last')} end) as last
        from holdfast.aggregate a
       where a.device = w.device and a.metric = w.metric and a.seconds = 3600 and a.at >= $3 and a.at < $4
       group by 1) h`;
const HOURS_BESIDE = aggregatesOf(3600, 'a.at', '3600000', RAW_IS_GONE);
const HOURS_WITHOUT_MINUTES = `${HOURS_BESIDE}
     and not exists (select from holdfast.minutes m where m.device = w.device and m.metric = w.metric and m.at = a.at)`;
const DAYS = aggregatesOf(
  86_400,
  `case when $6::float8 >= 86400000 then ${bucketOf('a.at')} else a.at end`,
  'greatest($6, 86400000)',
);

/**
 * There may be millions: what is seldom asked, or known once their times are, is looked up after they are
 * counted.
 */
const rowsOf = (source: string) => {
  const lookedUp = (aggregate: string, condition: string) => `
   cross join lateral (
     select ${aggregate} as value
       from holdfast.shape_metric m join ${source} r on r.shape = m.shape
      cross join lateral (select r.numbers[m.position] as value) n
      where m.name = w.name and m.type <> 's' and r.device = w.device and r.at >= $3 and r.at < $4
        and ${condition})`;
  return `
  union all
  select w.series, h.at, $6, h.count, h.minimum, h.maximum, h.sum, l.value,
         ${at('h.first_at', 'a.value')}, ${at('h.last_at', 'z.value')}
    from wanted w cross join lateral (
      select bucket as at, count(*)::float8 as count, min(value) as minimum, max(value) as maximum,
             min(at) as first_at, max(at) as last_at,
             sum(case when abs(value) < ${LARGE} then value else 0 end) as sum
        from (
          -- Taken out of its row once: the offset keeps it so.
          select ${bucketOf('r.at')} as bucket, r.at, r.numbers[m.position] as value
            from holdfast.shape_metric m join ${source} r on r.shape = m.shape
           where m.name = w.name and m.type <> 's' and r.device = w.device and r.at >= $3 and r.at < $4
          offset 0) n
       group by 1) h
   ${lookedUp('min(n.value)', 'r.at = h.first_at')} a
   ${lookedUp('max(n.value)', 'r.at = h.last_at')} z
   ${lookedUp(
     `coalesce(sum(n.value / ${LARGE_UNIT}), 0)`,
     `(h.minimum <= -${LARGE} or not h.maximum < ${LARGE})
        and not abs(n.value) < ${LARGE} and r.at between h.first_at and h.last_at`,
   )} l`;
};

const SUMMARIES = `
  select w.series, case when i.is_held then ${bucketOf('s.at')} else s.at end,
         case when i.is_held then $6 else s.interval_ms end,
         s.count::float8, s.minimum, s.maximum, ${sumsOf('s.mean', 's.count')}, null, null
    from wanted w join holdfast.summary s on s.device = w.device and s.metric = w.metric
   cross join lateral (select s.at + s.interval_ms * interval '1 millisecond' as until) e
   cross join lateral (select ${bucketOf('s.at')} + $5 >= e.until as is_held) i
   where s.at > $3::timestamptz - interval '1 day' and s.at < $4 and e.until > $3`;

/** A value per series: of each bucket and interval its time, and eight other doubles. */
const statement = (isWhole: boolean, source: string | null, withoutMinutes: boolean) => `
  with wanted as materialized (
    select w.series, w.device, w.name, m.id as metric
      from unnest($1::int[], $2::text[]) with ordinality as w (device, name, series)
      left join holdfast.metric m on m.name = w.name),
  part as (
    ${isWhole ? HOURS_HELD : withoutMinutes ? HOURS_WITHOUT_MINUTES : HOURS_BESIDE}
    union all ${DAYS}
    ${source === null ? '' : rowsOf(source)}
    union all ${SUMMARIES})
  select series::int,
         array_send(array_agg(array[
           date_part('epoch', at), span, count, minimum, maximum, sum, large, first, last])) as packed
    from (select series, at, span, sum(count) as count, min(minimum) as minimum, max(maximum) as maximum,
                 sum(sum) as sum, sum(large) as large,
                 coalesce((min(first))[2], 'NaN') as first, coalesce((max(last))[2], 'NaN') as last
            from part group by series, at, span) bucket
   group by series`;

/**
 * A two-dimensional array in PostgreSQL's binary format: its header, and of each element the length before
 * the value.
 */
const HEADER_BYTES = 28;
const ELEMENT_BYTES = 12;
const ELEMENTS = 9;

function unpacked(packed: Buffer | undefined, widthMs: number): SeriesBuckets {
  const buckets: Bucket[] = [];
  const wide: WideInterval[] = [];
  if (!packed) return { buckets, wide };
  const view = new DataView(packed.buffer, packed.byteOffset, packed.length);
  for (let begin = HEADER_BYTES; begin < packed.length; begin += ELEMENTS * ELEMENT_BYTES) {
    const value = (place: number) => view.getFloat64(begin + ELEMENT_BYTES * place + 4);
    const orNull = (number: number) => (Number.isNaN(number) ? null : number);
    const from = Math.round(value(0) * 1e6) / 1000;
    const [span, count, min, max] = [value(1), value(2), value(3), value(4)];
    const mean = meanOf(value(5), value(6), count);
    // An interval that is as long as a bucket, and begins within one, is none.
    if (span === widthMs && from % widthMs === 0) {
      buckets.push([from, count, min, max, mean, orNull(value(7)), orNull(value(8))]);
    } else wide.push([from, span, min, max, mean, count]);
  }
  buckets.sort(([a], [b]) => a - b);
  wide.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  return { buckets, wide };
}
