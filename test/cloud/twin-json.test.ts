import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { newTwin, receive, type TwinState } from '../../cloud/actors/twin.ts';
import {
  isSameStored,
  restoreTwin,
  storeTwin,
  updateFragment,
  viewStoredTwin,
} from '../../cloud/twin-json.ts';
import { DEVICE, fold, reading, readingSet, rulesOf, SITE, T0, tooHot } from './twins.ts';

const byName = (twin: TwinState) => ({ ...twin, metrics: new Map([...twin.metrics].sort()) });

test('a twin that is stored and restored is the same twin', () => {
  fc.assert(
    fc.property(readingSet, set => {
      // JSON has no -0; as a number it is the same value.
      const plain = set.map(one => ({ ...one, values: one.values.map(value => (value === 0 ? 0 : value)) }));
      const twin = fold(plain, [tooHot]);
      assert.deepEqual(byName(restoreTwin(SITE, DEVICE, storeTwin(twin, 7))!), byName(twin));
    }),
    { numRuns: 500 },
  );
});

test('two texts are of the same state under whatever epoch, and of no other state', () => {
  const twin = fold([reading({ temperature: 35 })], [tooHot]);
  const later = fold([reading({ temperature: 35 }), reading({ temperature: 36, sequence: 2 })], [tooHot]);
  assert.equal(isSameStored(storeTwin(twin, 7), storeTwin(twin, 1_768_478_400_000_000)), true);
  assert.equal(isSameStored(storeTwin(twin, 7), storeTwin(later, 7)), false);
});

test('names that mean something to JavaScript are plain names', () => {
  const names = ['__proto__', 'constructor', 'toString', '1', '-0', 'ünï 😀', '"', '\\'];
  const twin = fold([{ ...reading({}), metrics: names, values: names.map((_, index) => index) }]);
  const restored = restoreTwin(SITE, DEVICE, storeTwin(twin, 7))!;
  for (const [index, name] of names.entries()) assert.equal(restored.metrics.get(name)?.value, index, name);
  const view = viewStoredTwin(SITE, DEVICE, storeTwin(twin, 7));
  assert.deepEqual(Object.keys(view.metrics).sort(), [...names].sort());
  assert.equal(({} as { value?: unknown }).value, undefined);
});

test('the view has epoch, version, values with their times, and alerts', () => {
  const twin = fold([reading({ temperature: 35, state: 'on' })], [tooHot]);
  assert.deepEqual(JSON.parse(JSON.stringify(viewStoredTwin(SITE, DEVICE, storeTwin(twin, 7)))), {
    site: SITE,
    device: DEVICE,
    epoch: 7,
    version: 1,
    seenAt: T0 + 50,
    metrics: { temperature: { value: 35, at: T0 }, state: { value: 'on', at: T0 } },
    alerts: { 'too-hot': Object.fromEntries(Object.entries(twin.alerts.get('too-hot')!)) },
    presence: null,
  });
});

test('fragments laid over one another give the view of the last state', () => {
  fc.assert(
    fc.property(readingSet, set => {
      let twin: TwinState | null = null;
      const shown: {
        metrics: Record<string, unknown>;
        alerts: object;
        presence: object | null;
        version: number;
      } = { metrics: {}, alerts: {}, presence: null, version: 0 };
      for (const one of set) {
        const { state } = receive(twin ?? newTwin(SITE, DEVICE), {
          type: 'reading',
          reading: one,
          rules: rulesOf([tooHot]),
        });
        if (state === twin) continue;
        const fragment = JSON.parse(updateFragment(twin, state, 7));
        assert.equal(fragment.since, shown.version);
        Object.assign(shown.metrics, fragment.metrics);
        if (fragment.alerts) shown.alerts = fragment.alerts;
        if (fragment.presence) shown.presence = fragment.presence;
        shown.version = fragment.version;
        twin = state;
      }
      if (!twin || twin.version === 0) return;
      const { metrics, alerts, presence, version } = viewStoredTwin(SITE, DEVICE, storeTwin(twin, 7));
      assert.deepEqual(
        JSON.parse(JSON.stringify(shown)),
        JSON.parse(JSON.stringify({ metrics, alerts, presence, version })),
      );
    }),
    { numRuns: 500 },
  );
});

test('what is no stored twin counts as not stored (H)', () => {
  for (const text of [
    '',
    'null',
    '{}',
    '[]',
    '{"readings":5}',
    '{"readings":[[1]],"alerts":{}}',
    '{"readings":[],"alerts":null}',
  ]) {
    assert.equal(restoreTwin(SITE, DEVICE, text), null, text);
  }
});
