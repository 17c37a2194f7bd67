/** Hellos when there are more than PostgreSQL answers: real NATS and PostgreSQL, gateways played by hand. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import type { Pool } from 'pg';
import { openGatewayLink } from '../../cloud/gateway-link.ts';
import type { Server } from '../../deploy/local/servers.ts';
import { HelloReply } from '../../protocol/handshake.ts';
import { gatewayId } from '../../protocol/ids.ts';
import { natsAddress } from '../../protocol/nats-address.ts';
import { helloSubject } from '../../protocol/subjects.ts';
import { range, SITE } from './history.ts';
import { reportOf } from './reports.ts';
import {
  atEnd,
  eventually,
  freshDatabase,
  silentLogger,
  startTestNats,
  startTestPostgres,
} from './servers.ts';

let nats: Server;
let postgres: Server;
before(async () => {
  [nats, postgres] = await Promise.all([startTestNats(), startTestPostgres()]);
});

const A = 'a'.repeat(32);

async function connection(): Promise<NatsConnection> {
  const opened = await connect(natsAddress(nats.url));
  atEnd(() => opened.close());
  return opened;
}

async function openLink(pool: Pool) {
  const link = await openGatewayLink({
    nats: await connection(),
    pool,
    historyId: 'history',
    partitions: 4,
    streamCreated: async () => 'stream-1',
    logger: silentLogger,
  });
  atEnd(async () => link.close());
  return link;
}

test('more hellos than PostgreSQL answers: all are heard at once, a bounded number waits, the rest is told so (F)', async () => {
  const pool = await freshDatabase(postgres, { poolMax: 12 });
  const link = await openLink(pool);
  const asking = await connection();
  const MANY = 1300;
  const outcomes = new Map<string, number>();
  let answers = 0;
  const ask = async (n: number) => {
    const message = { wireVersions: [1], logs: [A], ends: { [A]: 5 }, report: reportOf({ messages: n }) };
    const subject = helloSubject(SITE, gatewayId(`g${n}`));
    const answer = await asking.request(subject, JSON.stringify(message), { timeout: 60_000 });
    const { outcome } = HelloReply.parse(answer.json());
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    answers++;
  };
  const blocker = await pool.connect();
  await blocker.query('begin; lock table holdfast.gateway_log in access exclusive mode');
  const all = range(0, MANY).map(ask);
  try {
    await eventually('some are turned away', () => answers >= MANY - 1008);
    await eventually('as many as may ask PostgreSQL at the same time do', async () => {
      const { rows } = await pool.query(
        `select count(*)::int as asking from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`,
      );
      return rows[0].asking === 8;
    });
    assert.deepEqual([...outcomes], [['unavailable', MANY - 1008]]);
    assert.equal(link.gateways.size, MANY, 'each has been heard');
  } finally {
    await blocker.query('rollback');
    blocker.release();
  }
  await Promise.all(all);
  assert.deepEqual([...outcomes].sort(), [
    ['unavailable', MANY - 1008],
    ['welcome', 1008],
  ]);
  // The next test's link takes its share of the same subject.
  link.close();
});

test('a hello that is none is refused with a reason of bounded length; the next ones are answered (H)', async () => {
  const pool = await freshDatabase(postgres);
  const link = await openLink(pool);
  const asking = await connection();
  const ask = async (content: string) => {
    const answer = await asking.request(helloSubject(SITE, gatewayId('edge')), content, { timeout: 10_000 });
    return HelloReply.parse(answer.json());
  };
  const wrong = Object.fromEntries(range(0, 5000).map(n => [`no log ${n}`, -1]));
  for (const bad of [
    'no JSON',
    '{}',
    JSON.stringify({ wireVersions: [1], logs: [A], ends: wrong, report: reportOf() }),
  ]) {
    const reply = await ask(bad);
    assert.ok(reply.outcome === 'refused' && reply.reason.length <= 500, bad.slice(0, 20));
  }
  assert.equal(link.gateways.size, 0);
  const broker = { connected: false, reason: 'gone \0 \ud800 away' };
  const good = { wireVersions: [1], logs: [A], ends: { [A]: 5 }, report: reportOf({ broker }) };
  assert.equal((await ask(JSON.stringify(good))).outcome, 'welcome');
  await link.flush();
  const { rows } = await pool.query(`select report->'broker'->>'reason' as reason from holdfast.gateway`);
  assert.deepEqual(rows, [{ reason: 'gone \u2400 \ufffd away' }]);
});
