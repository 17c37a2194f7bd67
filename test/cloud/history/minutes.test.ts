/**
 * Minutes that are kept, with a real PostgreSQL: they say what the readings say, whatever comes late, and go on saying it when
 * the readings are gone (B, C).
 */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import fc from 'fast-check';
import { aggregateBy, MINUTE_MICROSECONDS } from '../../../cloud/history/chunks/aggregates.ts';
import {
  joinMinutes,
  type Minutes,
  minutesOf,
  packMinutes,
  unpackMinutes,
} from '../../../cloud/history/chunks/minutes.ts';
import { readBuckets } from '../../../cloud/history/query/buckets.ts';
import { storedDays } from '../../../cloud/history/query/days.ts';
import { downsample } from '../../../cloud/history/query/downsample.ts';
import { rangeOf } from '../../../cloud/history/query/micros.ts';
import { expireHistory } from '../../../cloud/history/retention.ts';
import { moveHistory } from '../../../cloud/registry/move-history.ts';
import {
  anyNumber,
  DAY,
  DAY_MS,
  HOUR_MS,
  isClose,
  MINUTE_MS,
  openQueryScene,
  sqlBuckets,
} from './query-scene.ts';

const scene = await openQueryScene();
const { pool } = scene;
beforeEach(scene.empty);

const SECOND_MS = 1000;
const HOURS = 2;
const RANGE = rangeOf(DAY, DAY + HOURS * HOUR_MS);
const WIDTHS = [MINUTE_MS, 5 * MINUTE_MS, 30 * MINUTE_MS];
const KEPT = { raw: 90, minutely: 90, hourly: 400, daily: 900 };

/** A reading every so often, each of its own value. */
const every = (ms: number, device = 'a', from = DAY) =>
  Array.from({ length: Math.floor((HOURS * HOUR_MS) / ms) }, (_, i) => ({
    ...{ device, log: 'one', at: from + i * ms },
    metrics: { t: Math.round(2000 + 500 * Math.sin(i / 100)) / 100 },
  }));

async function buckets(device: string, widthMs: number) {
  const days = await storedDays(pool, RANGE);
  const series = [{ device: await scene.device(device), metric: 't' }];
  const read = await readBuckets(pool, { series, range: RANGE, widthMs, days });
  assert.ok(read.outcome === 'found');
  return read.series[0]!;
}

/** Buckets as SQL makes them of the readings. */
async function assertAsRead(device: string): Promise<void> {
  for (const widthMs of WIDTHS) {
    const expected = await sqlBuckets(pool, device, 't', RANGE, widthMs);
    const { buckets: found, wide } = await buckets(device, widthMs);
    const what = `${device} by ${widthMs} ms`;
    assert.deepEqual(wide, []);
    assert.deepEqual(
      found.map(([from, count, min, max, , first, last]) => ({ from, count, min, max, first, last })),
      expected.map(({ mean: _, ...same }) => same),
      what,
    );
    for (const [i, [, , min, max, mean]] of found.entries()) {
      assert.ok(isClose(mean, expected[i]!.mean, Math.max(Math.abs(min), Math.abs(max))), what);
    }
  }
}

async function rows(): Promise<string[]> {
  const { rows: found } = await pool.query<{ name: string; hour: number; minutes: number }>(
    `select d.name, extract(hour from m.at at time zone 'UTC')::int as hour, m.minutes
       from holdfast.minutes m join holdfast.device d on d.id = m.device order by 1, 2`,
  );
  return found.map(({ name, hour, minutes }) => `${name} ${hour}: ${minutes}`);
}

test('of what is sent often the minutes are kept, of what is not they are not; charts say the same', async () => {
  await scene.store([...every(SECOND_MS), ...every(30 * SECOND_MS, 'b')]);
  await assertAsRead('a');
  await scene.compact();
  assert.deepEqual(await rows(), ['a 0: 60', 'a 1: 60']);
  await assertAsRead('a');
  await assertAsRead('b');
});

test('late readings are in them, before and after they are compacted', async () => {
  await scene.store(every(SECOND_MS));
  await scene.compact();
  for (const late of [0.1, 0.25]) {
    await scene.store(every(7 * SECOND_MS, 'a', DAY + late));
    await assertAsRead('a');
    await scene.compact();
    await assertAsRead('a');
  }
  assert.deepEqual(await rows(), ['a 0: 60', 'a 1: 60']);
});

test('an hour of which some is in chunks already has none: it is read as before', async () => {
  await scene.store(every(30 * SECOND_MS));
  await scene.compact();
  await scene.store(every(SECOND_MS, 'a', DAY + 0.1));
  await scene.compact();
  assert.deepEqual(await rows(), []);
  await assertAsRead('a');
});

test('minutes outlive the readings, and hours the minutes', async () => {
  await scene.store(every(SECOND_MS));
  await scene.compact();
  const before = await Promise.all(WIDTHS.map(widthMs => buckets('a', widthMs)));
  await expireHistory(pool, { ...KEPT, raw: 3 }, DAY + 5 * DAY_MS);
  assert.equal((await pool.query('select from holdfast.chunk')).rowCount, 0);
  for (const [i, widthMs] of WIDTHS.entries()) assert.deepEqual(await buckets('a', widthMs), before[i]);
  const hours = [DAY, DAY + HOUR_MS].map(hour => [hour, HOUR_MS]);
  assert.deepEqual(
    (await buckets('a', 30 * SECOND_MS)).wide.map(([from, span]) => [from, span]),
    hours,
    'nothing finer than a minute is left',
  );
  const series = [{ device: await scene.device('a'), metric: 't' }];
  const days = await storedDays(pool, RANGE);
  const chart = await downsample(pool, { series, range: RANGE, pointsMax: 150, days });
  assert.ok(chart.outcome === 'found');
  const [answer] = chart.series;
  assert.ok(answer?.level === 'minute');
  assert.equal(answer.buckets.length, 120);

  await expireHistory(pool, { ...KEPT, raw: 3, minutely: 4 }, DAY + 6 * DAY_MS);
  assert.deepEqual(await rows(), []);
  assert.deepEqual(
    (await buckets('a', MINUTE_MS)).wide.map(([from, span]) => [from, span]),
    hours,
  );
});

