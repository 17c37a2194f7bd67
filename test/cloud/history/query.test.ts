/**
 * Queries with a real PostgreSQL: whatever is compacted, comes late or was thinned, raw readings and buckets
 * of every width say what plain SQL over `holdfast.reading` and `holdfast.thinned_reading` says.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { aggregateBuckets } from '../../../cloud/history/query/aggregate-buckets.ts';
import { readBuckets } from '../../../cloud/history/query/buckets.ts';
import { storedDays } from '../../../cloud/history/query/days.ts';
import { downsample, pointsOf } from '../../../cloud/history/query/downsample.ts';
import type { Bucket } from '../../../cloud/history/query/fold.ts';
import { millisOf, type Range, rangeOf } from '../../../cloud/history/query/micros.ts';
import { readPage } from '../../../cloud/history/query/page.ts';
import type { Slice } from '../../../cloud/history/query/runs.ts';
import { readNewest, readSeries } from '../../../cloud/history/query/series.ts';
import { widthFor } from '../../../cloud/history/query/widths.ts';
import { expireHistory } from '../../../cloud/history/retention.ts';
import {
  anyWaves,
  DAY,
  DAY_MS,
  DEVICES,
  HOUR_MS,
  isClose,
  METRICS,
  MINUTE_MS,
  openQueryScene,
  type SqlBucket,
  type SqlReading,
  sqlBuckets,
  sqlReadings,
  sqlWide,
} from './query-scene.ts';

const scene = await openQueryScene();
const { pool } = scene;
const RUNS = 12;
const ALL = rangeOf(DAY, DAY + 2 * DAY_MS - 0.001);

const valueIn = ({ value, text, truth }: SqlReading) => truth ?? text ?? value!;
const asPoints = (rows: readonly SqlReading[]) => rows.map(row => [millisOf(row.at), valueIn(row)]);

async function readAll(device: string, metric: string, range: Range, ahead: boolean): Promise<Slice[]> {
  const days = await storedDays(pool, range);
  const slices: Slice[] = [];
  const series = { device: await scene.device(device), metric };
  for await (const more of readSeries(pool, { ...series, range, days, ahead })) slices.push(...more);
  return slices;
}

async function readPages(device: string, metric: string, range: Range, limit: number) {
  const series = { device: await scene.device(device), metric };
  const rows = [];
  for (let after = null; ; ) {
    const page = await readPage(pool, series, range, { limit, after });
    assert.ok(page.rows.length <= limit);
    rows.push(...page.rows);
    if (!page.next) return rows;
    after = page.next;
  }
}

function assertBuckets(found: readonly Bucket[], expected: readonly SqlBucket[], what: string): void {
  const withoutMean = found.map(([from, count, min, max, , first, last]) => [
    from,
    count,
    min,
    max,
    first,
    last,
  ]);
  const sql = expected.map(({ from, count, min, max, first, last }) => [from, count, min, max, first, last]);
  // As JSON, to which 0 and -0 are the same.
  assert.equal(JSON.stringify(withoutMean), JSON.stringify(sql), what);
  for (const [i, { min, max, mean }] of expected.entries()) {
    const size = Math.max(Math.abs(min), Math.abs(max));
    assert.ok(isClose(found[i]![4], mean, size), `${what}: a mean of ${found[i]![4]}, not ${mean}`);
  }
}

/** Of one series and range: all ways to read it. */
async function assertSeries(device: string, metric: string, range: Range, widthMs: number): Promise<void> {
  const what = `${device} ${metric} ${millisOf(range.from)} to ${millisOf(range.to)}`;
  const expected = await sqlReadings(pool, device, metric, range);
  const points = asPoints(expected);
  assert.deepEqual(pointsOf(await readAll(device, metric, range, widthMs > HOUR_MS)), points, what);

  const few = Math.ceil(points.length / 3);
  const series = { device: await scene.device(device), metric };
  const days = await storedDays(pool, range);
  for (const count of [few, points.length]) {
    const { slices, more } = await readNewest(pool, { ...series, range, days }, count);
    assert.deepEqual(pointsOf(slices), count === 0 ? [] : points.slice(-count), `the newest of ${what}`);
    assert.equal(more, count < points.length, what);
  }
  const paged = await readPages(device, metric, range, Math.max(1, few));
  assert.deepEqual(
    paged,
    expected.map(row => ({
      ...{ at: millisOf(row.at), value: valueIn(row), kind: row.kind },
      ...{ log: row.log, sequence: row.sequence, element: row.element },
    })),
    `pages of ${what}`,
  );

  const read = await readBuckets(pool, { series: [series], range, widthMs, days });
  assert.ok(read.outcome === 'found');
  const name = `${what} in buckets of ${widthMs}`;
  assertBuckets(read.series[0]!.buckets, await sqlBuckets(pool, device, metric, range, widthMs), name);
  assert.deepEqual(
    read.series[0]!.wide,
    await sqlWide(pool, device, metric, range, widthMs),
    `beside ${name}`,
  );
}

