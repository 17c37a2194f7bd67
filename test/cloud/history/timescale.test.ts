/**
 * Where history is kept, detected and moved: on stock PostgreSQL it says so; on TimescaleDB, at HOLDFAST_TEST_TIMESCALE_URL,
 * what was stored before is the same to the bit after the move, whatever goes on meanwhile (B, C).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import pg from 'pg';
import { dayTables } from '../../../cloud/history/day-tables.ts';
import { type Dictionary, openDictionary } from '../../../cloud/history/dictionary.ts';
import { dayStats } from '../../../cloud/history/query/stats.ts';
import { expireHistory } from '../../../cloud/history/retention.ts';
import { migrate, moveToTimescale } from '../../../cloud/migrate.ts';
import { atEnd, eventually, freshDatabase, startTestPostgres, timescaleUrl } from '../servers.ts';
import { compactEverything } from './compact-everything.ts';
import { storeMessages } from './messages.ts';

const server = await startTestPostgres();
const skip = timescaleUrl ? false : 'no TimescaleDB: HOLDFAST_TEST_TIMESCALE_URL is not set';
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const DAY = Date.UTC(2026, 0, 10);

const fresh = await freshDatabase(server);
const { timescale } = await migrate(fresh, 64);
const { rows: versions } = await fresh.query<{ server_version: string }>('show server_version');
const place =
  timescale.on === 'stock' ? 'stock' : `TimescaleDB ${timescale.version} (licence: ${timescale.licence}) on`;

test('where the history suite runs is said, and is what was asked for', t => {
  t.diagnostic(`note: history runs on ${place} PostgreSQL ${versions[0]!.server_version}`);
  assert.ok(Number.parseInt(versions[0]!.server_version, 10) >= 15);
  assert.equal(timescale.on, timescaleUrl ? 'timescale' : 'stock');
  if (timescale.on === 'stock') assert.equal(timescale.why, 'the server has no TimescaleDB');
});

/** Of both kinds of rows over three days, late ones among them. */
async function stored(pool: pg.Pool, dictionary: Dictionary): Promise<void> {
  const wave = (first: number, count: number) =>
    storeMessages(
      pool,
      dictionary,
      Array.from({ length: count }, (_, i) => ({
        device: `d${i % 3}`,
        log: 'one',
        at: DAY + ((first + i) % 70) * HOUR_MS + i,
        metrics: { t: (first + i) / 8, on: i % 2 === 0, mode: `m${i % 5}` },
      })),
    );
  await wave(0, 600);
  await compactEverything(pool, DAY + 50 * HOUR_MS);
  await wave(7, 300);
}

async function everything(pool: pg.Pool) {
  const readings = await pool.query<{ line: string }>(
    `select concat_ws(' ', site, device, metric, time, value, text, truth, kind, log, sequence, element) as line
       from holdfast.reading order by log, sequence, element, metric`,
  );
  const range = await pool.query<{ line: string }>(
    `select concat_ws(' ', device, metric, time, value, text) as line
       from holdfast.readings(null, 'd1', null, '2026-01-10 12:00Z', '2026-01-12 12:00Z') order by 1`,
  );
  const aggregates = await pool.query(
    'select * from holdfast.aggregate order by device, metric, seconds, at',
  );
  return { readings: readings.rows, range: range.rows, aggregates: aggregates.rows };
}

const kinds = async (pool: pg.Pool): Promise<string> =>
  (
    await pool.query<{ kinds: string }>(
      `select string_agg(distinct relkind::text, '') as kinds from pg_class
        where oid in ('holdfast.message'::regclass, 'holdfast.chunk'::regclass)`,
    )
  ).rows[0]!.kinds;

