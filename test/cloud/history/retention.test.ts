/** What leaves history, with a real PostgreSQL: each level at its time, each type's own, and no number twice or never on the way. */
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { openDictionary } from '../../../cloud/history/dictionary.ts';
import { expireHistory } from '../../../cloud/history/retention.ts';
import { freshDatabase, startTestPostgres } from '../servers.ts';
import { compactEverything } from './compact-everything.ts';
import { storeMessages } from './messages.ts';

const pool = await freshDatabase(await startTestPostgres());
let dictionary = openDictionary(pool);
const DAY_MS = 86_400_000;
const NOW = Date.UTC(2026, 5, 1, 12);
const RETENTION = { raw: 90, minutely: 150, hourly: 200, daily: 400 };

const ago = (days: number) => NOW - days * DAY_MS;

const store = (device: string, days: readonly number[]) =>
  storeMessages(
    pool,
    dictionary,
    days.map(day => ({ device, log: 'one', at: ago(day), metrics: { t: day } })),
  );

async function daysLeft(device: string): Promise<number[]> {
  const { rows } = await pool.query<{ value: number }>(
    'select value from holdfast.reading where device = $1 order by value',
    [device],
  );
  return rows.map(({ value }) => value);
}

async function aggregates() {
  const { rows } = await pool.query(
    `select d.name as device, seconds, count::int, minimum, maximum, mean, first, last
       from holdfast.aggregate a join holdfast.device d on d.id = a.device order by device, seconds, at`,
  );
  return rows;
}

beforeEach(async () => {
  dictionary = openDictionary(pool);
  await pool.query(
    'truncate holdfast.message, holdfast.chunk, holdfast.aggregate, holdfast.minutes, holdfast.summary',
  );
  await pool.query('truncate holdfast.registry_device, holdfast.device_type');
});

test('readings go when their day is over that long ago, with its tables; hours and days stay', async () => {
  await store('a', [1, 89, 92, 150]);
  await compactEverything(pool, NOW);
  await expireHistory(pool, RETENTION, NOW);
  assert.deepEqual(await daysLeft('a'), [1, 89]);
  assert.equal((await aggregates()).length, 4);
  const { rows } = await pool.query(
    `select count(*)::int as tables from holdfast.day_tables() where day in ('2026-03-01', '2026-01-02')`,
  );
  assert.equal(rows[0].tables, 0);
  await expireHistory(pool, RETENTION, NOW);
  assert.deepEqual(await daysLeft('a'), [1, 89]);
});

test('what is not compacted yet goes as well', async () => {
  await store('a', [1, 92]);
  await expireHistory(pool, RETENTION, NOW);
  assert.deepEqual(await daysLeft('a'), [1]);
});

test('a type has its own times, shorter or longer than those of everybody', async () => {
  await pool.query(
    `insert into holdfast.device_type (id, retention)
     values ('brief', '{"raw": 7}'), ('long', '{"raw": 300, "hourly": 1000}')`,
  );
  await pool.query(
    `insert into holdfast.registry_device (site, device, type) values ('demo', 'b', 'brief'), ('demo', 'l', 'long')`,
  );
  const days = [1, 10, 100, 250, 350];
  for (const device of ['a', 'b', 'l']) await store(device, days);
  await compactEverything(pool, NOW);
  await expireHistory(pool, RETENTION, NOW);
  assert.deepEqual(await daysLeft('a'), [1, 10]);
  assert.deepEqual(await daysLeft('b'), [1]);
  assert.deepEqual(await daysLeft('l'), [1, 10, 100, 250]);
  assert.deepEqual(
    (await aggregates()).filter(({ device }) => device === 'l').map(({ seconds }) => seconds),
    days.map(() => 3600),
  );
});

test('hours become days, which add up; days go in their turn', async () => {
  await storeMessages(
    pool,
    dictionary,
    [0, 1, 2, 3].flatMap(hour =>
      [10, 20].map(t => ({
        device: 'a',
        log: 'one',
        at: Date.UTC(2025, 9, 1, hour, t),
        metrics: { t: t + hour },
      })),
    ),
  );
  await store('a', [450]);
  await compactEverything(pool, NOW);
  await expireHistory(pool, RETENTION, NOW);
  assert.deepEqual(await aggregates(), [
    { device: 'a', seconds: 86_400, count: 8, minimum: 10, maximum: 23, mean: 16.5, first: 10, last: 23 },
  ]);
});

test('what was thinned lives on in hours, or in days where its interval is longer', async () => {
  await store('a', [100]);
  await compactEverything(pool, NOW);
  const summary = (interval: number, sequence: number) =>
    pool.query(
      `insert into holdfast.summary select to_timestamp($1 / 1000.0), $2, 1, d.id, m.id, $3, -5, 500, 10, 9
         from holdfast.device d, holdfast.metric m where d.name = 'a' and m.name = 't'`,
      [ago(100), sequence, interval],
    );
  await summary(60_000, 1);
  await summary(60_000, 2);
  await summary(6 * 3_600_000, 3);
  await expireHistory(pool, RETENTION, NOW);
  assert.deepEqual(await aggregates(), [
    {
      device: 'a',
      seconds: 3600,
      count: 19,
      minimum: -5,
      maximum: 500,
      mean: 280 / 19,
      first: 100,
      last: 100,
    },
    { device: 'a', seconds: 86_400, count: 9, minimum: -5, maximum: 500, mean: 10, first: null, last: null },
  ]);
  assert.equal((await pool.query('select from holdfast.summary')).rowCount, 0);
});
