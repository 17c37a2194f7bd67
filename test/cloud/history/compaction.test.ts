/**
 * The thread that compacts beside writers, with a real PostgreSQL that is killed, and connections that break at any statement: the
 * sum over the view is the same before and after, and every number is counted once (B, R).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import pg from 'pg';
import { type Compaction, startCompaction } from '../../../cloud/history/chunks/compaction.ts';
import { openDictionary } from '../../../cloud/history/dictionary.ts';
import { atEnd, eventually, freshDatabase, silentLogger, startTestPostgres } from '../servers.ts';
import { storeMessages } from './messages.ts';

const server = await startTestPostgres();
const HOUR_MS = 3_600_000;

async function scene() {
  const pool = await freshDatabase(server);
  const { rows } = await pool.query<{ name: string }>('select current_database() as name');
  const url = new URL(server.url);
  url.pathname = `/${rows[0]!.name}`;
  const compactions: Compaction[] = [];
  const start = () => {
    const options = { postgresUrl: url.href, graceMs: 0, everyMs: 20 };
    const compaction = startCompaction({ ...options, logger: silentLogger });
    compactions.push(compaction);
    return compaction;
  };
  atEnd(() => Promise.all(compactions.map(compaction => compaction.close())));
  let value = 0;
  const base = Math.floor(Date.now() / HOUR_MS) * HOUR_MS;
  const dictionary = openDictionary(pool);
  /** Of hours that are over, each with a number of its own. */
  const store = (messages: number) =>
    storeMessages(
      pool,
      dictionary,
      Array.from({ length: messages }, () => {
        value++;
        const at = base - 1 - ((value * 7919) % (30 * HOUR_MS));
        return { device: `d${value % 7}`, log: 'one', at, metrics: { t: value, half: value / 2 } };
      }),
    );
  const ask = async (query: string): Promise<[number, number]> => {
    const { rows } = await pool.query<{ count: number; sum: number }>(query);
    return [rows[0]!.count, rows[0]!.sum];
  };
  return {
    pool,
    start,
    store,
    expected: (): [number, number] => [value, (value * (value + 1)) / 2],
    seen: () => ask(`select count(*)::int, sum(value)::float8 from holdfast.reading where metric = 't'`),
    counted: () =>
      ask(
        `select sum(count)::int as count, round(sum(mean * count))::float8 as sum
           from holdfast.aggregate a join holdfast.metric m on m.id = a.metric where m.name = 't'`,
      ),
    left: async () => (await pool.query('select from holdfast.message')).rowCount,
  };
}

test('hours that are over become chunks by themselves, and two nodes do not do it twice', async () => {
  const { start, store, left, seen, counted, expected } = await scene();
  await store(500);
  const both = [start(), start()];
  await eventually('all is compacted', async () => (await left()) === 0);
  assert.deepEqual(await seen(), expected());
  assert.deepEqual(await counted(), expected());
  await eventually('it is said', () => both[0]!.total.messages + both[1]!.total.messages === 500);
});

test('connections that break at any statement, and writers meanwhile', async () => {
  const { pool, start, store, left, seen, counted, expected } = await scene();
  await store(400);
  const compaction = start();
  for (let round = 0; compaction.failures < 8; round++) {
    assert.ok(round < 2000, 'no connection was broken');
    await store(5);
    await pool.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = 'holdfast compaction' and state <> 'idle'`,
    );
    if (round % 20 === 0) assert.deepEqual(await seen(), expected());
  }
  await eventually('all is compacted', async () => (await left()) === 0);
  assert.deepEqual(await seen(), expected());
  assert.deepEqual(await counted(), expected());
});

test('PostgreSQL is killed again and again', async () => {
  const { start, store, left, seen, counted, expected } = await scene();
  await store(1500);
  start();
  for (let kill = 0; kill < 3; kill++) {
    await server.kill();
    await server.start();
    await store(300);
  }
  await eventually('all is compacted', async () => (await left()) === 0);
  assert.deepEqual(await seen(), expected());
  assert.deepEqual(await counted(), expected());
});

test('a row that cannot be compacted stays where it is, and is said; the others go on', async () => {
  const { pool, start, store, left, expected } = await scene();
  await store(50);
  const client = new pg.Client({ connectionString: pool.options.connectionString as string });
  await client.connect();
  atEnd(() => client.end());
  // Somebody wrote by hand: a message without the values of its shape.
  await client.query(
    `update holdfast.message set numbers = '{1}' where device = (select min(id) from holdfast.device)`,
  );
  const compaction = start();
  await eventually('it is said', () => compaction.failures > 0);
  await eventually('the others are compacted', async () => {
    const { rows } = await pool.query('select count(distinct device)::int as devices from holdfast.message');
    return rows[0].devices === 1;
  });
  assert.ok((await left())! > 0 && expected()[0] === 50);
});

test('a snapshot from before, as that of a dump, goes on seeing every reading once', async () => {
  const { pool, store, start, left, expected } = await scene();
  await store(300);
  const dump = await pool.connect();
  await dump.query('begin isolation level repeatable read');
  // A snapshot is taken with the first statement.
  await dump.query('select');
  start();
  await eventually('all is compacted', async () => (await left()) === 0);
  // It may do more than one pass meanwhile.
  await new Promise(resolve => setTimeout(resolve, 300));
  const { rows } = await dump.query(
    `select count(*)::int as count, sum(value)::float8 as sum from holdfast.reading where metric = 't'`,
  );
  await dump.query('commit');
  dump.release();
  assert.deepEqual([rows[0].count, rows[0].sum], expected());
});