test('history that has readings stays where it is, and is moved on demand: every reading the same', {
  skip,
}, async () => {
  const pool = await freshDatabase(server, { timescale: 'off' });
  assert.equal(await kinds(pool), 'p');
  await stored(pool, openDictionary(pool));
  const role = `reader_${process.pid}`;
  await pool.query(`create role ${role}`);
  atEnd(async () => {
    await fresh.query(`drop role ${role}`);
  });
  await pool.query(`grant usage on schema holdfast to ${role}; grant select on holdfast.message to ${role}`);
  const before = await everything(pool);
  assert.equal(before.readings.length, 2700);
  assert.ok(before.range.length > 100);
  const found = await migrate(pool, 64);
  assert.match(found.timescale.on === 'stock' ? found.timescale.why : '', /to-timescale/);

  const moved = await moveToTimescale(pool);
  assert.equal(moved?.on === 'timescale' && moved.moved, true);
  assert.equal(await kinds(pool), 'r');
  assert.deepEqual(await everything(pool), before);
  const { rows } = await pool.query(
    `select hypertable_name as name, num_chunks::int as chunks from timescaledb_information.hypertables order by 1`,
  );
  assert.deepEqual(
    rows.map(({ name, chunks }) => [name, chunks >= 3]),
    [
      ['chunk', true],
      ['message', true],
    ],
  );
  await pool.query(`set role ${role}; select from holdfast.message limit 1; reset role`);
  await pool.query(`drop owned by ${role}`);
  const again = await moveToTimescale(pool);
  assert.equal(again?.on === 'timescale' && again.moved, false);
  assert.equal((await migrate(pool, 64)).timescale.on, 'timescale');

  // Life goes on: what is late joins what was moved, and days go as a whole.
  await storeMessages(pool, openDictionary(pool), [
    { device: 'd1', log: 'two', at: DAY + 5, metrics: { t: 1 } },
    { device: 'd1', log: 'two', at: DAY + 9 * DAY_MS, metrics: { t: 2 } },
  ]);
  await compactEverything(pool, DAY + 12 * DAY_MS);
  assert.equal((await pool.query('select from holdfast.message')).rowCount, 0);
  const { readings } = await everything(pool);
  assert.equal(readings.length, 2702);
  await expireHistory(pool, { raw: 5, minutely: 5, hourly: 100, daily: 100 }, DAY + 10 * DAY_MS);
  assert.equal((await everything(pool)).readings.length, 1);
  const { rows: left } = await pool.query(
    `select count(*)::int as days from timescaledb_information.chunks where range_end <= '2026-01-13 00:00Z'`,
  );
  assert.equal(left[0].days, 0);
});

test('a move that is ended has done nothing, and is begun again', { skip }, async () => {
  const pool = await freshDatabase(server, { timescale: 'off' });
  await stored(pool, openDictionary(pool));
  const before = await everything(pool);
  const reader = await pool.connect();
  await reader.query('begin; select from holdfast.message limit 1');
  const mover = new pg.Pool({
    connectionString: pool.options.connectionString!,
    max: 1,
    application_name: 'mover',
  });
  mover.on('error', () => {});
  mover.on('connect', client => client.on('error', () => {}));
  atEnd(() => mover.end());
  const failed = moveToTimescale(mover).then(
    moved => (moved?.on === 'stock' ? 'not moved' : 'moved'),
    () => 'ended',
  );
  await eventually('it waits for the reader', async () => {
    const { rowCount } = await pool.query(
      `select from pg_stat_activity where application_name = 'mover' and wait_event in ('relation', 'PgSleep')`,
    );
    return rowCount === 1;
  });
  await pool.query(`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'mover'`);
  assert.notEqual(await failed, 'moved');
  assert.deepEqual(await everything(pool), before);
  assert.equal(await kinds(pool), 'p');

  const second = moveToTimescale(mover);
  await reader.query('commit');
  reader.release();
  assert.equal((await second)?.on, 'timescale');
  assert.deepEqual(await everything(pool), before);
});