const anyRange = fc
  .tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true }))
  .map(([a, b]) => {
    const time = (part: number) => Math.round(DAY + 2 * DAY_MS * part);
    return rangeOf(time(Math.min(a, b)), time(Math.max(a, b)));
  });
const SECOND_MS = 1000;
const WIDTHS = [30 * SECOND_MS, MINUTE_MS, 5 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS, DAY_MS, 7 * DAY_MS];

test('raw readings, pages and buckets of every width are what SQL says, compacted or not', async () => {
  await fc.assert(
    fc
      .asyncProperty(
        anyWaves,
        fc.constantFrom(DAY + HOUR_MS, DAY + 6 * HOUR_MS, DAY + 3 * DAY_MS),
        anyRange,
        fc.constantFrom(...WIDTHS),
        async (waves, compactedUntil, part, widthMs) => {
          for (const [messages, summaries] of waves) {
            await scene.store(messages, summaries);
            for (const metric of METRICS) await assertSeries('a', metric, part, widthMs);
            await scene.compact(compactedUntil);
          }
          for (const [i, metric] of METRICS.entries()) {
            await assertSeries('a', metric, ALL, widthMs);
            await assertSeries(DEVICES[1 + (i % 2)]!, metric, i < 2 ? ALL : part, widthMs);
          }
        },
      )
      .beforeEach(scene.empty),
    { numRuns: RUNS },
  );
});

test('several series in one question: points where they fit, else buckets', async () => {
  await fc.assert(
    fc
      .asyncProperty(anyWaves, anyRange, fc.integer({ min: 1, max: 60 }), async (waves, range, pointsMax) => {
        for (const [i, [messages, summaries]] of waves.entries()) {
          await scene.store(messages, summaries);
          if (i === 0) await scene.compact();
        }
        const named = DEVICES.flatMap(device => METRICS.map(metric => ({ device, metric })));
        const series = [];
        for (const { device, metric } of named) series.push({ device: await scene.device(device), metric });
        const days = await storedDays(pool, range);
        const answer = await downsample(pool, { series, range, pointsMax, days });
        assert.ok(answer.outcome === 'found');
        const widthMs = widthFor(range, pointsMax);
        for (const [i, found] of answer.series.entries()) {
          const { device, metric } = named[i]!;
          const rows = await sqlReadings(pool, device, metric, range);
          if (found.level === 'raw') {
            assert.deepEqual(found.points, asPoints(rows.slice(-pointsMax)));
            assert.equal(found.truncated, rows.length > pointsMax);
            if (found.truncated) assert.ok(rows.slice(-pointsMax).every(({ text }) => text !== null));
            assert.deepEqual(found.summaries, await sqlWide(pool, device, metric, range, 1));
          } else {
            assert.equal(found.bucketMs, widthMs);
            const buckets = await sqlBuckets(pool, device, metric, range, widthMs);
            assertBuckets(found.buckets, buckets, `${device} ${metric}`);
            assert.ok(found.buckets.length <= Math.max(2, pointsMax));
            assert.deepEqual(found.summaries, await sqlWide(pool, device, metric, range, widthMs));
            const known = [...found.buckets.map(bucket => bucket[1]), ...found.summaries.map(one => one[5])];
            const readings = rows.length + known.reduce((sum, count) => sum + count, 0);
            assert.ok(readings > pointsMax, 'there are more readings than points');
          }
        }
      })
      .beforeEach(scene.empty),
    { numRuns: RUNS },
  );
});

