/** The history writer when PostgreSQL refuses, goes away, or hears nonsense. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { before, test } from 'node:test';
import pg, { type Pool } from 'pg';
import { dayTables } from '../../cloud/history/day-tables.ts';
import { type Link, openLink } from '../../deploy/local/link.ts';
import type { Server } from '../../deploy/local/servers.ts';
import { boundClock } from '../../protocol/batch-rows.ts';
import { LOG_ID } from '../edge-gateway/frames.ts';
import {
  batchOf,
  counted,
  item,
  ledger,
  marks,
  NOW,
  openWriter,
  range,
  readings,
  type Sent,
  SITE,
} from './history.ts';
import { atEnd, eventually, freshDatabase, startTestPostgres } from './servers.ts';
import { foldBatch, tooHot } from './twins.ts';

let server: Server;
before(async () => {
  server = await startTestPostgres();
});

const numbers = async (pool: Pool) => (await readings(pool)).map(({ value }) => value);

test('rows that PostgreSQL refuses are found and quarantined; all others are stored (H)', async () => {
  const pool = await freshDatabase(server);
  await pool.query('alter table holdfast.message add constraint no_13 check (numbers[1] <> 13)');
  const writer = await openWriter(pool);
  const bad = new Set([7, 300, 301, 500]);
  const batches = range(0, 4).map(index =>
    batchOf(
      1 + index * 125,
      range(0, 125).map((at): Sent => {
        const n = 1 + index * 125 + at;
        return ['devices/a/telemetry', { n: bad.has(n) ? 13 : n + 1000 }];
      }),
    ),
  );
  await writer.write(...batches.map(batch => item(batch)));
  assert.deepEqual(
    await numbers(pool),
    range(1, 501)
      .filter(n => !bad.has(n))
      .map(n => n + 1000),
  );
  const found = await marks(pool);
  assert.deepEqual(
    found.map(mark => mark.range),
    ['[7,8)', '[300,301)', '[301,302)', '[500,501)'],
  );
  for (const { status, reason } of found) {
    assert.equal(status, 'quarantined');
    assert.match(reason, /^refused by PostgreSQL: .*no_13/);
  }
  assert.equal(await ledger(pool), '{[1,501)}');
  assert.equal(writer.told().toString(), '{[1,501)}');
});

test('the cursor moves only when the whole of a refused transaction is through', async () => {
  const pool = await freshDatabase(server);
  await pool.query('alter table holdfast.message add constraint no_13 check (numbers[1] <> 13)');
  const writer = await openWriter(pool);
  await writer.write(item(counted(10, 8), { stream: { created: 's', sequence: 42 } }));
  const { rows } = await pool.query('select stream_sequence::int as at from holdfast.stream_cursor');
  assert.deepEqual(rows, [{ at: 42 }]);
  assert.deepEqual(await numbers(pool), [10, 11, 12, 14, 15, 16, 17]);
});

test('text that PostgreSQL cannot hold: the value is quarantined, a name is made readable, the rest goes on (H)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  // A gateway lets neither through; a batch could carry both.
  const batch = batchOf(1, [
    ['devices/a/telemetry', { n: 1 }],
    ['devices/a/telemetry', { s: 'x' }],
    ['devices/a/telemetry', { s: 'y' }],
    ['devices/a/telemetry', { odd: 4 }],
  ]);
  const metrics = batch.metrics.map(metric => {
    if (metric.type === 'string') return { ...metric, values: ['x\0', 'y'] };
    return metric.name === 'odd' ? { ...metric, name: 'o\0d' } : metric;
  });
  await writer.write(item({ ...batch, metrics }));
  assert.deepEqual(
    (await readings(pool)).map(({ sequence, metric, text, value }) => [sequence, metric, text ?? value]),
    [
      [1, 'n', 1],
      [3, 's', 'y'],
      [4, 'o␀d', 4],
    ],
  );
  assert.deepEqual(
    (await marks(pool)).map(mark => mark.range),
    ['[2,3)'],
  );
});

test('a gateway whose clock stands before all time stops nobody (H, S)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const batch = batchOf(1, [
    ['devices/a/telemetry', { temperature: 40 }],
    ['nothing/fits', '1'],
  ]);
  batch.rows.at.fill(-1e300);
  batch.rows.receivedAt.fill(-1e300);
  boundClock(batch, NOW);
  const setAside = batch.setAside.map(entry => ({ ...entry, receivedAt: -1e300 }));
  const { changes, transitions } = foldBatch(SITE, new Map(), batch, [tooHot]);
  const twins = [...changes.values()].map(({ after }) => after);
  await writer.write(item({ ...batch, setAside }, { twins, transitions }), item(counted(3, 1)));
  assert.equal(await ledger(pool), '{[1,4)}');
  assert.deepEqual(await numbers(pool), [3]);
});

test('a day whose table was taken away under the writer is made again, and no row is to blame (A)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  await writer.write(item(counted(1, 2)));
  const days = await dayTables(pool);
  assert.ok(days.length > 0);
  for (const { message } of days) await pool.query(`drop table ${message}`);
  await writer.write(item(counted(3, 2)));
  assert.deepEqual(await numbers(pool), [3, 4]);
  assert.deepEqual(await marks(pool), []);
});

test('what is refused along with the rows does not keep the writer busy without a pause', async () => {
  const pool = await freshDatabase(server);
  await pool.query('alter table holdfast.twin add constraint no_a check (device <> $$a$$)');
  const writer = await openWriter(pool);
  const batch = batchOf(1, [
    ['devices/a/telemetry', { n: 1 }],
    ['devices/b/telemetry', { n: 2 }],
  ]);
  const { changes } = foldBatch(SITE, new Map(), batch, []);
  writer.enqueue(item(batch, { twins: [...changes.values()].map(({ after }) => after) }));
  await eventually('what can be stored is', async () => (await numbers(pool)).length > 0);
  // Somebody repairs it: the writer goes on by itself.
  await pool.query('alter table holdfast.twin drop constraint no_a');
  await writer.write(item(counted(3, 1)));
  assert.equal(await ledger(pool), '{[1,4)}');
  const { rows } = await pool.query('select device from holdfast.twin order by device');
  assert.deepEqual(rows, [{ device: 'a' }, { device: 'b' }]);
});

test('PostgreSQL is killed again and again in the middle of commits: everything exactly once (A, B, R)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const batches = 60;
  const size = 50;
  for (let kill = 0; kill < 3; kill++) {
    for (let index = 0; index < batches / 3; index++) {
      writer.enqueue(item(counted(1 + (kill * (batches / 3) + index) * size, size)));
    }
    const before = writer.notices.length;
    await eventually('a commit has happened', () => writer.notices.length > before);
    await server.kill();
    await server.start();
  }
  await writer.write(item(counted(1 + batches * size, 1)));
  assert.deepEqual(await numbers(pool), range(1, 2 + batches * size));
  assert.equal(await ledger(pool), `{[1,${2 + batches * size})}`);
});

test('the answer to a commit is lost: the rows are there once, and the writer goes on (B)', async () => {
  const pool = await freshDatabase(server);
  const there = new URL(String(pool.options.connectionString));
  let cutAnswers = 0;
  // Passes everything on, and when told to, ends the connection in place of the answer to the next COMMIT.
  const proxy = createServer(client => {
    const upstream = connect(Number(there.port), there.hostname);
    let committing = false;
    client.on('data', chunk => {
      committing ||= chunk.includes('holdfast.settle(');
      upstream.write(chunk);
    });
    upstream.on('data', chunk => {
      if (committing && cutAnswers > 0 && chunk.includes('COMMIT')) {
        cutAnswers--;
        client.destroy();
        upstream.destroy();
      } else client.write(chunk);
    });
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const through = new pg.Pool({
    host: '127.0.0.1',
    port: (proxy.address() as AddressInfo).port,
    database: there.pathname.slice(1),
    user: there.username,
    password: there.password,
  });
  through.on('error', () => {});
  atEnd(async () => {
    await through.end();
    proxy.close();
  });

  const writer = await openWriter(through);
  await writer.write(item(counted(1, 3)));
  cutAnswers = 2;
  await writer.write(item(counted(4, 3)));
  await writer.write(item(counted(6, 3)));
  assert.equal(cutAnswers, 0);
  assert.deepEqual(await numbers(pool), range(1, 9));
  assert.equal(await ledger(pool), '{[1,9)}');
});

test('PostgreSQL is away when the writer closes: it ends within its time, and nothing is lost for the next (A)', async () => {
  const pool = await freshDatabase(server);
  const first = await openWriter(pool);
  await first.write(item(counted(1, 5)));
  await server.kill();
  first.enqueue(item(counted(6, 5)));
  await first.close(200);
  assert.equal(first.told().toString(), '{[1,6)}');
  await server.start();
  await eventually('it answers', async () => (await pool.query('select 1')).rowCount === 1);
  const second = await openWriter(pool);
  await second.write(item(counted(1, 10)));
  assert.deepEqual(await numbers(pool), range(1, 11));
});

/** A pool that reaches the database of `pool` over a link that can go silent. */
async function poolOverLink(pool: Pool): Promise<{ link: Link; through: Pool }> {
  const { hostname, port, username, password, pathname } = new URL(pool.options.connectionString!);
  const link = await openLink({ host: hostname, port: Number(port) });
  const through = new pg.Pool({
    host: '127.0.0.1',
    port: link.port,
    database: pathname.slice(1),
    user: username,
    password,
    connectionTimeoutMillis: 200,
    query_timeout: 200,
  });
  through.on('error', () => {});
  atEnd(async () => {
    await link.close();
    await through.end();
  });
  return { link, through };
}

