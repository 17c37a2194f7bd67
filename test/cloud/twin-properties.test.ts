/** What must hold of a twin for any readings in any order. A failing case prints its seed and the shrunk input. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isAfter } from '../../cloud/actors/order.ts';
import type { ThresholdRule } from '../../cloud/actors/rule.ts';
import { type MetricState, newTwin, type Reading, receive, type TwinState } from '../../cloud/actors/twin.ts';
import { restoreTwin, storeTwin } from '../../cloud/twin-json.ts';
import { DEVICE, fold, frozen, reading, readingSet, rulesOf, SITE, T0, tooHot } from './twins.ts';

/** A set of readings and some order of them with repetitions, each at least once. */
const shuffled = readingSet.chain(set =>
  fc
    .tuple(
      fc.shuffledSubarray(set, { minLength: set.length }),
      set.length > 0 ? fc.array(fc.constantFrom(...set), { maxLength: 15 }) : fc.constant([]),
      fc.nat(),
    )
    .map(([order, repeated, at]) => {
      const list = [...order];
      for (const [index, one] of repeated.entries())
        list.splice((at + index * 7) % (list.length + 1), 0, one);
      return { set, list };
    }),
);

const sorted = (twin: TwinState) => [...twin.metrics].sort(([a], [b]) => (a < b ? -1 : 1));

/** The maximum per metric, the slow way. */
function naive(set: readonly Reading[]): [string, MetricState][] {
  const best = new Map<string, MetricState>();
  for (const { metrics, values, at, log, sequence, element, receivedAt } of set) {
    for (const [index, name] of metrics.entries()) {
      const candidate = { value: values[index]!, at, log, sequence, element, receivedAt };
      const known = best.get(name);
      if (!known || isAfter(candidate, known)) best.set(name, candidate);
    }
  }
  return [...best].sort(([a], [b]) => (a < b ? -1 : 1));
}

const rules: ThresholdRule[] = [
  tooHot,
  { ...tooHot, id: 'much-too-hot', threshold: 35, severity: 'critical' },
  { ...tooHot, id: 'too-cold', comparison: 'below', threshold: 25, hysteresis: 0 },
  { ...tooHot, id: 'too-dry', metric: 'humidity', comparison: 'below' },
];

test('any order of the same readings, with repetitions, gives the same metrics: the latest of each (C)', () => {
  fc.assert(
    fc.property(shuffled, ({ set, list }) => {
      assert.deepEqual(sorted(fold(list, rules)), naive(set));
    }),
    { numRuns: 1000 },
  );
});

test('a metric never goes back, a version only grows, and no state is changed in place (C)', () => {
  fc.assert(
    fc.property(shuffled, ({ list }) => {
      let twin = frozen(newTwin(SITE, DEVICE));
      for (const one of list) {
        const { state } = receive(twin, {
          type: 'reading',
          reading: Object.freeze(one),
          rules: rulesOf(rules),
        });
        assert.equal(state.version, twin.version + (state === twin ? 0 : 1));
        assert.ok(state.seenAt >= twin.seenAt);
        for (const [name, metric] of state.metrics) {
          const before = twin.metrics.get(name);
          assert.ok(before === undefined || before === metric || isAfter(metric, before) || state === twin);
        }
        twin = state === twin ? twin : frozen(state);
      }
    }),
    { numRuns: 500 },
  );
});

test('a merge is the fold of both: commutative, associative, idempotent in its metrics (C)', () => {
  const parts = shuffled.chain(({ set }) => fc.tuple(fc.subarray(set), fc.subarray(set), fc.subarray(set)));
  const merge = (a: TwinState, b: TwinState) => receive(frozen(a), { type: 'merge', other: frozen(b) }).state;
  fc.assert(
    fc.property(parts, ([listA, listB, listC]) => {
      const [a, b, c] = [fold(listA), fold(listB), fold(listC)];
      const ab = merge(a, b);
      assert.deepEqual(sorted(ab), naive([...listA, ...listB]));
      assert.deepEqual(sorted(ab), sorted(merge(b, a)));
      assert.deepEqual(sorted(merge(ab, c)), sorted(merge(a, merge(b, c))));
      assert.deepEqual(sorted(merge(a, a)), sorted(a));
      assert.equal(ab.version, Math.max(a.version, b.version));
      assert.equal(ab.seenAt, Math.max(a.seenAt, b.seenAt));
    }),
    { numRuns: 1000 },
  );
});

test('the order of readings is total: of two different ones exactly one is after the other', () => {
  fc.assert(
    fc.property(readingSet, set => {
      for (const a of set) {
        for (const b of set) assert.equal(isAfter(a, b), a !== b && !isAfter(b, a));
        for (const b of set)
          for (const c of set) if (isAfter(a, b) && isAfter(b, c)) assert.ok(isAfter(a, c));
      }
    }),
    { numRuns: 200 },
  );
});

test('per rule incidents open and clear in turn, at most one is open, and a replay finds the same ones', () => {
  const temperatures = fc.array(fc.integer({ min: 20, max: 40 }), { maxLength: 40 });
  fc.assert(
    fc.property(temperatures, list => {
      const readings = list.map((temperature, index) =>
        reading(
          { temperature, humidity: 60 - temperature },
          { at: T0 + index, sequence: 1 + index, element: 0 },
        ),
      );
      const run = (from: TwinState, some: readonly Reading[]) => {
        let twin = from;
        const transitions = some.flatMap(one => {
          const outcome = receive(twin, { type: 'reading', reading: one, rules: rulesOf(rules) });
          twin = outcome.state;
          return outcome.effects.map(({ transition }) => transition);
        });
        return { twin, transitions };
      };
      const { twin, transitions } = run(newTwin(SITE, DEVICE), readings);
      assert.deepEqual(run(newTwin(SITE, DEVICE), readings).transitions, transitions);

      const openings = transitions.filter(({ clearedAt }) => clearedAt === null);
      assert.equal(new Set(openings.map(({ id }) => id)).size, openings.length, 'ids differ');
      for (const rule of rules) {
        const ofRule = transitions.filter(transition => transition.rule === rule.id);
        for (const [index, transition] of ofRule.entries()) {
          assert.equal(transition.clearedAt === null, index % 2 === 0, 'open and clear in turn');
          if (index % 2 === 1) assert.equal(transition.id, ofRule[index - 1]!.id);
        }
        assert.equal(twin.alerts.has(rule.id), ofRule.length % 2 === 1);
      }

      // From a state that was stored on the way, the rest gives the same incidents.
      const half = Math.floor(readings.length / 2);
      const first = run(newTwin(SITE, DEVICE), readings.slice(0, half));
      const restored = restoreTwin(SITE, DEVICE, storeTwin(first.twin, 1))!;
      const rest = run(restored, readings.slice(half));
      assert.deepEqual([...first.transitions, ...rest.transitions], transitions);
    }),
    { numRuns: 500 },
  );
});
