/** Rules over the API into the table and out of it to the actors, and tried on history, on a real PostgreSQL. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Pool } from 'pg';
import type { IncidentTransition } from '../../cloud/actors/incident.ts';
import type { Rule } from '../../cloud/actors/rule.ts';
import { changeAccess } from '../../cloud/api/http.ts';
import { registerRuleRoutes } from '../../cloud/api/rules.ts';
import { tryRules } from '../../cloud/commands/try-rules.ts';
import { openRuleBook } from '../../cloud/rule-book.ts';
import { RuleBody, ruleOf } from '../../cloud/rule-model.ts';
import { listen, newApp } from '../../cloud/web-server.ts';
import type { Server } from '../../deploy/local/servers.ts';
import { batchOf, item, NOW, openWriter, SITE } from './history.ts';
import { freshDatabase, silentLogger, startTestPostgres } from './servers.ts';

let server: Server;
let pool: Pool;
let base: string;
let close = () => {};
after(() => close());
before(async () => {
  server = await startTestPostgres();
  pool = await freshDatabase(server);
  const app = newApp();
  registerRuleRoutes({ app, pool, access: changeAccess(null, '127.0.0.1'), onError: () => {} });
  const listening = await listen(app, '127.0.0.1', 0);
  assert.equal(listening.outcome, 'listening');
  if (listening.outcome !== 'listening') return;
  base = `http://127.0.0.1:${listening.port}`;
  close = () => listening.close();
});

/** Of any of the answers. */
interface Answer {
  readonly detail: string;
  readonly rules: readonly { readonly id: string; readonly forMs: number }[];
  readonly setAside: readonly { readonly id: string }[];
}

async function ask(method: string, path: string, body?: unknown): Promise<{ status: number; body: Answer }> {
  const response = await fetch(base + path, {
    method,
    ...(body !== undefined && {
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    }),
  });
  const text = await response.text();
  return { status: response.status, body: text === '' ? null : JSON.parse(text) };
}

const bodies = {
  threshold: {
    kind: 'threshold',
    metric: 't',
    comparison: 'above',
    threshold: 30,
    hysteresis: 2,
    tag: 'roof',
  },
  range: { kind: 'range', metric: 't', low: 1, high: 2.5, forMs: 60_000, site: 'demo' },
  rate: { kind: 'rate', metric: 't', threshold: 5, direction: 'rising', perMs: 1000 },
  absence: { kind: 'absence', forMs: 60_000, deviceType: 'pump', severity: 'critical' },
  anomaly: {
    kind: 'anomaly',
    metric: 't',
    deviations: 7,
    window: 300,
    warmup: 30,
    floor: 0.5,
    enabled: false,
  },
};

test('a rule of every kind is put, read, changed and deleted, and reaches the actors as it was written', async () => {
  const book = openRuleBook(pool, silentLogger);
  assert.equal(book.rules().version, 0);
  for (const [id, body] of Object.entries(bodies)) {
    const put = await ask('PUT', `/rules/${id}`, body);
    assert.equal(put.status, 200, JSON.stringify(put.body));
    assert.deepEqual((await ask('GET', `/rules/${id}`)).body, { ...RuleBody.parse(body), id });
  }
  await book.refresh();
  const { version, rules } = book.rules();
  const armed = Object.entries(bodies)
    .filter(([id]) => id !== 'anomaly')
    .map(([id, body]) => ruleOf({ ...RuleBody.parse(body), id }));
  assert.deepEqual(
    rules,
    armed.sort((a, b) => (a.id < b.id ? -1 : 1)),
  );
  await book.refresh();
  assert.equal(book.rules().version, version, 'nothing has changed');

  await ask('PUT', '/rules/range', { kind: 'absence', metric: 't', forMs: 5000 });
  await book.refresh();
  assert.equal(book.rules().version, version + 1);
  assert.equal(book.rules().byId('range')?.kind, 'absence');
  assert.equal((await ask('DELETE', '/rules/range')).status, 204);
  assert.equal((await ask('DELETE', '/rules/range')).status, 404);
  await book.refresh();
  assert.equal(book.rules().byId('range'), undefined);
});

