/**
 * What the tests of queries share: a history with messages and summaries of all kinds, compacted or not, and
 * plain SQL over it.
 */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type pg from 'pg';
import { compactAll } from '../../../cloud/history/chunks/pass.ts';
import { openShapes } from '../../../cloud/history/chunks/shapes.ts';
import { openDictionary } from '../../../cloud/history/dictionary.ts';
import { type Range, timestampOf } from '../../../cloud/history/query/micros.ts';
import { atEnd, freshDatabase, startTestPostgres } from '../servers.ts';
import { type StoredMessage, storeMessages } from './messages.ts';

export const SITE = 'demo';
export const DEVICES = ['a', 'b', 'c'] as const;
export const METRICS = ['t', 'h', 'on', 'mode', 'both'] as const;
export const DAY = Date.UTC(2026, 0, 10);
export const MINUTE_MS = 60_000;
export const HOUR_MS = 60 * MINUTE_MS;
export const DAY_MS = 24 * HOUR_MS;
/** When all of it is over. */
const NOW = DAY + 3 * DAY_MS;

/** As in `holdfast.summary`. */
export interface StoredSummary {
  readonly device: string;
  readonly metric: string;
  readonly at: number;
  readonly intervalMs: number;
  readonly sequence: number;
  readonly minimum: number;
  readonly maximum: number;
  readonly mean: number;
  readonly count: number;
}

export interface QueryScene {
  readonly pool: pg.Pool;
  /** Of its database, for other processes. */
  readonly url: string;
  store(messages: readonly StoredMessage[], summaries?: readonly StoredSummary[]): Promise<void>;
  compact(nowMs?: number): Promise<void>;
  empty(): Promise<void>;
  device(name: string): Promise<number>;
}

export async function openQueryScene(): Promise<QueryScene> {
  const pool = await freshDatabase(await startTestPostgres());
  let dictionary = openDictionary(pool);
  const client = await pool.connect();
  atEnd(async () => client.release());
  const shapes = openShapes(pool);
  const device = async (name: string) => (await dictionary.devices(SITE, [name]))[0]!;
  return {
    pool,
    url: pool.options.connectionString!,
    device,
    async store(messages, summaries = []) {
      await storeMessages(pool, dictionary, messages);
      for (const { metric, device: name, ...summary } of summaries) {
        const [id] = await dictionary.metrics([metric]);
        const { id: log } = await dictionary.log(SITE, 'gw-1', 'thinned');
        const { at, intervalMs, sequence, minimum, maximum, mean, count } = summary;
        await pool.query(
          `insert into holdfast.summary
                  (at, sequence, log, device, metric, interval_ms, minimum, maximum, mean, count)
           values (to_timestamp($1::float8 / 1000), $2, $3, $4, $5, $6, $7, $8, $9, $10)
           on conflict do nothing`,
          [at, sequence, log, await device(name), id, intervalMs, minimum, maximum, mean, count],
        );
      }
    },
    async compact(nowMs = NOW) {
      const onFailure = (reason: string) => assert.fail(reason);
      await compactAll({ client, shapes, nowMs, graceMs: 0, onFailure });
    },
    async empty() {
      await pool.query(
        'truncate holdfast.message, holdfast.chunk, holdfast.aggregate, holdfast.minutes, holdfast.summary',
      );
      // A test may have dropped the tables of some days.
      dictionary = openDictionary(pool);
    },
  };
}

export const anyNumber = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: -5000, max: 5000 }).map(whole => whole / 100) },
  { weight: 2, arbitrary: fc.integer({ min: -3, max: 3 }) },
  { weight: 1, arbitrary: fc.double({ noNaN: true, noDefaultInfinity: true }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(0, -0, 2 ** 53, 1e300, -1.5e308, 1.7e308, 5e-324, 0.1 + 0.2, 1e-9),
  },
);
/** Days, hours, and clusters of the same time; with microseconds now and then. */
const anyTime = fc
  .tuple(
    fc.nat(1),
    fc.constantFrom(0, 1, 5, 23),
    fc.oneof(fc.nat(50), fc.nat(HOUR_MS - 1)),
    fc.constantFrom(0, 0, 0.25),
  )
  .map(([day, hour, ms, part]) => DAY + day * DAY_MS + hour * HOUR_MS + ms + part);

export const anyMessage: fc.Arbitrary<StoredMessage> = fc.record({
  device: fc.constantFrom(...DEVICES),
  log: fc.constantFrom('one', 'two'),
  at: anyTime,
  element: fc.constantFrom(0, 0, 0, 1, 700),
  kind: fc.constantFrom(0, 0, 1, 3),
  metrics: fc.oneof(
    fc.record({ t: anyNumber }),
    fc.record({ t: anyNumber, h: anyNumber, on: fc.boolean() }),
    fc.record({ t: anyNumber, mode: fc.constantFrom('auto', '', 'ü"{},\\ NULL', 'two\nlines', ' spaced ') }),
    fc.record({ mode: fc.string({ unit: 'binary' }), both: fc.constantFrom('text', 'words') }),
    fc.record({ both: anyNumber }),
  ),
});