test('hours that are gone for days: wide buckets have them, narrow ones name them beside', async () => {
  await scene.empty();
  const at = (hour: number) => DAY + hour * HOUR_MS;
  await scene.store(
    [0, 1, 5, 30].map(hour => ({ device: 'a', log: 'one', at: at(hour), metrics: { t: hour } })),
  );
  await scene.compact();
  const hourly = 2;
  await expireHistory(pool, { raw: 90, minutely: 90, hourly, daily: 900 }, DAY + (hourly + 1) * DAY_MS);
  const series = [{ device: await scene.device('a'), metric: 't' }];
  const range = rangeOf(at(2), at(40));
  const [byHour] = await aggregateBuckets(pool, series, range, 6 * HOUR_MS);
  assert.deepEqual(byHour, {
    buckets: [[at(30), 1, 30, 30, 30, 30, 30]],
    wide: [[DAY, DAY_MS, 0, 5, 2, 3]],
  });
  const [byDay] = await aggregateBuckets(pool, series, range, DAY_MS);
  assert.deepEqual(byDay, {
    buckets: [
      [DAY, 3, 0, 5, 2, 0, 5],
      [DAY + DAY_MS, 1, 30, 30, 30, 30, 30],
    ],
    wide: [],
  });
});

test('readings that are not kept raw any more, of all or of a type, are named by the hour', async () => {
  await scene.empty();
  const late = DAY + 20 * MINUTE_MS;
  const next = DAY + DAY_MS;
  await scene.store(
    [DAY, DAY + MINUTE_MS, late, next, next + MINUTE_MS].flatMap((at, i) =>
      ['a', 'b'].map(device => ({ device, log: 'one', at, metrics: { t: i } })),
    ),
    [
      {
        device: 'a',
        metric: 't',
        at: DAY,
        intervalMs: MINUTE_MS,
        sequence: 1,
        minimum: -5,
        maximum: 5,
        mean: 1,
        count: 10,
      },
    ],
  );
  await scene.compact();
  await pool.query(`insert into holdfast.device_type (id, retention) values ('brief', '{"raw": 2}')`);
  await pool.query(`insert into holdfast.registry_device (site, device, type) values ('demo', 'b', 'brief')`);
  await expireHistory(pool, { raw: 3, minutely: 3, hourly: 400, daily: 900 }, DAY + 4 * DAY_MS);

  const found = async (device: string, from: number, to: number, pointsMax: number) => {
    const range = rangeOf(from, to);
    const days = await storedDays(pool, range);
    const series = [{ device: await scene.device(device), metric: 't' }];
    const answer = await downsample(pool, { series, range, pointsMax, days });
    assert.ok(answer.outcome === 'found');
    return answer.series[0]!;
  };
  const raw = { level: 'raw', bucketMs: null, truncated: false };
  const hourOf = (device: string) =>
    device === 'a' ? [DAY, HOUR_MS, -5, 5, 1, 13] : [DAY, HOUR_MS, 0, 2, 1, 3];
  for (const device of ['a', 'b']) {
    assert.deepEqual(await found(device, DAY, DAY + HOUR_MS - 1, 1000), {
      ...{ ...raw, points: [], summaries: [hourOf(device)] },
    });
  }
  const points = [
    [next, 3],
    [next + MINUTE_MS, 4],
  ];
  assert.deepEqual(await found('a', next, next + HOUR_MS, 1000), { ...raw, points, summaries: [] });
  // Of the other one's hour nothing is left but the hour itself.
  const gone = [[next, HOUR_MS, 3, 4, 3.5, 2]];
  assert.deepEqual(await found('b', next, next + HOUR_MS, 1000), { ...raw, points: [], summaries: gone });
  assert.deepEqual(await found('b', next + 30 * MINUTE_MS, next + 40 * MINUTE_MS, 1000), {
    ...{ ...raw, points: [], summaries: gone },
  });
  // An hour in which nothing came within the range, and that is there.
  assert.deepEqual(await found('a', next + 30 * MINUTE_MS, next + 40 * MINUTE_MS, 1000), {
    ...{ ...raw, points: [], summaries: [] },
  });
  const wide = await found('a', DAY, next + 10 * HOUR_MS, 3);
  assert.ok(wide.level === 'day');
  assert.deepEqual(wide.buckets, [
    [DAY, 13, -5, 5, 1, 0, 2],
    [next, 2, 3, 4, 3.5, 3, 4],
  ]);
  await pool.query('truncate holdfast.registry_device, holdfast.device_type');
});