test('what makes no sense is refused and says why', async () => {
  const cases: [string, unknown, RegExp][] = [
    ['x', { kind: 'threshold', metric: 't', comparison: 'above' }, /threshold/],
    ['x', { ...bodies.threshold, treshold: 3 }, /treshold/],
    ['x', { ...bodies.range, low: 3 }, /low: lies above high/],
    ['x', { ...bodies.range, hysteresis: 1 }, /hysteresis: leaves nothing/],
    ['x', { ...bodies.anomaly, warmup: 500 }, /warmup: is longer/],
    ['x', { ...bodies.absence, forMs: 10 }, /forMs/],
    ['x', { kind: 'forecast' }, /kind/],
    ['link', bodies.rate, /dead links/],
    ['a:b', bodies.rate, /letters/],
  ];
  for (const [id, body, reason] of cases) {
    const { status, body: problem } = await ask('PUT', `/rules/${encodeURIComponent(id)}`, body);
    assert.equal(status, 400, JSON.stringify(body));
    assert.match(problem.detail, reason);
  }
  assert.equal((await ask('GET', '/rules/x')).status, 404);
});

test('a row that makes no sense is set aside, and the others hold (H)', async () => {
  await pool.query(
    `insert into holdfast.rule (id, metric, comparison, threshold) values ('older', 't', 'above', 5), ('bad', 't', 'beyond', 5)`,
  );
  const { setAside, rules } = (await ask('GET', '/rules')).body;
  assert.deepEqual(
    setAside.map(entry => entry.id),
    ['bad'],
  );
  assert.ok(rules.some(rule => rule.id === 'older' && rule.forMs === 0));
  const book = openRuleBook(pool, silentLogger);
  await book.refresh();
  assert.equal(book.rules().byId('bad'), undefined);
  assert.ok(book.rules().byId('older'));
});

test('rules tried on history say what they would have raised, with times and values', async () => {
  const history = await freshDatabase(server);
  const writer = await openWriter(history);
  const at = (minutes: number) => NOW - 3_600_000 + minutes * 60_000;
  const values: [number, number][] = [
    [0, 20],
    [1, 31],
    [2, 32],
    [3, 20],
    [4, 35],
    [20, 20],
  ];
  await writer.write(
    item(
      batchOf(1, [
        ...values.map(([minutes, t]) => ['devices/oven/telemetry', { ts: at(minutes), t }] as const),
        ['devices/other/telemetry', { ts: at(5), t: 99 }],
      ]),
    ),
  );
  const rules = [
    { ...bodies.threshold, tag: null, device: 'oven', id: 'hot' },
    { ...bodies.threshold, tag: null, device: 'oven', forMs: 90_000, id: 'long-hot' },
    { kind: 'absence', device: 'oven', forMs: 600_000, id: 'gone' },
  ].map(({ id, ...body }): Rule => ruleOf({ ...RuleBody.parse(body), id }));
  const found: IncidentTransition[] = [];
  const range = { from: at(0), to: at(60), site: SITE, device: null };
  const summary = await tryRules(history, { ...range, rules }, one => found.push(one));
  const minute = (time: number | null) => (time === null ? null : (time - at(0)) / 60_000);
  assert.deepEqual(
    found.map(one => [one.rule, minute(one.openedAt), minute(one.clearedAt)]),
    [
      ['hot', 1, 3],
      ['long-hot', 1, 3],
      ['hot', 4, 20],
      ['long-hot', 4, 20],
      ['gone', 14, 20],
      ['gone', 30, null],
    ],
  );
  assert.deepEqual(summary, { devices: 1, messages: 6, incidents: 6, open: 1 });
  const none = await tryRules(history, { ...range, rules, device: 'other' }, () => assert.fail());
  assert.equal(none.devices, 0);
});
