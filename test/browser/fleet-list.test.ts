/** Filter, order and window of the fleet list, at the size it is made for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  DEFAULT_CHOICE,
  type ListChoice,
  selectTwins,
  sortedKeys,
  visibleWindow,
} from '../../cloud/dashboard/fleet-list.ts';
import { readTwin, type Twin } from '../../cloud/dashboard/model.ts';
import { fleetHash, parseRoute, siteHash, twinHash } from '../../cloud/dashboard/route.ts';

const NOW = 1_763_712_345_000;
const alert = { metric: 'temperature', severity: 'warning', openedAt: NOW, value: 31, threshold: 30 };

function twinOf(site: string, device: string, ageMs: number | null, alerts = 0): Twin {
  const twin = readTwin({
    site,
    device,
    epoch: 1,
    version: 1,
    seenAt: NOW,
    metrics: ageMs === null ? {} : { temperature: { value: 21, at: NOW - ageMs } },
    alerts: Object.fromEntries(Array.from({ length: alerts }, (_, index) => [`rule-${index}`, alert])),
  });
  assert.ok(twin);
  return twin;
}
const fleetOf = (...twins: Twin[]) => new Map(twins.map(twin => [twin.key, twin]));
const twins = fleetOf(
  twinOf('plant', 'pump-10', 1_000),
  twinOf('demo', 'pump-2', 120_000, 1),
  twinOf('demo', 'Boiler.A', null),
  twinOf('plant', 'pump-2', 5_000, 2),
  twinOf('demo', 'ahead', -600_000),
);
const select = (choice: Partial<ListChoice>) =>
  selectTwins(twins, sortedKeys(twins), { ...DEFAULT_CHOICE, ...choice }, NOW);

test('names sort as people count', () => {
  assert.deepEqual(sortedKeys(twins), [
    'demo/ahead',
    'demo/Boiler.A',
    'demo/pump-2',
    'plant/pump-2',
    'plant/pump-10',
  ]);
  assert.deepEqual(select({ descending: true }).keys[0], 'plant/pump-10');
});

test('search: every word, anywhere in site and device, whatever the case', () => {
  assert.deepEqual(select({ search: 'PUMP plant' }).keys, ['plant/pump-2', 'plant/pump-10']);
  assert.deepEqual(select({ search: 'boiler.' }).keys, ['demo/Boiler.A']);
  assert.deepEqual(select({ search: '.*' }).keys, []);
  assert.deepEqual(select({ site: 'demo', search: 'pump' }).keys, ['demo/pump-2']);
});

test('counts are those of site and search, whatever is shown', () => {
  assert.deepEqual(select({ only: 'alerts' }).counts, { all: 5, alerts: 2, stale: 3 });
  assert.deepEqual(select({ only: 'alerts', site: 'plant' }).counts, { all: 2, alerts: 1, stale: 0 });
});

test('stale: old values, none at all, and those of a clock that runs ahead', () => {
  assert.deepEqual(select({ only: 'stale' }).keys, ['demo/ahead', 'demo/Boiler.A', 'demo/pump-2']);
});

test('orders', () => {
  assert.deepEqual(select({ sort: 'alerts', descending: true }).keys.slice(0, 2), [
    'plant/pump-2',
    'demo/pump-2',
  ]);
  assert.deepEqual(select({ sort: 'age', descending: true }).keys.slice(0, 2), [
    'demo/Boiler.A',
    'demo/pump-2',
  ]);
  assert.deepEqual(select({ sort: 'site' }).keys.slice(-2), ['plant/pump-2', 'plant/pump-10']);
});

test('the window covers the view, and its heights add up to the list', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
  const property = fc.property(
    fc.integer({ min: -100, max: 500_000 }),
    fc.integer({ min: 0, max: 2_000 }),
    fc.constantFrom(44, 68),
    fc.integer({ min: 0, max: 10_000 }),
    (scrollTop, height, rowHeight, count) => {
      const { first, last, heightBefore, heightAfter } = visibleWindow(scrollTop, height, rowHeight, count);
      assert.ok(first >= 0 && first <= last && last <= count);
      assert.equal(heightBefore + (last - first) * rowHeight + heightAfter, count * rowHeight);
      const top = Math.min(Math.max(0, scrollTop), Math.max(0, count * rowHeight - height));
      assert.ok(first * rowHeight <= top && last * rowHeight >= Math.min(count * rowHeight, top + height));
      assert.ok(last - first <= height / rowHeight + 18, 'few rows, however long the list');
    },
  );
  fc.assert(property, { seed, numRuns: 1_000 });
});

test('routes come back from their addresses, whatever the names', () => {
  const choice: ListChoice = {
    search: 'a&b #?%',
    site: 'demo',
    only: 'stale',
    sort: 'age',
    descending: true,
  };
  assert.deepEqual(parseRoute(fleetHash(choice)), { view: 'fleet', choice });
  assert.deepEqual(parseRoute(''), { view: 'fleet', choice: DEFAULT_CHOICE });
  assert.equal(fleetHash(DEFAULT_CHOICE), '#/');
  for (const device of ['pump-1', '0x00.15:8d_a', '__proto__', 'constructor']) {
    for (const chart of [
      { metric: null, range: null },
      { metric: device, range: '24 h' },
      { metric: 'a&b=c#?', range: null },
    ]) {
      assert.deepEqual(parseRoute(twinHash('demo', device, chart)), {
        view: 'twin',
        site: 'demo',
        device,
        ...chart,
      });
    }
  }
  assert.deepEqual(parseRoute('#/alerts'), { view: 'alerts' });
  assert.deepEqual(parseRoute('#/health?x=1'), { view: 'health' });
  for (const hash of ['#/twin/demo', '#/twin/a/b/c', '#/constructor', '#/%E0%A4%A']) {
    assert.equal(parseRoute(hash).view, 'unknown', hash);
  }
});

test('twins of a site that nobody hears are stale, whatever their age', () => {
  const silentSince = (site: string): number | null => (site === 'plant' ? NOW - 20_000 : null);
  const choice: ListChoice = { ...DEFAULT_CHOICE, only: 'stale', site: 'plant' };
  const { keys } = selectTwins(twins, sortedKeys(twins), choice, NOW, silentSince);
  assert.deepEqual(keys, ['plant/pump-2', 'plant/pump-10']);
  assert.deepEqual(select({ only: 'stale', site: 'plant' }).keys, []);
});

test('the address of a site is read as it was written', () => {
  for (const site of ['demo', 'a b/c', 'ü%', 'constructor']) {
    assert.deepEqual(parseRoute(siteHash(site)), { view: 'site', site });
  }
  assert.equal(parseRoute('#/site/').view, 'unknown');
});