/** Stalls the link while PostgreSQL waits for a lock in the middle of the statement. */
async function stallWithin(pool: Pool, link: Link, statement: RegExp): Promise<void> {
  await eventually('it is on its way', async () => {
    const { rows } = await pool.query(`select query from pg_stat_activity where wait_event_type = 'Lock'`);
    return rows.some(({ query }) => statement.test(query));
  });
  link.stall();
}

test('a connection that goes silent is given up, at rest or in the middle of a commit: everything once (A, B, R)', async () => {
  const pool = await freshDatabase(server);
  const { link, through } = await poolOverLink(pool);
  const writer = await openWriter(through, { commitTimeoutMs: 200 });
  await writer.write(item(counted(1, 3)));

  link.stall();
  writer.enqueue(item(counted(4, 3)));
  await eventually('the silent connections are given up', () => through.totalCount === 0);
  link.heal();
  await writer.write(item(counted(7, 3)));
  assert.deepEqual(await numbers(pool), range(1, 10));

  for (const [index, [lock, statement]] of (
    [
      ['lock table holdfast.message in access exclusive mode', /copy/i],
      ['lock table holdfast.gateway_log in access exclusive mode', /settle/],
    ] as const
  ).entries()) {
    const blocker = await pool.connect();
    await blocker.query(`begin; ${lock}`);
    writer.enqueue(item(counted(10 + index * 3, 3)));
    await stallWithin(pool, link, statement);
    await blocker.query('rollback');
    blocker.release();
    await eventually('the silent connection is given up', () => through.totalCount === 0);
    link.heal();
    await writer.write(item(counted(10 + index * 3, 3)));
  }
  assert.deepEqual(await numbers(pool), range(1, 16));
  assert.equal(await ledger(pool), '{[1,16)}');
});

