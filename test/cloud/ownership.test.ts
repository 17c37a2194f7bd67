/** Migration, partitions and epochs against a real PostgreSQL. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { migrate } from '../../cloud/migrate.ts';
import { claimPartitions, lostPartition } from '../../cloud/ownership.ts';
import type { Server } from '../../deploy/local/servers.ts';
import { freshDatabase, startTestPostgres } from './servers.ts';

let server: Server;
before(async () => {
  server = await startTestPostgres();
});

test('migrating again, from several nodes at a time, changes nothing', async () => {
  const pool = await freshDatabase(server);
  const { rows } = await pool.query('select id, partitions from holdfast.history');
  const again = await Promise.all([migrate(pool, 64), migrate(pool, 8), migrate(pool, 64)]);
  for (const { historyId, partitions } of again) {
    assert.equal(historyId, rows[0].id);
    assert.equal(partitions, 64, "the history's own number of partitions stays");
  }
});

test('two nodes that find an empty database both end up with the same history', async () => {
  const pool = await freshDatabase(server);
  await pool.query('drop schema holdfast cascade; drop table public.holdfast_migration');
  const both = await Promise.all([migrate(pool, 64), migrate(pool, 64)]);
  assert.equal(both[0].historyId, both[1].historyId);
});

test('every claim raises the epoch, and the node before knows that it lost (D)', async () => {
  const pool = await freshDatabase(server);
  const first = await claimPartitions(pool, 'one', 8);
  assert.deepEqual(first.map(({ id }) => id).sort(), [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.equal(await lostPartition(pool, first), null);
  const second = await claimPartitions(pool, 'two', 8);
  const before = new Map(first.map(({ id, epoch }) => [id, epoch]));
  for (const { id, epoch } of second) assert.ok(epoch > before.get(id)!);
  assert.notEqual(await lostPartition(pool, first), null);
  assert.equal(await lostPartition(pool, second), null);
});

test('a database restored from a backup gives no epoch that was given before (D)', async () => {
  const pool = await freshDatabase(server);
  const before = await claimPartitions(pool, 'one', 4);
  await pool.query('update holdfast.partition set epoch = 3');
  const restored = await claimPartitions(pool, 'one', 4);
  for (const [index, { epoch }] of restored.entries()) assert.ok(epoch > before[index]!.epoch);
  // A clock that went back does not stop it either.
  await pool.query('update holdfast.partition set epoch = $1', [9e15]);
  for (const { epoch } of await claimPartitions(pool, 'one', 4)) assert.equal(epoch, 9e15 + 1);
});

test('claiming at the same time: every partition has one owner', async () => {
  const pool = await freshDatabase(server);
  const claims = await Promise.all(['a', 'b', 'c'].map(node => claimPartitions(pool, node, 16)));
  const stillMine = await Promise.all(claims.map(claim => lostPartition(pool, claim)));
  assert.ok(stillMine.filter(lost => lost === null).length <= 1);
  const { rows } = await pool.query('select id, epoch from holdfast.partition order by id');
  const given = new Set(claims.flat().map(({ id, epoch }) => `${id}:${epoch}`));
  assert.equal(given.size, 48);
  for (const { id, epoch } of rows) assert.ok(given.has(`${id}:${epoch}`));
});

test('days are made once, whoever asks, and are days of UTC whatever the time zone of the session', async () => {
  const pool = await freshDatabase(server, { sessionTimeZone: 'Etc/GMT-14' });
  await Promise.all(Array.from({ length: 4 }, () => pool.query(`select holdfast.ensure_day('2026-01-15')`)));
  const row = (at: string) =>
    pool.query(
      'insert into holdfast.message (at, sequence, log, device, shape, element, kind) values ($1, 1, 1, 1, 1, 0, 0)',
      [at],
    );
  await row('2026-01-15T00:00:00Z');
  await row('2026-01-15T23:59:59.999999Z');
  await assert.rejects(row('2026-01-14T23:59:59.999Z'), /no partition/);
  await assert.rejects(row('2026-01-16T00:00:00Z'), /no partition/);
});