test('writers and compaction go on while history is moved: every number once', { skip }, async () => {
  const pool = await freshDatabase(server, { timescale: 'off', poolMax: 6 });
  const dictionary = openDictionary(pool);
  let value = 0;
  const store = () =>
    storeMessages(
      pool,
      dictionary,
      Array.from({ length: 20 }, () => {
        value++;
        return {
          device: `d${value % 5}`,
          log: 'one',
          at: DAY + ((value * 7919) % (80 * HOUR_MS)),
          metrics: { t: value },
        };
      }),
    );
  for (let i = 0; i < 20; i++) await store();
  let moving = true;
  const work = async (one: () => Promise<unknown>) => {
    while (moving) await one();
    await one();
  };
  // As the history writer does with what was not committed.
  const storeUntilTaken = async () => {
    const before = value;
    for (;;) {
      try {
        return await store();
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'HF004');
        value = before;
      }
    }
  };
  // Where days are copied their old tables are gone: the next pass finds the new ones.
  const compactMeanwhile = () =>
    compactEverything(pool, DAY + 4 * DAY_MS).catch(error => assert.match(error.message, /does not exist/));
  const others = [work(storeUntilTaken), work(compactMeanwhile)];
  const moved = await moveToTimescale(pool);
  moving = false;
  await Promise.all(others);
  assert.equal(moved?.on === 'timescale' && moved.moved, true);
  await compactEverything(pool, DAY + 5 * DAY_MS);
  const seen = await pool.query(
    'select count(*)::int as count, sum(value)::float8 as sum from holdfast.reading',
  );
  const counted = await pool.query(
    `select sum(count)::int as count, round(sum(mean * count))::float8 as sum from holdfast.aggregate`,
  );
  const expected = { count: value, sum: (value * (value + 1)) / 2 };
  assert.deepEqual([seen.rows[0], counted.rows[0]], [expected, expected]);
});

test('what people made upon the tables is named, and nothing is moved', { skip }, async () => {
  const pool = await freshDatabase(server, { timescale: 'off' });
  await stored(pool, openDictionary(pool));
  await pool.query('create view mine as select at, device from holdfast.message');
  const refused = await moveToTimescale(pool);
  assert.ok(refused?.on === 'stock');
  assert.match(refused.why, /because other objects depend on it.*view [a-z.]*mine/);
  assert.equal(await kinds(pool), 'p');
  await pool.query('drop view mine');
  assert.equal((await moveToTimescale(pool))?.on, 'timescale');
});

test('without the right to make the extension, history stays on stock and says why', { skip }, async () => {
  const pool = await freshDatabase(server, { timescale: 'off' });
  const role = `plain_${process.pid}`;
  await pool.query(`create role ${role} login password 'plain'`);
  atEnd(async () => {
    await pool.query(`drop owned by ${role}`);
    await pool.query(`drop role ${role}`);
  });
  await pool.query(`grant usage, create on schema holdfast, public to ${role};
    grant all on all tables in schema holdfast, public to ${role}`);
  const url = new URL(pool.options.connectionString!);
  Object.assign(url, { username: role, password: 'plain' });
  const plain = new pg.Pool({ connectionString: url.href, max: 1 });
  try {
    const { timescale } = await migrate(plain, 64);
    assert.ok(timescale.on === 'stock');
    assert.match(timescale.why, /permission denied/);
  } finally {
    await plain.end();
  }
});

test('rows that make their day by themselves are found, compacted, counted, and go with it', {
  skip,
}, async () => {
  const pool = await freshDatabase(server);
  const dictionary = openDictionary(pool);
  await storeMessages(pool, dictionary, [{ device: 'a', log: 'one', at: DAY, metrics: { t: 1 } }]);
  // The writer still believes that the day is there.
  for (const { message, chunk } of await dayTables(pool)) await pool.query(`drop table ${message}, ${chunk}`);
  await storeMessages(pool, dictionary, [{ device: 'a', log: 'one', at: DAY + 1, metrics: { t: 2 } }]);
  const statsOf = async () => {
    const days = await dayTables(pool);
    assert.equal(days.length, 1);
    const { hotReadings, chunkReadings } = await dayStats(pool, days[0]!);
    return [hotReadings, chunkReadings];
  };
  assert.deepEqual(await statsOf(), [1, 0]);
  await compactEverything(pool, DAY + 2 * DAY_MS);
  assert.deepEqual(await statsOf(), [0, 1]);
  await expireHistory(pool, { raw: 1, minutely: 1, hourly: 100, daily: 100 }, DAY + 5 * DAY_MS);
  assert.deepEqual(await dayTables(pool), []);
});
