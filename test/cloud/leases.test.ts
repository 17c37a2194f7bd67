/** Migration, leases and epochs against a real PostgreSQL. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import {
  beat,
  type Claim,
  claimPartitions,
  leave,
  lostPartitions,
  releasePartition,
} from '../../cloud/cluster/leases.ts';
import { migrate } from '../../cloud/migrate.ts';
import type { Server } from '../../deploy/local/servers.ts';
import { eventually, freshDatabase, startTestPostgres } from './servers.ts';

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

const ids = (count: number) => Array.from({ length: count }, (_, id) => id);
const holder = (id: string) => ({ id, name: id, actors: true });
const epochsOf = (claims: readonly Claim[]) => new Map(claims.map(({ id, epoch }) => [id, epoch]));
test('what a living node owns cannot be claimed; what a dead one owned can, under a higher epoch (D)', async () => {
  const pool = await freshDatabase(server);
  await beat(pool, holder('one'), false);
  const first = await claimPartitions(pool, 'one', ids(8), 64);
  assert.deepEqual(first.map(({ id }) => id).sort(), ids(8));
  assert.deepEqual(await lostPartitions(pool, epochsOf(first)), []);
  await beat(pool, holder('two'), false);
  assert.deepEqual(await claimPartitions(pool, 'two', ids(8), 64), []);

  await pool.query(
    "update holdfast.node set heartbeat_at = clock_timestamp() - interval '1 hour' where id = 'one'",
  );
  // PostgreSQL itself has just started: everybody has the time of a lease to say that they live.
  await eventually('the lease ends', async () => (await claimPartitions(pool, 'two', [0], 64)).length === 1);
  const second = await claimPartitions(pool, 'two', ids(8), 64);
  for (const { id, epoch } of second) assert.ok(epoch > epochsOf(first).get(id)!);
  assert.equal((await lostPartitions(pool, epochsOf(first))).length, 8);
  assert.deepEqual(await lostPartitions(pool, epochsOf(second)), []);
});

test('what is released is free at once; a release under an old epoch frees nothing', async () => {
  const pool = await freshDatabase(server);
  await beat(pool, holder('one'), false);
  await beat(pool, holder('two'), false);
  const [first] = await claimPartitions(pool, 'one', [3], 64);
  await releasePartition(pool, 3, first!.epoch);
  const [second] = await claimPartitions(pool, 'two', [3], 64);
  assert.ok(second!.epoch > first!.epoch);
  await releasePartition(pool, 3, first!.epoch);
  const view = await beat(pool, holder('one'), false);
  assert.equal(view.partitions.find(({ id }) => id === 3)?.owner, 'two');
  assert.deepEqual(
    view.nodes.map(({ id }) => id),
    ['one', 'two'],
  );
  await leave(pool, 'two');
  assert.deepEqual(
    (await beat(pool, holder('one'), false)).nodes.map(({ id }) => id),
    ['one'],
  );
});

test('a database restored from a backup gives no epoch that was given before (D)', async () => {
  const pool = await freshDatabase(server);
  const before = await claimPartitions(pool, 'one', ids(4), 64);
  await pool.query('update holdfast.partition set epoch = 3');
  const restored = await claimPartitions(pool, 'one', ids(4), 64);
  for (const { id, epoch } of restored) assert.ok(epoch > epochsOf(before).get(id)!);
  // A clock that went back does not stop it either.
  await pool.query('update holdfast.partition set epoch = $1', [9e15]);
  for (const { epoch } of await claimPartitions(pool, 'one', ids(4), 64)) assert.equal(epoch, 9e15 + 1);
});

test('claiming at the same time: every partition has one owner', async () => {
  const pool = await freshDatabase(server);
  const nodes = ['a', 'b', 'c'];
  for (const node of nodes) await beat(pool, holder(node), false);
  const claims = await Promise.all(nodes.map(node => claimPartitions(pool, node, ids(16), 64)));
  assert.equal(claims.flat().length, 16);
  for (const claim of claims) assert.deepEqual(await lostPartitions(pool, epochsOf(claim)), []);
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
  // On stock PostgreSQL they have no table, on TimescaleDB one of their own.
  for (const beside of ['2026-01-14T23:59:59.999Z', '2026-01-16T00:00:00Z'])
    await row(beside).catch(() => {});
  const { rows } = await pool.query(
    `select (select count(*)::int from holdfast.message where tableoid = relation) as rows
       from holdfast.day_tables() where parent = 'message' and day = '2026-01-15'`,
  );
  assert.deepEqual(rows, [{ rows: 2 }]);
});