test('a type keeps its minutes for a time of its own', async () => {
  await scene.store([...every(SECOND_MS), ...every(SECOND_MS, 'b')]);
  await scene.compact();
  await pool.query(`insert into holdfast.device_type (id, retention) values ('brief', '{"minutely": 2}')`);
  await pool.query(`insert into holdfast.registry_device (site, device, type) values ('demo', 'b', 'brief')`);
  await expireHistory(pool, KEPT, DAY + 4 * DAY_MS);
  assert.deepEqual(await rows(), ['a 0: 60', 'a 1: 60']);
  await assertAsRead('b');
  await pool.query('truncate holdfast.registry_device, holdfast.device_type');
});

test('minutes of an hour that was thinned in part go when the thinned ones become part of the hour', async () => {
  const summary = {
    ...{ device: 'a', metric: 't', at: DAY, intervalMs: MINUTE_MS, sequence: 1 },
    ...{ minimum: -5, maximum: 5, mean: 1, count: 10 },
  };
  await scene.store(every(SECOND_MS), [summary]);
  await scene.compact();
  await assertAsRead('a');
  await expireHistory(pool, { ...KEPT, raw: 3 }, DAY + 5 * DAY_MS);
  assert.deepEqual(await rows(), ['a 1: 60']);
  const { buckets: found, wide } = await buckets('a', 30 * MINUTE_MS);
  assert.deepEqual(
    found.map(([from, count]) => [from, count]),
    [HOUR_MS, 1.5 * HOUR_MS].map(part => [DAY + part, 1800]),
  );
  assert.deepEqual(
    wide.map(([from, , min, , , count]) => [from, min, count]),
    [[DAY, -5, 3610]],
  );
});

test('minutes follow a name, unless both have something of the hour', async () => {
  const hour = (device: string, place: number) =>
    every(SECOND_MS, device, DAY + place * HOUR_MS).slice(0, 3600);
  await scene.store([...hour('a', 0), ...hour('b', 0), ...hour('a', 1)]);
  await scene.store(every(30 * SECOND_MS, 'b', DAY + 2 * HOUR_MS).slice(0, 100));
  await scene.store(hour('a', 2));
  await scene.compact();
  assert.deepEqual(await rows(), ['a 0: 60', 'a 1: 60', 'a 2: 60', 'b 0: 60']);
  await pool.query(`insert into holdfast.device_alias (site, alias, device) values ('demo', 'a', 'b')`);
  for (const _ of ['once', 'and again']) {
    await moveHistory(pool);
    assert.deepEqual(await rows(), ['b 1: 60']);
    await assertAsRead('b');
  }
  await pool.query('truncate holdfast.device_alias');
});

test('numbers whose sum is more than a double holds have no minutes', async () => {
  const large = every(SECOND_MS).map(message => ({ ...message, metrics: { t: 1.5e308 } }));
  await scene.store(large);
  await scene.compact();
  assert.deepEqual(await rows(), []);
});

test('what is packed is unpacked; joined in any parts, it is the fold of all', () => {
  const readings = fc.array(fc.tuple(fc.nat(60 * 60 - 1), anyNumber), { minLength: 1, maxLength: 80 });
  const ofSome = (some: readonly (readonly [number, number])[]): Minutes => {
    const at = some.map(([second]) => second * 1_000_000 + 7);
    const values = some.map(([, value]) => value);
    const aggregates = new Map();
    aggregateBy(MINUTE_MICROSECONDS, at, values, aggregates);
    return minutesOf(aggregates, [values]);
  };
  const plain = (minutes: Minutes) =>
    [...minutes].sort(([a], [b]) => a - b).map(([at, { sum: _, ...same }]) => [at, same]);
  fc.assert(
    fc.property(readings, fc.nat(80), (all, cut) => {
      const whole = ofSome(all);
      const joined = ofSome(all.slice(0, cut));
      joinMinutes(joined, ofSome(all.slice(cut)));
      assert.deepEqual(plain(joined), plain(whole));
      const packed = packMinutes(whole, 0);
      if (packed) assert.deepEqual(unpackMinutes(packed, 0), new Map([...whole].sort(([a], [b]) => a - b)));
      else assert.ok([...whole.values()].some(({ sum }) => !Number.isFinite(sum)));
      for (const [at, { sum, minimum, maximum }] of joined) {
        const size = 80 * Math.max(Math.abs(minimum), Math.abs(maximum));
        if (Number.isFinite(size)) assert.ok(isClose(sum, whole.get(at)!.sum, size), `${sum} at ${at}`);
      }
    }),
  );
});

test('the sum of decimals is a decimal', () => {
  const values = [0.1, 0.2, 0.3, 20.31];
  const aggregates = new Map();
  aggregateBy(MINUTE_MICROSECONDS, [1, 2, 3, 4], values, aggregates);
  assert.equal(minutesOf(aggregates, [values]).get(0)!.sum, 20.91);
});
