/** Twins, rules and readings for the tests of the actors. */
import fc from 'fast-check';
import type { Rule, ThresholdRule } from '../../cloud/actors/rule.ts';
import { indexRules, type RuleIndex, type TwinRules } from '../../cloud/actors/rule-index.ts';
import { type BatchOutcome, newSiteState, receiveBatch } from '../../cloud/actors/site.ts';
import { newTwin, type Reading, receive, type TwinState } from '../../cloud/actors/twin.ts';
import type { Kind, ReadingsBatch, Value } from '../../protocol/batch.ts';

export const SITE = 'demo';
export const DEVICE = 'pump';
export const T0 = Date.UTC(2026, 0, 15, 12);

export const tooHot: ThresholdRule = {
  id: 'too-hot',
  kind: 'threshold',
  metric: 'temperature',
  comparison: 'above',
  threshold: 30,
  hysteresis: 2,
  forMs: 0,
  severity: 'warning',
  site: null,
  device: null,
  deviceType: null,
  tag: null,
};

export const book = (...rules: readonly Rule[]): RuleIndex => indexRules(rules, 1);

export const rulesOf = (rules: readonly Rule[]): TwinRules => book(...rules).of(SITE, DEVICE, null);

export function reading(metrics: Record<string, Value>, more: Partial<Reading> = {}): Reading {
  const at = more.at ?? T0;
  return {
    at,
    receivedAt: at + 50,
    gateway: 'g1',
    lane: 'live',
    stretch: 0,
    isNewStretch: false,
    isLate: false,
    log: 'log-b',
    sequence: 10,
    element: 1,
    kind: 'telemetry',
    metrics: Object.keys(metrics),
    values: Object.values(metrics),
    ...more,
  };
}

export const fold = (
  readings: readonly Reading[],
  rules: readonly Rule[] = [],
  start: TwinState = newTwin(SITE, DEVICE),
): TwinState => {
  const ofTwin = rulesOf(rules);
  return readings.reduce(
    (state, one) => receive(state, { type: 'reading', reading: one, rules: ofTwin }).state,
    start,
  );
};

/** A batch of the live lane, at a site that has nothing but these twins. */
export const foldBatch = (
  site: string,
  twins: ReadonlyMap<string, TwinState>,
  batch: ReadingsBatch,
  rules: readonly Rule[],
): BatchOutcome =>
  receiveBatch(newSiteState(site), twins, { batch, gateway: 'g1', lane: 'live' }, book(...rules));

/** A map that throws on every change, so that a test sees who changes it. */
function frozenMap<K, V>(map: ReadonlyMap<K, V>): ReadonlyMap<K, V> {
  const frozen = new Map([...map].map(([key, value]) => [key, Object.freeze(value)]));
  const refuse = (): never => {
    throw new Error('a state was changed in place');
  };
  return Object.freeze(Object.assign(frozen, { set: refuse, delete: refuse, clear: refuse }));
}

export const frozen = (twin: TwinState): TwinState =>
  Object.freeze({ ...twin, metrics: frozenMap(twin.metrics), alerts: frozenMap(twin.alerts) });

/** Readings that belong together: one (log, sequence, element) has one time and one content. */
export const readingSet: fc.Arbitrary<Reading[]> = fc.uniqueArray(
  fc
    .record({
      at: fc.integer({ min: T0, max: T0 + 3 }),
      delay: fc.constantFrom(0, 50, 299_999, 300_000, 300_001, 86_400_000),
      log: fc.constantFrom('log-a', 'log-b'),
      sequence: fc.integer({ min: 1, max: 4 }),
      element: fc.integer({ min: 0, max: 2 }),
      kind: fc.constantFrom<Kind>('telemetry', 'status'),
      metrics: fc.dictionary(
        fc.constantFrom('temperature', 'humidity', 'state', 'status'),
        fc.oneof(
          fc.integer({ min: 20, max: 40 }),
          fc.constantFrom<Value>('on', true, -0, 1e308, 'online', 'offline'),
        ),
        { noNullPrototype: true },
      ),
    })
    .map(({ metrics, delay, at, ...rest }) => reading(metrics, { at, receivedAt: at + delay, ...rest })),
  { selector: ({ log, sequence, element }) => `${log}:${sequence}.${element}`, maxLength: 15 },
);
