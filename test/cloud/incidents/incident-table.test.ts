/** What history makes of transitions, in whatever order they come; and what people do to incidents. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { IncidentTransition } from '../../../cloud/actors/incident.ts';
import {
  acknowledgeIncident,
  clearIncident,
  findIncident,
  forgetOldIncidents,
  listIncidents,
} from '../../../cloud/incidents/incident-table.ts';
import { item, openWriter } from '../history.ts';
import { freshDatabase, startTestPostgres } from '../servers.ts';
import { cleared, deliveries, OPENED_AT, opened } from './support.ts';

const server = await startTestPostgres();
const pool = await freshDatabase(server);
const writer = await openWriter(pool);
const settle = (...transitions: IncidentTransition[]) => writer.write(item(null, { transitions }));
const stored = async (id: string) => {
  const found = await findIncident(pool, id);
  assert.ok(found);
  return found;
};

test('opening and clear in any order, any grouping and any number leave one incident, told once each', async () => {
  let run = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(fc.boolean(), { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 4 }),
      async transactions => {
        const id = `any-order-${++run}`;
        for (const isClear of [...transactions, [true, false]]) {
          await settle(...isClear.map(one => (one ? cleared(id) : opened(id))));
        }
        const { state, openedAt, openedValue, clearedAt, clearedValue, summary } = await stored(id);
        assert.deepEqual(
          { state, openedAt, openedValue, clearedAt, clearedValue, summary },
          {
            state: 'cleared',
            openedAt: OPENED_AT,
            openedValue: 31,
            clearedAt: OPENED_AT + 60_000,
            clearedValue: 20,
            summary: 'heat 31 is above 30',
          },
        );
        assert.deepEqual(await deliveries(pool, id), ['cleared nats pending', 'opened nats pending']);
      },
    ),
    { numRuns: 25, verbose: 1 },
  );
});

test('a late one arrives closed and is told to nobody', async () => {
  const where = { late: true, device: 'cellar' };
  await settle(cleared('late-1', where));
  await settle(opened('late-1', where));
  const { state, late } = await stored('late-1');
  assert.deepEqual({ state, late }, { state: 'cleared', late: true });
  assert.deepEqual(await deliveries(pool, 'late-1'), []);
});

test('a late one gives way to any other of its rule and device that it lies over, whichever comes first', async () => {
  const ids = async () => {
    const { rows } = await pool.query<{ id: string }>(
      "select id from holdfast.incident where site = 'mill' order by id",
    );
    return rows.map(({ id }) => id);
  };
  const span = (id: string, from: number, to: number, more: Partial<IncidentTransition> = {}) =>
    cleared(id, { site: 'mill', openedAt: OPENED_AT + from, clearedAt: OPENED_AT + to, ...more });
  const late = { late: true };
  await settle(span('mill-told', 100, 200));
  await settle(
    span('mill-over', 50, 150, late),
    span('mill-before', 0, 100, late),
    span('mill-after', 200, 300, late),
  );
  assert.deepEqual(await ids(), ['mill-after', 'mill-before', 'mill-told']);
  await settle(span('mill-elsewhere', 50, 150, { late: true, device: 'another' }));
  await settle(opened('mill-open', { site: 'mill', openedAt: OPENED_AT + 250 }));
  assert.equal((await ids()).includes('mill-after'), true, 'it may have been over long ago');
  await settle(span('mill-open', 250, 400));
  assert.deepEqual(await ids(), ['mill-before', 'mill-elsewhere', 'mill-open', 'mill-told']);
  await settle(opened('mill-then', { site: 'mill', openedAt: OPENED_AT + 500 }));
  await settle(span('mill-then', 500, 600), span('mill-within', 550, 650, late));
  assert.equal((await ids()).includes('mill-within'), false, 'which has its end by the same transaction');
});

test('maintenance when it opened is kept with the incident, and nobody is told; an earlier one is told its end', async () => {
  await settle(opened('before', { site: 'yard' }));
  await pool.query(
    `insert into holdfast.maintenance (site, reason, starts_at, ends_at)
     values ('yard', 'new pump', to_timestamp($1 / 1000.0), to_timestamp($2 / 1000.0))`,
    [OPENED_AT + 1000, OPENED_AT + 120_000],
  );
  await settle(opened('within', { site: 'yard', openedAt: OPENED_AT + 1000 }));
  await settle(opened('elsewhere', { openedAt: OPENED_AT + 1000 }));
  await settle(
    cleared('before', { site: 'yard' }),
    cleared('within', { site: 'yard', openedAt: OPENED_AT + 1000 }),
  );
  await settle(opened('after', { site: 'yard', openedAt: OPENED_AT + 120_000 }));
  const flags = [];
  for (const id of ['before', 'within', 'elsewhere', 'after']) flags.push((await stored(id)).maintenance);
  assert.deepEqual(flags, [false, true, false, false]);
  assert.deepEqual(await deliveries(pool, 'before'), ['cleared nats pending', 'opened nats pending']);
  assert.deepEqual(await deliveries(pool, 'within'), []);
  assert.deepEqual(await deliveries(pool, 'after'), ['opened nats pending']);
});

test('a channel hears of its sites and from its severity on', async () => {
  const add = (id: string, sites: string[] | null, severity: string, enabled = true) =>
    pool.query(
      `insert into holdfast.channel (id, kind, target, sites, severity_min, enabled) values ($1, 'nats', $1, $2, $3, $4)`,
      [id, sites, severity, enabled],
    );
  await add('of-port', ['port'], 'info');
  await add('grave', null, 'critical');
  await add('off', null, 'info', false);
  await settle(
    opened('small', { site: 'port', severity: 'info' }),
    opened('grave-one', { severity: 'critical' }),
  );
  assert.deepEqual(await deliveries(pool, 'small'), ['opened nats pending', 'opened of-port pending']);
  assert.deepEqual(await deliveries(pool, 'grave-one'), ['opened grave pending', 'opened nats pending']);
});

test('one of a whole site, with nothing but a summary; and names that PostgreSQL would not take', async () => {
  await settle(
    opened('link:demo/gw:1', {
      kind: 'link',
      rule: 'link',
      device: null,
      metric: null,
      threshold: null,
      openedValue: null,
    }),
    opened('strange', { metric: 'a\0b\ud800', summary: 'a\0b\udfff is above 3' }),
  );
  const link = await stored('link:demo/gw:1');
  assert.deepEqual(
    [link.kind, link.device, link.metric, link.threshold, link.openedValue],
    ['link', null, null, null, null],
  );
  assert.equal((await stored('strange')).summary, 'a\u2400b\ufffd is above 3');
});

test('open, acknowledged by the first, cleared by the readings', async () => {
  await settle(opened('life'));
  assert.equal((await acknowledgeIncident(pool, 'life', 'Ada', 'on my way'))?.state, 'acknowledged');
  const second = await acknowledgeIncident(pool, 'life', 'Bob', null);
  assert.deepEqual([second?.acknowledgedBy, second?.acknowledgeNote], ['Ada', 'on my way']);
  await settle(cleared('life'));
  const { state, clearedBy, acknowledgedBy } = await stored('life');
  assert.deepEqual(
    { state, clearedBy, acknowledgedBy },
    { state: 'cleared', clearedBy: null, acknowledgedBy: 'Ada' },
  );
  assert.equal(await acknowledgeIncident(pool, 'no such', 'Ada', null), null);
});

test('cleared by hand stays so when the readings clear it later, and those who were told are told', async () => {
  await settle(opened('by-hand'));
  const byHand = await clearIncident(pool, 'by-hand', 'Ada', 'sensor removed');
  assert.deepEqual(
    [byHand?.state, byHand?.clearedBy, byHand?.clearNote],
    ['cleared', 'Ada', 'sensor removed'],
  );
  await settle(cleared('by-hand'));
  assert.equal((await stored('by-hand')).clearedAt, byHand?.clearedAt);
  assert.deepEqual(await deliveries(pool, 'by-hand'), ['cleared nats pending', 'opened nats pending']);
});

test('the list: every filter, and page after page without a gap', async () => {
  const same = Array.from({ length: 7 }, (_, i) =>
    opened(`list-${i}`, { site: 'list', openedAt: OPENED_AT + 0.123 }),
  );
  await settle(
    ...same,
    cleared('list-7', {
      site: 'list',
      device: 'fan',
      severity: 'critical',
      openedAt: OPENED_AT + 5,
      late: true,
    }),
  );
  await acknowledgeIncident(pool, 'list-0', 'Ada', null);
  const ids = async (filter: Partial<Parameters<typeof listIncidents>[1]>) =>
    (await listIncidents(pool, { site: 'list', limit: 100, ...filter })).incidents.map(({ id }) => id);
  assert.deepEqual(await ids({ state: 'acknowledged' }), ['list-0']);
  assert.deepEqual(await ids({ state: 'cleared' }), ['list-7']);
  assert.deepEqual(await ids({ device: 'fan' }), ['list-7']);
  assert.deepEqual(await ids({ severity: 'critical' }), ['list-7']);
  assert.deepEqual(await ids({ late: true }), ['list-7']);
  assert.equal((await ids({ late: false })).length, 7);
  assert.deepEqual(await ids({ from: OPENED_AT + 5 }), ['list-7']);
  assert.equal((await ids({ to: OPENED_AT + 5 })).length, 7);

  const seen: string[] = [];
  for (let after: Parameters<typeof listIncidents>[1]['after']; ; ) {
    const { incidents, next } = await listIncidents(pool, { site: 'list', limit: 3, after });
    seen.push(...incidents.map(({ id }) => id));
    if (next === null) break;
    after = next;
  }
  assert.deepEqual(seen, ['list-7', ...same.map(({ id }) => id)]);
});

test('what was over long ago is forgotten; what is open stays, however old', async () => {
  const day = 86_400_000;
  const old = { site: 'attic', openedAt: OPENED_AT - 100 * day };
  await settle(
    cleared('attic-1', { ...old, clearedAt: OPENED_AT - 99 * day }),
    cleared('attic-2', { ...old, clearedAt: OPENED_AT }),
    opened('attic-3', old),
  );
  await forgetOldIncidents(pool, OPENED_AT - 90 * day);
  const { rows } = await pool.query("select id from holdfast.incident where site = 'attic' order by id");
  assert.deepEqual(
    rows.map(({ id }) => id),
    ['attic-2', 'attic-3'],
  );
});
