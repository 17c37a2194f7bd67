/** The twins a page holds, against snapshots and updates in every order that a real link can bring them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { applyFrame, emptyFleet, type Fleet, forgetSnapshots } from '../../cloud/dashboard/fleet-state.ts';
import { readFrame } from '../../cloud/dashboard/model.ts';

type Metrics = Record<string, { value: unknown; at: number }>;
const twin = (device: string, epoch: number, version: number, metrics: Metrics = {}, site = 'demo') => ({
  site,
  device,
  epoch,
  version,
  seenAt: 1,
  metrics,
  alerts: {},
});
const reading = (value: unknown, at: number): Metrics => ({ temperature: { value, at } });

function apply(fleet: Fleet, frame: object) {
  const read = readFrame(JSON.stringify(frame));
  assert.ok(read);
  return applyFrame(fleet, read);
}
const snapshot = (scope: string, twins: object[], part = 1, parts = 1) => ({
  type: 'snapshot',
  scope,
  part,
  parts,
  twins,
});
const update = (fields: object) => ({
  type: 'update',
  site: 'demo',
  twins: [{ device: 'a', epoch: 5, seenAt: 2, metrics: {}, ...fields }],
});

test('C, D: every held version against every incoming one', () => {
  // held (epoch 5, version 10) × update (epoch, since, version) → what becomes of it
  const table: Array<[epoch: number, since: number, version: number, verdict: 'applied' | 'old' | 'resync']> =
    [
      [5, 10, 11, 'applied'],
      [5, 10, 14, 'applied'],
      [5, 0, 11, 'applied'],
      [6, 0, 1, 'applied'],
      [5, 9, 10, 'old'],
      [5, 8, 9, 'old'],
      [5, 0, 10, 'old'],
      [4, 10, 11, 'old'],
      [4, 0, 99, 'old'],
      [5, 11, 12, 'resync'],
      [5, 9, 12, 'resync'],
      [6, 10, 11, 'resync'],
      [6, 9, 10, 'resync'],
    ];
  for (const [epoch, since, version, verdict] of table) {
    const fleet = emptyFleet();
    apply(fleet, snapshot('site:demo', [twin('a', 5, 10, reading(20, 1_000))]));
    const applied = apply(fleet, update({ epoch, since, version, metrics: reading(21, 2_000) }));
    const held = fleet.twins.get('demo/a');
    const label = `epoch ${epoch}, since ${since}, version ${version}`;
    assert.equal(held?.metrics.get('temperature')?.value, verdict === 'applied' ? 21 : 20, label);
    assert.equal(held?.version, verdict === 'applied' ? version : 10, label);
    assert.deepEqual(applied.resync, verdict === 'resync' ? ['demo/a'] : [], label);
    assert.equal(applied.changed.length, verdict === 'applied' ? 1 : 0, label);
  }
});

test('C: an older snapshot changes nothing, an equal or newer one is taken', () => {
  const table: Array<[epoch: number, version: number, taken: boolean]> = [
    [5, 9, false],
    [4, 99, false],
    [5, 10, true],
    [5, 11, true],
    [6, 1, true],
  ];
  for (const [epoch, version, taken] of table) {
    const fleet = emptyFleet();
    apply(fleet, snapshot('site:demo', [twin('a', 5, 10, reading(20, 1_000))]));
    apply(fleet, snapshot('twin:demo/a', [twin('a', epoch, version, reading(21, 2_000))]));
    const value = fleet.twins.get('demo/a')?.metrics.get('temperature')?.value;
    assert.equal(value, taken ? 21 : 20, `epoch ${epoch}, version ${version}`);
  }
});

test('an unknown twin is new when the update is whole, and asked for when it is not', () => {
  const fleet = emptyFleet();
  assert.deepEqual(apply(fleet, update({ since: 3, version: 4 })).resync, ['demo/a']);
  assert.equal(fleet.twins.size, 0);
  assert.equal(
    apply(fleet, update({ since: 0, version: 4, metrics: reading(1, 7) })).changed[0]?.newestAt,
    7,
  );
});

test('an update keeps the metrics it does not name, and the alerts it does not carry', () => {
  const fleet = emptyFleet();
  const alerts = {
    hot: { metric: 'temperature', severity: 'critical', openedAt: 1, value: 31, threshold: 30 },
  };
  const metrics = { humidity: { value: 40, at: 900 }, ...reading(31, 1_000) };
  apply(fleet, snapshot('site:demo', [{ ...twin('a', 5, 1, metrics), alerts }]));
  apply(fleet, update({ since: 1, version: 2, metrics: reading(29, 2_000) }));
  const held = fleet.twins.get('demo/a');
  assert.equal(held?.metrics.get('humidity')?.value, 40);
  assert.equal(held?.alerts.get('hot')?.severity, 'critical');
  assert.equal(held?.newestAt, 2_000);
  apply(fleet, update({ since: 2, version: 3, alerts: {} }));
  assert.equal(fleet.twins.get('demo/a')?.alerts.size, 0);
});

test('names such as __proto__ and constructor are only names', () => {
  const fleet = emptyFleet();
  const text = `{"type":"snapshot","scope":"site:demo","twins":[{"site":"demo","device":"constructor","epoch":1,"version":1,
    "seenAt":1,"metrics":{"__proto__":{"value":1.5,"at":10},"constructor":{"value":"odd","at":11},"toString":{"value":true,"at":12}},
    "alerts":{"__proto__":{"metric":"__proto__","severity":"warning","openedAt":1,"value":1,"threshold":0}}}]}`;
  const frame = readFrame(text);
  assert.ok(frame);
  applyFrame(fleet, frame);
  const held = fleet.twins.get('demo/constructor');
  assert.deepEqual([...(held?.metrics.keys() ?? [])], ['__proto__', 'constructor', 'toString']);
  assert.equal(held?.metrics.get('__proto__')?.value, 1.5);
  assert.equal(held?.alerts.get('__proto__')?.metric, '__proto__');
  assert.equal(({} as { value?: unknown }).value, undefined);
});

test('H: a twin without its shape is left out, its neighbours stay', () => {
  const fleet = emptyFleet();
  const broken = [null, 7, [], {}, { site: 'demo' }, { site: 'demo', device: 'x', version: 'one' }];
  apply(fleet, snapshot('site:demo', [...broken, twin('a', 1, 1)] as object[]));
  assert.deepEqual([...fleet.twins.keys()], ['demo/a']);
  assert.equal(readFrame('not json'), null);
  assert.equal(readFrame('[]'), null);
  assert.deepEqual(readFrame('{"type":"news"}'), { type: 'other' });
});

test('a snapshot in parts removes what it no longer names, but not what appeared meanwhile', () => {
  const fleet = emptyFleet();
  apply(fleet, snapshot('site:demo', [twin('gone', 1, 1), twin('kept', 1, 1)]));
  apply(fleet, snapshot('site:plant', [twin('other', 1, 1, {}, 'plant')]));
  const membership = fleet.membership;
  apply(fleet, snapshot('site:demo', [twin('kept', 1, 2)], 1, 2));
  assert.equal(fleet.twins.size, 3, 'nothing is removed before the last part');
  apply(fleet, update({ device: 'new', since: 0, version: 1 }));
  apply(fleet, snapshot('site:demo', [], 2, 2));
  assert.deepEqual([...fleet.twins.keys()].sort(), ['demo/kept', 'demo/new', 'plant/other']);
  assert.ok(fleet.membership > membership);
});

test('a snapshot cut off in the middle removes nothing', () => {
  const fleet = emptyFleet();
  apply(fleet, snapshot('site:demo', [twin('a', 1, 1), twin('b', 1, 1)]));
  apply(fleet, snapshot('site:demo', [twin('a', 1, 1)], 1, 3));
  forgetSnapshots(fleet);
  apply(fleet, snapshot('site:demo', [], 3, 3));
  assert.deepEqual([...fleet.twins.keys()], ['demo/a', 'demo/b']);
  assert.equal(fleet.complete.has('site:demo'), false);
});

test('F: beyond twinsMax new twins are refused and counted, held ones go on', () => {
  const fleet = emptyFleet(2);
  apply(fleet, snapshot('site:demo', [twin('a', 1, 1), twin('b', 1, 1), twin('c', 1, 1)]));
  assert.deepEqual([...fleet.twins.keys()], ['demo/a', 'demo/b']);
  assert.equal(fleet.refused, 1);
  apply(fleet, update({ epoch: 1, since: 1, version: 2, metrics: reading(5, 5) }));
  assert.equal(fleet.twins.get('demo/a')?.version, 2);
});

test('C: lost, doubled and reordered updates with repairs end at the newest state', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  const versions = 12;
  // Version v sets metric v % 3 to v; the state at a version is the fold of all up to it.
  const stateAt = (version: number): Metrics => {
    const metrics: Metrics = {};
    for (let v = 1; v <= version; v += 1) metrics[`m${v % 3}`] = { value: v, at: v };
    return metrics;
  };
  const step = fc.record({ version: fc.integer({ min: 1, max: versions }), repair: fc.boolean() });
  const property = fc.property(fc.array(step, { maxLength: 60 }), steps => {
    const fleet = emptyFleet();
    let highest = 0;
    for (const { version, repair } of steps) {
      const { resync } = apply(
        fleet,
        update({
          since: version - 1,
          version,
          metrics: { [`m${version % 3}`]: { value: version, at: version } },
        }),
      );
      if (resync.length > 0 && repair)
        apply(fleet, snapshot('twin:demo/a', [twin('a', 5, version, stateAt(version))]));
      const held = fleet.twins.get('demo/a')?.version ?? 0;
      assert.ok(held >= highest, 'never back');
      highest = held;
      const metrics = Object.fromEntries(fleet.twins.get('demo/a')?.metrics ?? []);
      assert.deepEqual(metrics, stateAt(held), `version ${held} is whole`);
    }
  });
  fc.assert(property, { seed, numRuns: 500 });
});

test('presence comes with the snapshot, changes with an update that names it, and stays otherwise', () => {
  const fleet = emptyFleet();
  const presence = (online: unknown, at: unknown) => ({ presence: { online, at } });
  apply(fleet, snapshot('site:demo', [{ ...twin('a', 5, 1), ...presence(true, 10) }, twin('b', 5, 1)]));
  const held = () => fleet.twins.get('demo/a')?.presence;
  assert.deepEqual(held(), { online: true, at: 10 });
  assert.equal(fleet.twins.get('demo/b')?.presence, null);
  apply(fleet, update({ since: 1, version: 2 }));
  assert.deepEqual(held(), { online: true, at: 10 });
  apply(fleet, update({ since: 2, version: 3, ...presence(false, 20) }));
  assert.deepEqual(held(), { online: false, at: 20 });
  apply(fleet, update({ since: 3, version: 4, ...presence('no', 30) }));
  assert.deepEqual(held(), { online: false, at: 20 });
});
