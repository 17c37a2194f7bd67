/** What a twin says of its device's connection, from status messages in any order (C). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isAfter } from '../../cloud/actors/order.ts';
import { connectionIn } from '../../cloud/actors/presence.ts';
import { METRICS_MAX, newTwin, type Reading, receive, type TwinState } from '../../cloud/actors/twin.ts';
import { restoreTwin, storeTwin, updateFragment, viewStoredTwin } from '../../cloud/twin-json.ts';
import { DEVICE, fold, reading, readingSet, SITE, T0 } from './twins.ts';

const status = (values: Record<string, string | boolean | number>, at: number): Reading =>
  reading(values, { at, kind: 'status' });

test('the names and words that devices use', () => {
  const cases: [Record<string, string | boolean | number>, boolean | null][] = [
    [{ status: 'online' }, true],
    [{ status: 'OFFLINE ' }, false],
    [{ 'status.status': 'offline' }, false],
    [{ 'status.online': true }, true],
    [{ 'status.online': 0 }, false],
    [{ 'status.connected': 'false' }, false],
    [{ 'status.state': 'disconnected' }, false],
    [{ 'status.uptime': 1, 'status.online': false }, false],
    [{ status: 'charging' }, null],
    [{ 'status.battery': 1 }, null],
    [{ 'status.note': 'offline' }, null],
    [{}, null],
  ];
  for (const [values, online] of cases) {
    assert.equal(connectionIn(Object.keys(values), Object.values(values)), online, JSON.stringify(values));
  }
});

test('the newest status message decides, whatever comes when; telemetry of the same name does not', () => {
  const offline = status({ status: 'offline' }, T0 + 10);
  const twin = fold([status({ status: 'online' }, T0), offline, status({ 'status.online': true }, T0 + 5)]);
  assert.deepEqual(viewStoredTwin(SITE, DEVICE, storeTwin(twin, 1)).presence, {
    online: false,
    at: T0 + 10,
  });
  const after = fold([reading({ status: 'online' }, { at: T0 + 20 })], [], twin);
  assert.equal(after.metrics.get('status')!.value, 'online');
  assert.equal(after.presence, twin.presence);
  // The metric is newer already; the presence is not.
  const later = fold([status({ status: 'online' }, T0 + 15)], [], after);
  assert.equal(later.version, after.version + 1);
  assert.deepEqual(JSON.parse(updateFragment(after, later, 1)).presence, { online: true, at: T0 + 15 });
  assert.equal('presence' in JSON.parse(updateFragment(twin, after, 1)), false, 'told when it changes');
});

test('a twin without room for another metric still knows whether its device is there', () => {
  const many = Object.fromEntries(Array.from({ length: METRICS_MAX }, (_, index) => [`m${index}`, index]));
  const full = fold([reading(many)]);
  const twin = fold([status({ status: 'offline' }, T0 + 1)], [], full);
  assert.equal(twin.presence?.online, false);
  assert.equal(twin.metrics, full.metrics);
});

test('any order, with repetitions and merges, gives the presence of the newest; it is stored and restored (C)', () => {
  const newest = (set: readonly Reading[]) =>
    set
      .filter(one => one.kind === 'status' && connectionIn(one.metrics, one.values) !== null)
      .reduce<Reading | null>((best, one) => (best && !isAfter(one, best) ? best : one), null);
  fc.assert(
    fc.property(readingSet, fc.nat(), (set, at) => {
      const split = set.length === 0 ? 0 : at % set.length;
      const joined = receive(fold(set.slice(split)), {
        type: 'merge',
        other: fold([...set].reverse().slice(0, set.length - split)),
      }).state;
      const whole: TwinState = fold([...set, ...set].reverse());
      const wanted = newest(set);
      assert.equal(whole.presence?.online, wanted ? connectionIn(wanted.metrics, wanted.values) : undefined);
      assert.equal(whole.presence?.at, wanted?.at);
      const both = [...set.slice(split), ...[...set].reverse().slice(0, set.length - split)];
      assert.equal(joined.presence?.at, newest(both)?.at);
      assert.deepEqual(restoreTwin(SITE, DEVICE, storeTwin(whole, 1))!.presence, whole.presence);
    }),
    { numRuns: 500 },
  );
  assert.equal(newTwin(SITE, DEVICE).presence, null);
});