export const anySummary: fc.Arbitrary<StoredSummary> = fc
  .record({
    device: fc.constantFrom(...DEVICES),
    metric: fc.constantFrom('t', 'h', 'both'),
    time: anyTime,
    intervalMs: fc.constantFrom(MINUTE_MS, 10 * MINUTE_MS, HOUR_MS, DAY_MS),
    sequence: fc.integer({ min: 1, max: 3 }),
    numbers: fc.array(fc.integer({ min: -900, max: 900 }), { minLength: 3, maxLength: 3 }),
    count: fc.integer({ min: 1, max: 500 }),
  })
  .map(({ time, numbers, ...summary }) => {
    const [minimum, mean, maximum] = numbers.sort((a, b) => a - b) as [number, number, number];
    return { ...summary, ...{ minimum, mean, maximum }, at: time - (time % summary.intervalMs) };
  });

/** Several waves: what comes later is late, or not. */
export const anyWaves = fc.array(
  fc.tuple(fc.array(anyMessage, { maxLength: 50 }), fc.array(anySummary, { maxLength: 4 })),
  { minLength: 1, maxLength: 3 },
);

export interface SqlReading {
  readonly at: number;
  readonly value: number | null;
  readonly text: string | null;
  readonly truth: boolean | null;
  readonly kind: string;
  readonly log: number;
  readonly sequence: number;
  readonly element: number;
}

/** One series as the view has it; `at` in microseconds since 2000. */
export async function sqlReadings(
  pool: pg.Pool,
  device: string,
  metric: string,
  range: Range,
): Promise<SqlReading[]> {
  const { rows } = await pool.query<SqlReading>(
    `select (extract(epoch from time - timestamptz '2000-01-01 00:00Z') * 1000000)::float8 as at,
            value, text, truth, kind, log, sequence::float8, element
       from holdfast.reading
      where site = $1 and device = $2 and metric = $3 and time >= $4 and time < $5
      order by time, log, sequence, element`,
    [SITE, device, metric, timestampOf(range.from), timestampOf(range.to)],
  );
  return rows;
}

const ORIGIN = `timestamptz '1970-01-01 00:00Z'`;

export interface SqlBucket {
  readonly from: number;
  readonly count: number;
  readonly min: number;
  readonly max: number;
  readonly mean: number;
  readonly first: number | null;
  readonly last: number | null;
}

/** The same in buckets, with the summaries of intervals that lie within one. */
export async function sqlBuckets(
  pool: pg.Pool,
  device: string,
  metric: string,
  range: Range,
  widthMs: number,
): Promise<SqlBucket[]> {
  const { rows } = await pool.query<SqlBucket>(
    `with raw as (
       select date_bin($6, time, ${ORIGIN}) as at, count(*) as count, min(value) as min, max(value) as max,
              sum(value::numeric) as sum, (array_agg(value order by time, value))[1] as first,
              (array_agg(value order by time desc, value desc))[1] as last
         from holdfast.reading
        where site = $1 and device = $2 and metric = $3 and value is not null group by 1),
     thinned as (
       select date_bin($6, time, ${ORIGIN}) as at, sum(count) as count, min(minimum) as min,
              max(maximum) as max, sum(mean::numeric * count) as sum
         from holdfast.thinned_reading
        where site = $1 and device = $2 and metric = $3
          and time + interval <= date_bin($6, time, ${ORIGIN}) + $6::interval group by 1)
     select extract(epoch from at)::float8 * 1000 as "from",
            (coalesce(raw.count, 0) + coalesce(thinned.count, 0))::float8 as count,
            least(raw.min, thinned.min) as min, greatest(raw.max, thinned.max) as max,
            ((coalesce(raw.sum, 0) + coalesce(thinned.sum, 0))
              / (coalesce(raw.count, 0) + coalesce(thinned.count, 0)))::float8 as mean,
            raw.first, raw.last
       from raw full join thinned using (at)
      where at + $6::interval > $4::timestamptz and at < $5::timestamptz order by 1`,
    [SITE, device, metric, timestampOf(range.from), timestampOf(range.to), `${widthMs} milliseconds`],
  );
  return rows;
}

/** Summaries that touch the range and do not lie within one bucket. */
export async function sqlWide(
  pool: pg.Pool,
  device: string,
  metric: string,
  range: Range,
  widthMs: number,
): Promise<(number | null)[][]> {
  const { rows } = await pool.query(
    `select extract(epoch from time)::float8 * 1000 as at,
            extract(epoch from interval)::float8 * 1000 as span, minimum, maximum, mean, count::float8
       from holdfast.thinned_reading
      where site = $1 and device = $2 and metric = $3
        and time + interval > date_bin($6, time, ${ORIGIN}) + $6::interval
        and time + interval > date_bin($6, $4::timestamptz, ${ORIGIN})
        and time < date_bin($6, $5::timestamptz - interval '1 microsecond', ${ORIGIN}) + $6::interval
      order by time, interval`,
    [SITE, device, metric, timestampOf(range.from), timestampOf(range.to), `${widthMs} milliseconds`],
  );
  return rows.map(row => Object.values(row) as number[]);
}

/** Means are put together in another order than SQL does it. */
export const isClose = (a: number, b: number, size: number): boolean =>
  Math.abs(a - b) <= 1e-9 * Math.max(size, Number.MIN_VALUE);