test('the writer closes within its time while a commit hangs', async () => {
  const pool = await freshDatabase(server);
  const { link, through } = await poolOverLink(pool);
  // Longer than the test may take: only the deadline of `close` can end it.
  through.options.query_timeout = 600_000;
  const writer = await openWriter(through, { commitTimeoutMs: 600_000 });
  await writer.write(item(counted(1, 3)));
  const blocker = await pool.connect();
  await blocker.query('begin; lock table holdfast.message in access exclusive mode');
  writer.enqueue(item(counted(4, 3)));
  await stallWithin(pool, link, /copy/i);
  await writer.close(100);
  await blocker.query('rollback');
  blocker.release();
  assert.equal(writer.told().toString(), '{[1,4)}');
  link.heal();
});

test('an open query on history does not stop the first reading of a new day', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  await writer.write(item(counted(1, 1)));
  const reader = await pool.connect();
  try {
    await reader.query('begin');
    assert.equal((await reader.query('select * from holdfast.reading')).rowCount, 1);
    const yesterday = { ts: NOW - 86_400_000, n: 2 };
    await writer.write(item(batchOf(2, [['devices/pump/telemetry', yesterday]])));
    assert.deepEqual(await numbers(pool), [1, 2]);
  } finally {
    await reader.query('rollback');
    reader.release();
  }
  const { rows } = await pool.query(
    `select count(*)::int as missing from holdfast.day_tables() where parent = 'message'
        and not exists (select from pg_index x join pg_index y using (indkey)
                         where x.indrelid = relation and y.indexrelid = 'holdfast.message_device_at'::regclass)`,
  );
  assert.deepEqual(rows, [{ missing: 0 }], 'every day has its part of the index');
});

