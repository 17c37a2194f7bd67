/** What gateways said last, in a real PostgreSQL: it survives, never goes back, and never waits for history. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import type { Pool } from 'pg';
import { type GatewayPresence, loadGateways, openGatewayMemory } from '../../cloud/gateway-memory.ts';
import type { Server } from '../../deploy/local/servers.ts';
import { gatewayId, siteId } from '../../protocol/ids.ts';
import { LOG_ID } from '../edge-gateway/frames.ts';
import { counted, GATEWAY, item, ledger, NOW, openWriter, SITE } from './history.ts';
import { reportOf } from './reports.ts';
import { eventually, freshDatabase, startTestPostgres } from './servers.ts';

let server: Server;
before(async () => {
  server = await startTestPostgres();
});

const presence = (more: Partial<GatewayPresence> = {}): GatewayPresence => ({
  site: SITE,
  gateway: GATEWAY,
  lastHelloAt: NOW,
  report: reportOf(),
  ...more,
});

async function ends(pool: Pool): Promise<string[]> {
  const { rows } = await pool.query(
    `select gateway, log_id, ends::int, (extract(epoch from seen_at) * 1000)::float8 - $1 as seen
       from holdfast.gateway_log order by gateway, log_id`,
    [NOW],
  );
  return rows.map(
    ({ gateway, log_id, ends: end, seen }) => `${gateway} ${log_id.slice(0, 4)} ${end} ${seen}`,
  );
}

test('the last word of each gateway survives, newest last', async () => {
  const pool = await freshDatabase(server);
  const memory = openGatewayMemory(pool);
  const other = presence({ site: siteId('plant'), gateway: gatewayId('g'), lastHelloAt: NOW + 5 });
  memory.heard(other, {});
  memory.heard(presence(), {});
  memory.heard(presence({ lastHelloAt: NOW + 1, report: reportOf({ bufferBytes: 7 }) }), {});
  await memory.flush();
  assert.deepEqual(await loadGateways(pool, 10), [
    presence({ lastHelloAt: NOW + 1, report: reportOf({ bufferBytes: 7 }) }),
    other,
  ]);
  assert.deepEqual(await loadGateways(pool, 1), [other], 'of too many those heard last');
  // Another node wrote it down later: it is older news.
  const late = openGatewayMemory(pool);
  late.heard(presence({ lastHelloAt: NOW - 1 }), {});
  await late.flush();
  assert.equal((await loadGateways(pool, 10))[0]!.lastHelloAt, NOW + 1);
  await pool.query(`update holdfast.gateway set report = '{"bufferBytes":"many"}' where site = 'plant'`);
  assert.equal((await loadGateways(pool, 10)).length, 1, 'one that makes no sense is left out (H)');
});

test('where logs end: never back, as on a card restored from an earlier copy; an empty log is none', async () => {
  const pool = await freshDatabase(server);
  const memory = openGatewayMemory(pool);
  const [a, b, c] = ['a', 'b', 'c'].map(digit => digit.repeat(32)) as [string, string, string];
  memory.heard(presence(), { [a]: 101, [b]: 1 });
  await memory.flush();
  assert.deepEqual(await ends(pool), ['edge-1 aaaa 101 0']);
  memory.heard(presence({ lastHelloAt: NOW + 1000 }), { [a]: 51, [c]: 7 });
  await memory.flush();
  assert.deepEqual(await ends(pool), ['edge-1 aaaa 101 1000', 'edge-1 cccc 7 1000']);
});

test('a log that history is settling is not waited for, and goes on being settled', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const memory = openGatewayMemory(pool);
  await writer.write(item(counted(1, 5)));
  const settling = await pool.connect();
  try {
    await settling.query('begin');
    await settling.query('select from holdfast.gateway_log for update');
    memory.heard(presence(), { [LOG_ID]: 11, ['f'.repeat(32)]: 3 });
    await memory.flush();
    assert.deepEqual(await ends(pool), ['edge-1 0193 null null', 'edge-1 ffff 3 0']);
  } finally {
    await settling.query('rollback');
    settling.release();
  }
  memory.heard(presence(), { [LOG_ID]: 11 });
  await memory.flush();
  await writer.write(item(counted(6, 5)));
  assert.deepEqual(await ends(pool), ['edge-1 0193 11 0', 'edge-1 ffff 3 0']);
  assert.equal(await ledger(pool), '{[1,11)}');
});

test('logs that wait to be written down are bounded; what was refused may come again (F)', async () => {
  const pool = await freshDatabase(server);
  const memory = openGatewayMemory(pool);
  const many = (first: number) =>
    Object.fromEntries(
      Array.from({ length: 60_000 }, (_, index) => [(first + index).toString(16).padStart(32, '0'), 1]),
    );
  memory.heard(presence(), many(0));
  memory.heard(presence({ lastHelloAt: NOW + 1 }), many(0));
  const second = presence({ gateway: gatewayId('edge-2') });
  memory.heard(second, many(60_000));
  await memory.flush();
  assert.deepEqual(await loadGateways(pool, 10), [presence({ lastHelloAt: NOW + 1 })]);
  memory.heard(second, many(60_000));
  await memory.flush();
  assert.equal((await loadGateways(pool, 10)).length, 2);
});

test('PostgreSQL refuses what one gateway says: the others are written, and it is known who was to blame (H)', async () => {
  const pool = await freshDatabase(server);
  const refused: string[] = [];
  const memory = openGatewayMemory(pool, ({ gateway }, reason) => refused.push(`${gateway}: ${reason}`));
  const a = presence({ gateway: gatewayId('a') });
  // The handshake lets no such text through.
  const b = presence({
    gateway: gatewayId('b'),
    report: reportOf({ broker: { connected: false, reason: '\0' } }),
  });
  const c = presence({ gateway: gatewayId('c'), lastHelloAt: NOW + 1 });
  memory.heard(a, { ['a'.repeat(32)]: 5 });
  memory.heard(b, { ['b'.repeat(32)]: 5 });
  memory.heard(c, { ['c'.repeat(32)]: 5 });
  await memory.flush();
  assert.deepEqual(await loadGateways(pool, 10), [a, c]);
  assert.deepEqual(await ends(pool), ['a aaaa 5 0', 'c cccc 5 1']);
  assert.equal(refused.length, 1);
  assert.match(refused[0]!, /^b: .*Unicode/);
});

test('PostgreSQL is away at a flush: what was heard waits for the next one, unless newer came (R)', async () => {
  const pool = await freshDatabase(server);
  const memory = openGatewayMemory(pool);
  const a = presence({ gateway: gatewayId('a') });
  const b = presence({ gateway: gatewayId('b') });
  memory.heard(a, { ['a'.repeat(32)]: 5 });
  memory.heard(b, { ['b'.repeat(32)]: 5 });
  await server.kill();
  const flushing = memory.flush();
  const newer = presence({ gateway: gatewayId('b'), lastHelloAt: NOW + 1 });
  memory.heard(newer, { ['b'.repeat(32)]: 6 });
  await assert.rejects(flushing);
  await server.start();
  await eventually('it answers', async () => (await pool.query('select 1')).rowCount === 1);
  await memory.flush();
  assert.deepEqual(await loadGateways(pool, 10), [a, newer]);
  assert.deepEqual(await ends(pool), ['a aaaa 5 0', 'b bbbb 6 1']);
});

test('gateways without a log are bounded too (F)', async () => {
  const pool = await freshDatabase(server);
  const memory = openGatewayMemory(pool);
  const many = 100_001;
  for (let n = 0; n < many; n++) memory.heard(presence({ gateway: gatewayId(`g${n}`) }), {});
  await memory.flush();
  const { rows } = await pool.query('select count(*)::int as gateways from holdfast.gateway');
  assert.deepEqual(rows, [{ gateways: many - 1 }]);
});
