/** Delivery by the owner of a partition, with real receivers, PostgreSQL and NATS. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { clearIncident } from '../../../cloud/incidents/incident-table.ts';
import { pageId } from '../../../cloud/incidents/page.ts';
import { subscribeIncidents } from '../../../cloud/push/bus.ts';
import { siteId } from '../../../protocol/ids.ts';
import { eventually, freshDatabase, startTestNats, startTestPostgres } from '../servers.ts';
import {
  addWebhook,
  cleared,
  connectNats,
  deliveries,
  opened,
  openOwner,
  openReceiver,
  SECRET,
  untilTaken,
  verify,
} from './support.ts';

const server = await startTestPostgres();
const natsServer = await startTestNats();
const nats = await connectNats(natsServer);

const scene = async (...channels: string[]) => {
  const pool = await freshDatabase(server);
  const receiver = await openReceiver();
  for (const channel of channels) await addWebhook(pool, channel, receiver.url);
  return { pool, receiver, owner: await openOwner(pool, nats) };
};

test('a page leaves as soon as Redis has it, signed; the row that comes later changes nothing', async () => {
  const { pool, receiver, owner } = await scene('hook');
  const subscription = nats.subscribe('incidents.demo');
  owner.deliverNow(opened('a.1'));
  await untilTaken(receiver, 'incident.opened a.1');
  assert.equal((await pool.query('select from holdfast.incident')).rowCount, 0, 'nothing is in history yet');
  await owner.settle(opened('a.1'));
  owner.deliverNow(cleared('a.1'));
  await untilTaken(receiver, 'incident.cleared a.1');
  await owner.settle(cleared('a.1'));
  // A replay of both, as after a take-over.
  owner.deliverNow(opened('a.1'), cleared('a.1'));
  await owner.settle(opened('a.1'), cleared('a.1'));
  const told = [
    'cleared hook delivered',
    'cleared nats delivered',
    'opened hook delivered',
    'opened nats delivered',
  ];
  await eventually('all is noted', async () => (await deliveries(pool, 'a.1')).join() === told.join());
  await owner.delivery.workOff();

  assert.deepEqual(receiver.taken(), ['incident.opened a.1', 'incident.cleared a.1']);
  for (const received of receiver.received) verify(received, SECRET);
  const [first] = receiver.received;
  assert.throws(() => verify({ ...first!, body: first!.body.replace('31', '32') }, SECRET));
  assert.equal(first!.id, pageId('a.1', 'opened'));
  assert.doesNotMatch(first!.id, /\./);
  assert.deepEqual(JSON.parse(first!.body), {
    type: 'incident.opened',
    timestamp: '2026-01-15T12:00:00.000Z',
    data: {
      incident: 'a.1',
      rule: 'too-hot',
      kind: 'threshold',
      severity: 'warning',
      site: 'demo',
      device: 'oven',
      metric: 'heat',
      summary: 'heat 31 is above 30',
      threshold: 30,
      openedAt: Date.UTC(2026, 0, 15, 12),
      openedValue: 31,
    },
  });

  subscription.unsubscribe();
  const onNats: string[] = [];
  for await (const message of subscription) {
    onNats.push(message.string());
    assert.equal(message.headers?.get('Nats-Msg-Id'), receiver.received[onNats.length - 1]!.id);
    if (onNats.length === 2) break;
  }
  assert.deepEqual(
    onNats,
    receiver.received.map(({ body }) => body),
    'the same bodies, the same order',
  );
});

test('what only PostgreSQL knows is worked off, the opening before the clear', async () => {
  const { receiver, owner } = await scene('hook');
  await owner.settle(opened('x'), cleared('x'), opened('y'));
  await untilTaken(receiver, 'incident.opened x', 'incident.cleared x', 'incident.opened y');
  const of = receiver.taken().filter(line => line.endsWith(' x'));
  assert.deepEqual(of, ['incident.opened x', 'incident.cleared x']);
});

test('an attempt that fails is repeated with the same id and a new time, and its clear waits for it', async () => {
  const { pool, receiver, owner } = await scene('hook');
  receiver.answer = ({ type }) => (type === 'incident.opened' && receiver.received.length < 3 ? 500 : 200);
  await owner.settle(opened('r'));
  await eventually('the first attempt was refused', () => receiver.received.length > 0);
  owner.deliverNow(cleared('r'));
  await owner.settle(cleared('r'));
  await untilTaken(receiver, 'incident.cleared r');
  assert.deepEqual(
    receiver.received.map(({ type, status }) => `${type} ${status}`),
    [
      'incident.opened 500',
      'incident.opened 500',
      'incident.opened 500',
      'incident.opened 200',
      'incident.cleared 200',
    ],
  );
  for (const received of receiver.received) verify(received, SECRET);
  assert.equal(new Set(receiver.received.map(({ id }) => id)).size, 2);
  assert.equal(new Set(receiver.received.slice(0, 4).map(({ body }) => body)).size, 1);
  await eventually('attempts are counted', async () => {
    const { rows } = await pool.query(
      `select attempts from holdfast.delivery where channel = 'hook' and event = 'opened'`,
    );
    return rows[0]?.attempts === 4;
  });
});

test('410 is never; a redirect is not followed', async () => {
  const { pool, receiver, owner } = await scene('hook');
  receiver.answer = ({ incident }) => (incident === 'gone' ? 410 : receiver.received.length < 2 ? 302 : 200);
  await owner.settle(opened('gone'), opened('moved'));
  await untilTaken(receiver, 'incident.opened moved');
  await eventually('given up', async () => (await deliveries(pool, 'gone')).includes('opened hook failed'));
  assert.equal(receiver.received.filter(({ incident }) => incident === 'gone').length, 1);
  assert.ok(receiver.received.every(({ headers }) => headers.host === new URL(receiver.url).host));
});

test('a channel that never answers, and one that refuses, hold up nobody', async () => {
  const pool = await freshDatabase(server);
  const [good, silent, refusing] = [await openReceiver(), await openReceiver(), await openReceiver()];
  silent.answer = () => null;
  refusing.answer = () => 503;
  await addWebhook(pool, 'a-silent', silent.url);
  await addWebhook(pool, 'b-refusing', refusing.url);
  await addWebhook(pool, 'good', good.url);
  const owner = await openOwner(pool, nats);
  const ids = Array.from({ length: 40 }, (_, i) => `many-${i}`);
  // Of many sites, so that none is a flood.
  await owner.settle(...ids.map((id, i) => opened(id, { site: `site-${i}` })));
  await untilTaken(good, ...ids.map(id => `incident.opened ${id}`));
  assert.equal(good.received.length, 40);
  assert.ok(silent.received.length <= 4, 'attempts under way are bounded');
  const trouble = owner.delivery.status().find(({ id }) => id === 'b-refusing')?.trouble;
  assert.equal(trouble, 'status 503');
});

test('with PostgreSQL stopped pages leave all the same, and are not told again when it is back', async () => {
  const { pool, receiver, owner } = await scene('hook');
  await server.stop();
  try {
    owner.deliverNow(opened('away'));
    await untilTaken(receiver, 'incident.opened away');
    owner.deliverNow(cleared('away'));
    await untilTaken(receiver, 'incident.cleared away');
  } finally {
    await server.start();
  }
  await owner.settle(opened('away'), cleared('away'), opened('back'));
  await untilTaken(receiver, 'incident.opened back');
  await eventually('both are noted', async () => {
    const lines = await deliveries(pool, 'away');
    return lines.includes('opened hook delivered') && lines.includes('cleared hook delivered');
  });
  assert.deepEqual(receiver.taken(), [
    'incident.opened away',
    'incident.cleared away',
    'incident.opened back',
  ]);
});

test('late ones and those under maintenance are told to nobody, on neither way; dashboards see them', async () => {
  const { pool, receiver, owner } = await scene('hook');
  await pool.query(
    `insert into holdfast.maintenance (site, reason, starts_at, ends_at)
     values ('yard', 'new pump', '2026-01-15 11:00:00+00', '2126-01-15 13:00:00+00')`,
  );
  await owner.delivery.workOff();
  const seen: string[] = [];
  const release = subscribeIncidents(nats, siteId('yard'), incidents =>
    seen.push(...incidents.map(({ id }) => id)),
  );
  await nats.flush();
  const all = [
    opened('quiet', { site: 'yard' }),
    cleared('quiet', { site: 'yard' }),
    cleared('late', { late: true }),
    opened('loud'),
  ];
  owner.deliverNow(...all);
  await owner.settle(...all);
  await untilTaken(receiver, 'incident.opened loud');
  await owner.delivery.workOff();
  await eventually('the push bus has them', () => seen.length === 2);
  release();
  assert.deepEqual(receiver.taken(), ['incident.opened loud']);
});

test('a flood of one site: some by themselves, the rest as one digest that names and counts them', async () => {
  const { pool, receiver, owner } = await scene('hook');
  const ids = Array.from({ length: 500 }, (_, i) => `flood-${i}`);
  owner.deliverNow(...ids.map(id => opened(id)));
  owner.deliverNow(...ids.slice(0, 5).map(id => cleared(id)), cleared('flood-499'));
  await eventually('the digest is there', () => receiver.taken().includes('incidents.digest'));
  const [digest, ...others] = receiver.received.filter(({ type }) => type === 'incidents.digest');
  assert.equal(others.length, 0);
  verify(digest!, SECRET);
  const alone = receiver.received.filter(({ type }) => type === 'incident.opened').length;
  const {
    opened: told,
    cleared: over,
    pages,
    more,
  } = digest!.data as {
    opened: number;
    cleared: number;
    pages: { id: string; incident: string; event: string }[];
    more: number;
  };
  assert.equal(alone, 10);
  assert.equal(told, 490);
  assert.equal(over, 6, 'clears that come while it is full go along, too');
  assert.deepEqual([pages.length, more], [100, 396]);
  assert.equal(pages[0]!.id, pageId(pages[0]!.incident, 'opened'));
  await owner.settle(...ids.map(id => opened(id)));
  await eventually('each is noted', async () => {
    const { rows } = await pool.query(
      `select count(*)::int as n, count(digest)::int as d from holdfast.delivery where channel = 'hook' and state = 'delivered'`,
    );
    return rows[0]!.n === 506 && rows[0]!.d === 496;
  });
  await owner.delivery.workOff();
  assert.equal(receiver.received.length, 11);
});

test('who lost the partition stops at once, also when it does not know yet', async () => {
  const { pool, receiver, owner } = await scene('hook');
  receiver.answer = () => 500;
  owner.deliverNow(opened('lost'));
  await eventually('it was tried', () => receiver.received.length === 1);
  owner.owned = [];
  receiver.answer = () => 200;
  owner.deliverNow(opened('never'));
  await owner.delivery.workOff();
  assert.equal(owner.delivery.status().find(({ id }) => id === 'hook')?.waiting, 0);

  // It was stopped past its lease, and believes in its old epoch: rows are not given to it.
  owner.owned = [{ id: 0, epoch: owner.epoch }];
  const heir = await openOwner(pool, nats);
  await heir.settle(opened('lost'));
  await owner.delivery.workOff();
  await untilTaken(receiver, 'incident.opened lost');
  assert.deepEqual(receiver.taken(), ['incident.opened lost']);
  assert.equal(owner.delivery.status().find(({ id }) => id === 'hook')?.delivered, 0);
});

test('a new owner does not repeat an opening that is replayed, and tells its end with PostgreSQL stopped', async () => {
  const { pool, receiver, owner } = await scene('hook');
  owner.deliverNow(opened('open-one'));
  await owner.settle(opened('open-one'));
  await untilTaken(receiver, 'incident.opened open-one');
  await owner.delivery.release(0);
  owner.owned = [];
  const heir = await openOwner(pool, nats);
  heir.deliverNow(opened('open-one'));
  await server.stop();
  try {
    heir.deliverNow(cleared('open-one'));
    await untilTaken(receiver, 'incident.cleared open-one');
  } finally {
    await server.start();
  }
  assert.deepEqual(receiver.taken(), ['incident.opened open-one', 'incident.cleared open-one']);
});

test('killed between the answer and its note: told again under the same id, then its end', async () => {
  const { pool, receiver, owner } = await scene('hook');
  owner.owned = [];
  const url = new URL(server.url);
  const { rows } = await pool.query<{ name: string }>('select current_database() as name');
  url.pathname = `/${rows[0]!.name}`;
  const child = spawn(
    process.execPath,
    [fileURLToPath(new URL('owner-child.ts', import.meta.url)), url.href, natsServer.url],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const gone = once(child, 'exit');
  await once(child.stdout, 'data');
  receiver.answer = ({ type }) => {
    if (type === 'incident.opened') child.kill('SIGKILL');
    return 200;
  };
  // By the row alone, as history of another process would have written it.
  await pool.query('select holdfast.note_incidents(0, $1::jsonb)', [
    JSON.stringify([
      {
        ...opened('crash'),
        opened_at: opened('crash').openedAt,
        opened_value: 31,
        cleared_at: null,
        cleared_value: null,
      },
    ]),
  ]);
  await gone;
  assert.deepEqual(receiver.taken(), ['incident.opened crash']);
  const heir = await openOwner(pool, nats);
  await heir.settle(cleared('crash'));
  await untilTaken(receiver, 'incident.cleared crash');
  const [first, second, third] = receiver.received;
  assert.deepEqual(receiver.taken(), [
    'incident.opened crash',
    'incident.opened crash',
    'incident.cleared crash',
  ]);
  assert.equal(first!.id, second!.id);
  assert.equal(first!.body, second!.body);
  assert.notEqual(third!.id, first!.id);
});

test('cleared by hand is told once, also when the readings clear it afterwards', async () => {
  const { pool, receiver, owner } = await scene('hook');
  owner.deliverNow(opened('hand'));
  await owner.settle(opened('hand'));
  await untilTaken(receiver, 'incident.opened hand');
  await clearIncident(pool, 'hand', 'Ada', null);
  await untilTaken(receiver, 'incident.cleared hand');
  owner.deliverNow(cleared('hand'));
  await owner.settle(cleared('hand'));
  await owner.delivery.workOff();
  assert.deepEqual(receiver.taken(), ['incident.opened hand', 'incident.cleared hand']);
  assert.equal(receiver.received[1]!.data.clearedBy, 'Ada');
});
