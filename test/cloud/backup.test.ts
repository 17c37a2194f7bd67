/** Backups: what begin notes and confirm covers, over the API and the command, on a real PostgreSQL; and what gateways hear. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { connect } from '@nats-io/transport-node';
import type { Pool } from 'pg';
import type { BackupOutlook } from '../../cloud/backup/outlook.ts';
import { backupOutlook } from '../../cloud/backup/outlook.ts';
import { BACKUPS_MAX, beginBackup, confirmBackup, readBackups } from '../../cloud/backup/store.ts';
import { openGatewayLink } from '../../cloud/gateway-link.ts';
import { migrate } from '../../cloud/migrate.ts';
import type { Server } from '../../deploy/local/servers.ts';
import { HelloReply } from '../../protocol/handshake.ts';
import { natsAddress } from '../../protocol/nats-address.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import { helloSubject } from '../../protocol/subjects.ts';
import { LOG_ID } from '../edge-gateway/frames.ts';
import { counted, GATEWAY, item, openWriter, SITE } from './history.ts';
import { openRegistryScene } from './registry-scene.ts';
import { reportOf } from './reports.ts';
import { atEnd, freshDatabase, silentLogger, startTestNats, startTestPostgres } from './servers.ts';

let server: Server;
before(async () => {
  server = await startTestPostgres();
});

const covered = async (pool: Pool): Promise<string> =>
  (await pool.query<{ covered: string }>('select covered::text from holdfast.gateway_log')).rows[0]!.covered;

test('what was settled when a backup was begun is covered when it is confirmed, and nothing that came later', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  await writer.write(item(counted(1, 10)));
  const first = await beginBackup(pool);
  assert.equal(first.messages, 10);
  await writer.write(item(counted(11, 5)));
  assert.equal((await readBackups(pool)).uncoveredMessages, 15, 'nothing is covered before it is confirmed');
  assert.equal(await covered(pool), '{}');

  const confirmed = await confirmBackup(pool, first.id);
  assert.ok(confirmed.outcome === 'confirmed' && confirmed.backup.confirmedAt !== null);
  assert.equal(await covered(pool), '{[1,11)}');
  assert.deepEqual(await confirmBackup(pool, first.id), confirmed, 'confirmed twice, nothing changes');
  assert.equal((await readBackups(pool)).uncoveredMessages, 5);

  const second = await beginBackup(pool);
  assert.equal(second.messages, 5, 'only what is in none yet');
  assert.ok(second.id > first.id);
  await confirmBackup(pool, second.id);
  assert.equal(await covered(pool), '{[1,16)}');
  const { rows } = await pool.query('select count(*)::int as count from holdfast.backup_log');
  assert.deepEqual(rows, [{ count: 0 }], 'notes go with their backup');
});

test('a number that is not known, and one that was begun before a confirmed one, are told apart', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  await writer.write(item(counted(1, 10)));
  const [older, newer] = [await beginBackup(pool), await beginBackup(pool)];
  assert.deepEqual(await confirmBackup(pool, 7), { outcome: 'unknown' });
  await confirmBackup(pool, newer.id);
  assert.deepEqual(await confirmBackup(pool, older.id), { outcome: 'overtaken', by: newer.id });
  assert.deepEqual(await confirmBackup(pool, newer.id + 1), { outcome: 'unknown' });
});

test('of backups begun and never confirmed the newest ten are kept (F)', async () => {
  const pool = await freshDatabase(server);
  const ids: number[] = [];
  for (let n = 0; n < BACKUPS_MAX + 3; n++) ids.push((await beginBackup(pool)).id);
  assert.deepEqual(
    (await readBackups(pool)).begun.map(backup => backup.id),
    ids.toReversed().slice(0, BACKUPS_MAX),
  );
  for (let n = 0; n < BACKUPS_MAX + 3; n++) await confirmBackup(pool, (await beginBackup(pool)).id);
  const { rows } = await pool.query('select count(*)::int as count from holdfast.backup');
  assert.deepEqual(rows, [{ count: BACKUPS_MAX }]);
});

test('confirmed while history is written, by several at a time: each ends, and what is covered is settled', async () => {
  const pool = await freshDatabase(server, { poolMax: 12 });
  const writer = await openWriter(pool);
  let next = 1;
  const writing = (async () => {
    for (let n = 0; n < 30; n++, next += 10) await writer.write(item(counted(next, 10)));
  })();
  await Promise.all(
    Array.from({ length: 5 }, async () => {
      for (let n = 0; n < 4; n++) await confirmBackup(pool, (await beginBackup(pool)).id);
    }),
  );
  await writing;
  const { rows } = await pool.query('select covered <@ settled as "isPart" from holdfast.gateway_log');
  assert.deepEqual(rows, [{ isPart: true }]);
});

test('a hello is told what of its logs is covered', async () => {
  const pool = await freshDatabase(server);
  const nats = await startTestNats();
  const [own, asking] = [await connect(natsAddress(nats.url)), await connect(natsAddress(nats.url))];
  atEnd(() => own.close());
  atEnd(() => asking.close());
  const link = await openGatewayLink({
    nats: own,
    pool,
    historyId: 'history',
    partitions: 64,
    streamCreated: async () => 'stream-1',
    logger: silentLogger,
  });
  atEnd(async () => link.close());
  const hello = async () => {
    const message = { wireVersions: [1], logs: [LOG_ID], ends: { [LOG_ID]: 11 }, report: reportOf() };
    const answer = await asking.request(helloSubject(SITE, GATEWAY), JSON.stringify(message), {
      timeout: 10_000,
    });
    const reply = HelloReply.parse(answer.json());
    assert.ok(reply.outcome === 'welcome');
    return reply;
  };
  const writer = await openWriter(pool);
  await writer.write(item(counted(1, 10)));
  const { id } = await beginBackup(pool);
  assert.deepEqual((await hello()).covered, {});
  await confirmBackup(pool, id);
  const reply = await hello();
  assert.deepEqual(reply.covered, { [LOG_ID]: RangeSet.of(1, 11) });
  // A cloud of before says nothing of it.
  const { covered: _, ...before } = { ...reply, settled: {} };
  assert.deepEqual((HelloReply.parse(before) as { covered: unknown }).covered, {});
});

test('tables that were restored under a writer are noticed: nothing goes under numbers of the old ones (B)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  await writer.write(item(counted(1, 10)));
  // As a restore does it, with another device under the number that the writer remembers for this one.
  await pool.query('drop schema holdfast cascade; drop table public.holdfast_migration');
  await migrate(pool, 64);
  await pool.query(`insert into holdfast.device (site, name) values ($1, 'another')`, [SITE]);
  await pool.query('update holdfast.partition set epoch = $1', [writer.epoch]);
  await writer.write(item(counted(11, 3)));
  const { rows } = await pool.query('select device, value from holdfast.reading order by sequence');
  assert.deepEqual(
    rows,
    [11, 12, 13].map(value => ({ device: 'pump', value })),
  );
});

test('the API: numbers, who may, and what it answers to a wrong number', async () => {
  const pool = await freshDatabase(server);
  const scene = await openRegistryScene({ pool });
  const empty = await scene.ask('GET', '/backups');
  assert.deepEqual(empty.body, {
    confirmed: null,
    begun: [],
    uncovered: { since: null, hours: 0, messages: 0 },
    keptHours: 72,
    state: 'empty',
  });
  await (await openWriter(pool)).write(item(counted(1, 10)));
  const begun = await scene.ask('POST', '/backups');
  assert.equal(begun.status, 200);
  assert.equal(begun.body.messages, 10);
  const { begun: waiting, state } = (await scene.ask('GET', '/backups')).body as BackupOutlook;
  assert.deepEqual([waiting.map(({ id }) => id), state], [[begun.body.id], 'fresh']);
  for (const id of ['7', 'seven', '99999999999999999999']) {
    const unknown = await scene.ask('POST', `/backups/${id}/confirm`);
    assert.equal(unknown.status, 404);
    assert.match(unknown.body.detail, /restored to an earlier hour/);
  }
  const confirmed = await scene.ask('POST', `/backups/${begun.body.id}/confirm`);
  assert.deepEqual([confirmed.status, confirmed.body.id], [200, begun.body.id]);
  const [older, newer] = [await beginBackup(pool), await beginBackup(pool)];
  await confirmBackup(pool, newer.id);
  const overtaken = await scene.ask('POST', `/backups/${older.id}/confirm`);
  assert.equal(overtaken.status, 409);
  assert.match(overtaken.body.detail, new RegExp(`before ${newer.id}`));
  assert.deepEqual(scene.failures, []);
});

test('holdfast backup says what to do next, what is in no backup, and what was wrong', async () => {
  const pool = await freshDatabase(server);
  const scene = await openRegistryScene({ pool });
  const backup = (...args: string[]) => scene.command('backup', ...args);
  assert.match((await backup('status')).stdout, /No backup was ever confirmed.*\nThere is no data yet/);
  await (await openWriter(pool)).write(item(counted(1, 1200)));
  const begun = await backup('begin');
  assert.equal(begun.code, 0, begun.stderr);
  const number = /^Backup (\d{14}) is begun: it will cover 1,200 messages/.exec(begun.stdout)?.[1];
  assert.ok(number, begun.stdout);
  assert.ok(begun.stdout.includes(`pg_dump --format=custom --file=holdfast-${number}.dump`));
  assert.ok(begun.stdout.includes(`holdfast backup confirm ${number}`));
  assert.match((await backup('status')).stdout, new RegExp(`${number} .*\\n.*not confirmed`));
  assert.match((await backup('confirm', number)).stdout, new RegExp(`Backup ${number} is confirmed`));
  assert.equal((await backup('confirm', number)).code, 0);

  await pool.query(`update holdfast.backup set begun_at = begun_at - interval '30 hours'`);
  assert.match(
    (await backup('status')).stdout,
    /In no confirmed backup: 30 h, 0 messages.\n.*72 h.*\n.*is due/s,
  );
  const { uncovered, state } = JSON.parse((await backup('status', '--json')).stdout) as BackupOutlook;
  assert.deepEqual([uncovered.hours, state], [30, 'due']);
  await pool.query(`update holdfast.backup set begun_at = begun_at - interval '50 hours'`);
  assert.match((await backup('status')).stdout, /80 h, 0 messages.*is due/s);
  await (await openWriter(pool)).write(item(counted(1201, 1)));
  assert.match((await backup('status')).stdout, /overdue/);

  const unknown = await backup('confirm', '20200101000000');
  assert.equal(unknown.code, 1);
  // It lies before the confirmed one, so that is what is said of it.
  assert.match(unknown.stderr, /begun before \d{14}, which is confirmed/);
  assert.match((await backup('confirm', '99990101000000')).stderr, /no backup 99990101000000 is begun/);
  for (const wrong of [['confirm'], ['confirm', 'x'], ['status', 'x'], ['undo']]) {
    assert.equal((await backup(...wrong)).code, 2, wrong.join(' '));
  }
});

test('hours count from the beginning of the last confirmed backup, or from the first data', () => {
  const HOUR = 3_600_000;
  const now = 1_800_000_000_000;
  const of = (confirmedHoursAgo: number | null, firstDataHoursAgo: number | null, messages = 5) => {
    const { uncovered, state } = backupOutlook({
      now,
      confirmed:
        confirmedHoursAgo === null
          ? null
          : { id: 1, begunAt: now - confirmedHoursAgo * HOUR, confirmedAt: now },
      begun: [],
      firstDataAt: firstDataHoursAgo === null ? null : now - firstDataHoursAgo * HOUR,
      uncoveredMessages: messages,
    });
    return [uncovered.hours, state];
  };
  assert.deepEqual(of(null, null), [0, 'empty']);
  assert.deepEqual(of(null, 3), [3, 'fresh']);
  assert.deepEqual(of(null, 24), [24, 'due']);
  assert.deepEqual(of(23.96, 200), [23.9, 'fresh']);
  assert.deepEqual(of(24, 200), [24, 'due']);
  assert.deepEqual(of(72, 200), [72, 'overdue']);
  assert.deepEqual(of(72, 200, 0), [72, 'due'], 'gateways can have given back nothing that matters');
  // A clock that went back.
  assert.deepEqual(of(-1, 200), [0, 'fresh']);
});