test('whatever leaves history, days say the same', async () => {
  await fc.assert(
    fc
      .asyncProperty(
        anyWaves,
        fc.constantFrom(1, 2, 3),
        fc.constantFrom(1, 2, 3),
        async (waves, raw, hourly) => {
          for (const [messages, summaries] of waves) await scene.store(messages, summaries);
          await scene.compact();
          const named = DEVICES.flatMap(device => METRICS.map(metric => ({ device, metric })));
          const series = [];
          for (const { device, metric } of named) series.push({ device: await scene.device(device), metric });
          const before = await aggregateBuckets(pool, series, ALL, DAY_MS);
          await expireHistory(pool, { raw, minutely: raw, hourly, daily: 900 }, DAY + 3.5 * DAY_MS);
          const after = await aggregateBuckets(pool, series, ALL, DAY_MS);
          for (const [i, { buckets, wide }] of after.entries()) {
            const expected = before[i]!.buckets.map(([from, count, min, max, mean, first, last]) => ({
              ...{ from, count, min, max, mean, first, last },
            }));
            assertBuckets(buckets, expected, `${named[i]!.device} ${named[i]!.metric}`);
            assert.deepEqual(wide, []);
          }
        },
      )
      .beforeEach(scene.empty),
    { numRuns: RUNS },
  );
});

test('while compaction runs, nothing is counted twice and nothing is missing', async () => {
  await scene.empty();
  await scene.store([DAY, DAY + DAY_MS].map(at => ({ device: 'b', log: 'one', at, metrics: { t: 0 } })));
  const count = 30_000;
  await pool.query(
    `insert into holdfast.message (at, sequence, log, device, shape, element, kind, numbers)
     select $1::timestamptz + i * interval '5.7 s', i, 1, $2,
            (select max(shape) from holdfast.message), 0, 0, array[i]
       from generate_series(1, $3::int) i`,
    [new Date(DAY).toISOString(), await scene.device('a'), count],
  );
  const series = [{ device: await scene.device('a'), metric: 't' }];
  const range = rangeOf(DAY, DAY + 2 * DAY_MS);
  const days = await storedDays(pool, range);
  let isCompacting = true;
  const compacting = scene.compact().finally(() => {
    isCompacting = false;
  });
  let rounds = 0;
  const countOf = (buckets: readonly Bucket[]) => buckets.reduce((sum, [, of]) => sum + of, 0);
  while (isCompacting || rounds === 0) {
    for (const widthMs of [HOUR_MS, DAY_MS, 30 * MINUTE_MS]) {
      const read = await readBuckets(pool, { series, range, widthMs, days });
      assert.ok(read.outcome === 'found');
      assert.equal(countOf(read.series[0]!.buckets), count, `in round ${rounds}, by ${widthMs} ms`);
    }
    const values = pointsOf(await readAll('a', 't', range, true)).map(([, value]) => value);
    assert.equal(values.length, count);
    assert.ok(values.every((value, i) => value === i + 1));
    rounds++;
  }
  await compacting;
});

test('a question for more readings than are decoded is told so', async () => {
  await scene.empty();
  await scene.store(
    Array.from({ length: 30 }, (_, i) => ({
      device: 'a',
      log: 'one',
      at: DAY + i * 1000,
      metrics: { t: i },
    })),
  );
  const series = [{ device: await scene.device('a'), metric: 't' }];
  const range = rangeOf(DAY, DAY + MINUTE_MS);
  const days = await storedDays(pool, range);
  const request = { series, range, pointsMax: 20, days };
  for (const _ of ['hot', 'compacted']) {
    assert.deepEqual(await downsample(pool, request, 29), {
      outcome: 'too-many',
      readings: 30,
      readingsMax: 29,
    });
    assert.equal((await downsample(pool, request, 30)).outcome, 'found');
    await scene.compact();
  }
});