test('more twins than PostgreSQL takes at a time are written in parts', async () => {
  const pool = await freshDatabase(server);
  await pool.query(`
    create function at_most_three() returns trigger language plpgsql as $$ begin
      if (select count(*) from added) > 3 then raise 'too many at a time' using errcode = '54000'; end if;
      return null;
    end $$;
    create trigger at_most_three after insert on holdfast.twin referencing new table as added
      for each statement execute function at_most_three()`);
  const writer = await openWriter(pool);
  const items = range(0, 5).map(index => {
    const batch = batchOf(1 + index * 2, [
      [`devices/a${index}/telemetry`, { n: 1 }],
      [`devices/b${index}/telemetry`, { n: 2 }],
    ]);
    const { changes } = foldBatch(SITE, new Map(), batch, []);
    return item(batch, { twins: [...changes.values()].map(({ after }) => after) });
  });
  await writer.write(...items);
  const { rows } = await pool.query('select count(*)::int as twins from holdfast.twin');
  assert.deepEqual(rows, [{ twins: 10 }]);
  assert.equal(await ledger(pool), '{[1,11)}');
  assert.deepEqual(await marks(pool), []);
  const cursor = await pool.query('select stream_sequence::int as at from holdfast.stream_cursor');
  assert.deepEqual(cursor.rows, [{ at: items.at(-1)!.stream!.sequence }]);
});

test('an owner that is paused before its last round trip holds up nobody with its marks (D)', async () => {
  const pool = await freshDatabase(server);
  const { link, through } = await poolOverLink(pool);
  through.options.query_timeout = 600_000;
  const old = await openWriter(through, { commitTimeoutMs: 600_000 });
  await old.write(item(counted(1, 1)));
  const lost = (firstSequence: number) => ({
    settlement: 'lost' as const,
    logId: LOG_ID,
    firstSequence,
    count: 5,
    reason: "it's gone \\ \0 \ud800",
  });
  // What the old owner has not sent by the time its marks wait for a lock never arrives.
  const blocker = await pool.connect();
  await blocker.query('begin; lock table holdfast.ledger_mark in access exclusive mode');
  old.enqueue(item(lost(2)));
  await stallWithin(pool, link, /ledger_mark/);
  await blocker.query('rollback');
  blocker.release();
  const young = await openWriter(pool);
  await young.write(item(lost(2)));
  assert.equal(await ledger(pool), '{[1,7)}');
  assert.deepEqual(await marks(pool), [
    { range: '[2,7)', status: 'lost', messages: 5, reason: "it's gone \\ \u2400 \ufffd" },
  ]);
  await old.close(0);
  link.heal();
});

test('a transaction that takes too long is taken apart until it does not; nothing is quarantined for it (A, R)', async () => {
  const pool = await freshDatabase(server);
  // As slow as the rows are many, in a database that gives a statement so long.
  await pool.query(`
    create function slow() returns trigger language plpgsql as $$ begin
      if (select count(*) from added) > 10 then perform pg_sleep(60); end if;
      return null;
    end $$;
    create trigger slow after insert on holdfast.message referencing new table as added
      for each statement execute function slow()`);
  const hasty = new pg.Pool({ connectionString: pool.options.connectionString!, statement_timeout: 100 });
  hasty.on('error', () => {});
  atEnd(() => hasty.end());
  const writer = await openWriter(hasty);
  await writer.write(item(counted(1, 30)), item(counted(31, 10)));
  assert.deepEqual(await numbers(pool), range(1, 41));
  assert.deepEqual(await marks(pool), []);
  // The same by the deadline of this side, which says nothing of whether it is written.
  const patient = await openWriter(pool, { commitTimeoutMs: 200 });
  await patient.write(item(counted(41, 30)));
  assert.deepEqual(await numbers(pool), range(1, 71));
  assert.deepEqual(await marks(pool), []);
  assert.equal(await ledger(pool), '{[1,71)}');
});
