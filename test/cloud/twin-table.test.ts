/**
 * Every state of a twin against every message. A cell says what happens to the twin, which temperature it shows
 * afterwards, and what becomes of the alert:
 *
 *   same · moves · joins      the state is the same one · a version further · a merge
 *   quiet · opens · stays · clears · leaves · taken · dropped      leaves: an incident that is over and was never shown; the
 *   last two by a merge, without an incident
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ThresholdRule } from '../../cloud/actors/rule.ts';
import {
  LATE_AFTER_MS,
  METRICS_MAX,
  newTwin,
  receive,
  type TwinEffect,
  type TwinMessage,
  type TwinState,
} from '../../cloud/actors/twin.ts';
import { book, DEVICE, fold, frozen, reading, rulesOf, SITE, T0, tooHot } from './twins.ts';

const elsewhere: ThresholdRule[] = [
  { ...tooHot, id: 'another-site', site: 'other' },
  { ...tooHot, id: 'another-device', device: 'fan' },
  { ...tooHot, id: 'another-metric', metric: 'humidity', threshold: 90 },
];
const rules = [tooHot, ...elsewhere];
const on = (
  metrics: Parameters<typeof reading>[0],
  more: Parameters<typeof reading>[1] = {},
): TwinMessage => ({
  type: 'reading',
  reading: reading(metrics, more),
  rules: rulesOf(rules),
});
const clock = (completeUntil: number, gateway = 'g1'): TwinMessage => ({
  type: 'clock',
  gateway,
  clock: { completeUntil, hearingSince: 0, standsIn: false },
  rules: rulesOf(rules),
});
const merge = (other: TwinState): TwinMessage => ({ type: 'merge', other });

/** What is known was read at T0, as element 1 of sequence 10 of log-b. */
const cool = reading({ temperature: 20 });
const hot = reading({ temperature: 35 });
const late = { at: T0 + 1, receivedAt: T0 + 1 + LATE_AFTER_MS + 1 };
const filling = Object.fromEntries(
  Array.from({ length: METRICS_MAX - 1 }, (_, index) => [`m${index}`, index]),
);

const states = {
  new: newTwin(SITE, DEVICE),
  quiet: fold([cool], rules),
  /** Too hot since a reading that came late, so nobody was told. */
  hotUnseen: fold([{ ...hot, receivedAt: T0 + LATE_AFTER_MS + 1 }], rules),
  alert: fold([hot], rules),
  /** No room for another metric. */
  full: fold([cool, reading(filling)], rules),
};

const messages = {
  newer: on({ temperature: 21 }, { at: T0 + 1 }),
  older: on({ temperature: 21 }, { at: T0 - 1 }),
  olderCrossing: on({ temperature: 36 }, { at: T0 - 1 }),
  olderBack: on({ temperature: 10 }, { at: T0 - 1 }),
  /** The very reading that is known, whatever it says. */
  again: on({ temperature: 21 }),
  laterLog: on({ temperature: 21 }, { log: 'log-c', sequence: 1, element: 0 }),
  earlierLog: on({ temperature: 21 }, { log: 'log-a', sequence: 99, element: 9 }),
  laterSequence: on({ temperature: 21 }, { sequence: 11, element: 0 }),
  earlierSequence: on({ temperature: 21 }, { sequence: 9, element: 9 }),
  laterElement: on({ temperature: 21 }, { element: 2 }),
  earlierElement: on({ temperature: 21 }, { element: 0 }),
  crossing: on({ temperature: 36 }, { at: T0 + 1 }),
  /** As late as a reading may be. */
  crossingJustInTime: on({ temperature: 36 }, { at: T0 + 1, receivedAt: T0 + 1 + LATE_AFTER_MS }),
  lateCrossing: on({ temperature: 36 }, late),
  lateBack: on({ temperature: 10 }, late),
  atThreshold: on({ temperature: 30 }, { at: T0 + 1 }),
  withinHysteresis: on({ temperature: 28.5 }, { at: T0 + 1 }),
  pastHysteresis: on({ temperature: 28 }, { at: T0 + 1 }),
  text: on({ temperature: 'hot' }, { at: T0 + 1 }),
  truth: on({ temperature: true }, { at: T0 + 1 }),
  severalCrossing: on({ humidity: 40, temperature: 36, pressure: 1000 }, { at: T0 + 1 }),
  severalPartlyOld: on({ temperature: 36, vibration: 1 }, { at: T0 - 1 }),
  otherMetric: on({ pressure: 1000 }, { at: T0 + 1 }),
  nothing: on({}, { at: T0 + 1 }),
  clockBehind: clock(T0 + 50),
  clockPast: clock(T0 + 2 * LATE_AFTER_MS),
  clockOfOther: clock(T0 + 2 * LATE_AFTER_MS, 'g2'),
  told: {
    type: 'told',
    incident: receive(fold([cool], rules), on({ temperature: 36 }, { at: T0 + 1 })).effects[0]!.transition,
  },
  rulesSame: { type: 'rules', index: book(...rules) },
  rulesGone: { type: 'rules', index: book(...elsewhere) },
  mergeNew: merge(newTwin(SITE, DEVICE)),
  mergeOlder: merge(fold([reading({ temperature: 15 }, { at: T0 - 1 })])),
  mergeNewer: merge(fold([cool, cool, reading({ temperature: 25 }, { at: T0 + 1 })])),
  mergeNewerAlert: merge(fold([cool, reading({ temperature: 37 }, { at: T0 + 1 })], rules)),
  /** A higher version with an older temperature: its alerts are the ones of the state that has seen more. */
  mergeFurther: merge(
    fold([
      reading({ humidity: 1 }),
      reading({ humidity: 2 }, { at: T0 + 1 }),
      reading({ humidity: 3 }, { at: T0 + 2 }),
    ]),
  ),
  mergeDisjoint: merge(fold([reading({ humidity: 50 })])),
} satisfies Record<string, TwinMessage>;

const table: {
  readonly [State in keyof typeof states]: { readonly [Message in keyof typeof messages]: string };
} = {
  new: {
    newer: 'moves 21 quiet',
    older: 'moves 21 quiet',
    olderCrossing: 'moves 36 opens',
    olderBack: 'moves 10 quiet',
    again: 'moves 21 quiet',
    laterLog: 'moves 21 quiet',
    earlierLog: 'moves 21 quiet',
    laterSequence: 'moves 21 quiet',
    earlierSequence: 'moves 21 quiet',
    laterElement: 'moves 21 quiet',
    earlierElement: 'moves 21 quiet',
    crossing: 'moves 36 opens',
    crossingJustInTime: 'moves 36 opens',
    lateCrossing: 'moves 36 quiet',
    lateBack: 'moves 10 quiet',
    atThreshold: 'moves 30 quiet',
    withinHysteresis: 'moves 28.5 quiet',
    pastHysteresis: 'moves 28 quiet',
    text: 'moves hot quiet',
    truth: 'moves true quiet',
    severalCrossing: 'moves 36 opens',
    severalPartlyOld: 'moves 36 opens',
    otherMetric: 'moves - quiet',
    nothing: 'same - quiet',
    clockBehind: 'same - quiet',
    clockPast: 'same - quiet',
    clockOfOther: 'same - quiet',
    told: 'moves - taken',
    rulesSame: 'same - quiet',
    rulesGone: 'same - quiet',
    mergeNew: 'joins - quiet',
    mergeOlder: 'joins 15 quiet',
    mergeNewer: 'joins 25 quiet',
    mergeNewerAlert: 'joins 37 taken',
    mergeFurther: 'joins - quiet',
    mergeDisjoint: 'joins - quiet',
  },
  quiet: {
    newer: 'moves 21 quiet',
    older: 'same 20 quiet',
    olderCrossing: 'moves 20 quiet',
    olderBack: 'same 20 quiet',
    again: 'same 20 quiet',
    laterLog: 'moves 21 quiet',
    earlierLog: 'same 20 quiet',
    laterSequence: 'moves 21 quiet',
    earlierSequence: 'same 20 quiet',
    laterElement: 'moves 21 quiet',
    earlierElement: 'same 20 quiet',
    crossing: 'moves 36 opens',
    crossingJustInTime: 'moves 36 opens',
    lateCrossing: 'moves 36 quiet',
    lateBack: 'moves 10 quiet',
    atThreshold: 'moves 30 quiet',
    withinHysteresis: 'moves 28.5 quiet',
    pastHysteresis: 'moves 28 quiet',
    text: 'moves hot quiet',
    truth: 'moves true quiet',
    severalCrossing: 'moves 36 opens',
    severalPartlyOld: 'moves 20 quiet',
    otherMetric: 'moves 20 quiet',
    nothing: 'same 20 quiet',
    clockBehind: 'same 20 quiet',
    clockPast: 'same 20 quiet',
    clockOfOther: 'same 20 quiet',
    told: 'moves 20 taken',
    rulesSame: 'same 20 quiet',
    rulesGone: 'same 20 quiet',
    mergeNew: 'joins 20 quiet',
    mergeOlder: 'joins 20 quiet',
    mergeNewer: 'joins 25 quiet',
    mergeNewerAlert: 'joins 37 taken',
    mergeFurther: 'joins 20 quiet',
    mergeDisjoint: 'joins 20 quiet',
  },
  hotUnseen: {
    newer: 'moves 21 leaves',
    older: 'moves 35 quiet',
    olderCrossing: 'moves 35 quiet',
    olderBack: 'moves 35 quiet',
    again: 'same 35 quiet',
    laterLog: 'moves 21 leaves',
    earlierLog: 'moves 35 quiet',
    laterSequence: 'moves 21 leaves',
    earlierSequence: 'moves 35 quiet',
    laterElement: 'moves 21 leaves',
    earlierElement: 'moves 35 quiet',
    crossing: 'moves 36 opens',
    crossingJustInTime: 'moves 36 opens',
    lateCrossing: 'moves 36 quiet',
    lateBack: 'moves 10 quiet',
    atThreshold: 'moves 30 opens',
    withinHysteresis: 'moves 28.5 opens',
    pastHysteresis: 'moves 28 leaves',
    text: 'moves hot quiet',
    truth: 'moves true quiet',
    severalCrossing: 'moves 36 opens',
    severalPartlyOld: 'moves 35 quiet',
    otherMetric: 'moves 35 quiet',
    nothing: 'same 35 quiet',
    clockBehind: 'same 35 quiet',
    clockPast: 'moves 35 opens',
    clockOfOther: 'same 35 quiet',
    told: 'moves 35 taken',
    rulesSame: 'same 35 quiet',
    rulesGone: 'moves 35 quiet',
    mergeNew: 'joins 35 quiet',
    mergeOlder: 'joins 35 quiet',
    mergeNewer: 'joins 25 quiet',
    mergeNewerAlert: 'joins 37 taken',
    mergeFurther: 'joins 35 quiet',
    mergeDisjoint: 'joins 35 quiet',
  },
  alert: {
    newer: 'moves 21 clears',
    older: 'moves 35 stays',
    olderCrossing: 'moves 35 stays',
    olderBack: 'moves 35 stays',
    again: 'same 35 stays',
    laterLog: 'moves 21 clears',
    earlierLog: 'moves 35 stays',
    laterSequence: 'moves 21 clears',
    earlierSequence: 'moves 35 stays',
    laterElement: 'moves 21 clears',
    earlierElement: 'moves 35 stays',
    crossing: 'moves 36 stays',
    crossingJustInTime: 'moves 36 stays',
    lateCrossing: 'moves 36 stays',
    lateBack: 'moves 10 stays',
    atThreshold: 'moves 30 stays',
    withinHysteresis: 'moves 28.5 stays',
    pastHysteresis: 'moves 28 clears',
    text: 'moves hot stays',
    truth: 'moves true stays',
    severalCrossing: 'moves 36 stays',
    severalPartlyOld: 'moves 35 stays',
    otherMetric: 'moves 35 stays',
    nothing: 'same 35 stays',
    clockBehind: 'same 35 stays',
    clockPast: 'moves 35 stays',
    clockOfOther: 'same 35 stays',
    told: 'same 35 stays',
    rulesSame: 'same 35 stays',
    rulesGone: 'moves 35 clears',
    mergeNew: 'joins 35 stays',
    mergeOlder: 'joins 35 stays',
    mergeNewer: 'joins 25 dropped',
    mergeNewerAlert: 'joins 37 stays',
    mergeFurther: 'joins 35 dropped',
    mergeDisjoint: 'joins 35 stays',
  },
  full: {
    newer: 'moves 21 quiet',
    older: 'same 20 quiet',
    olderCrossing: 'moves 20 quiet',
    olderBack: 'same 20 quiet',
    again: 'same 20 quiet',
    laterLog: 'moves 21 quiet',
    earlierLog: 'same 20 quiet',
    laterSequence: 'moves 21 quiet',
    earlierSequence: 'same 20 quiet',
    laterElement: 'moves 21 quiet',
    earlierElement: 'same 20 quiet',
    crossing: 'moves 36 opens',
    crossingJustInTime: 'moves 36 opens',
    lateCrossing: 'moves 36 quiet',
    lateBack: 'moves 10 quiet',
    atThreshold: 'moves 30 quiet',
    withinHysteresis: 'moves 28.5 quiet',
    pastHysteresis: 'moves 28 quiet',
    text: 'moves hot quiet',
    truth: 'moves true quiet',
    severalCrossing: 'moves 36 opens',
    severalPartlyOld: 'moves 20 quiet',
    otherMetric: 'same 20 quiet',
    nothing: 'same 20 quiet',
    clockBehind: 'same 20 quiet',
    clockPast: 'same 20 quiet',
    clockOfOther: 'same 20 quiet',
    told: 'moves 20 taken',
    rulesSame: 'same 20 quiet',
    rulesGone: 'same 20 quiet',
    mergeNew: 'joins 20 quiet',
    mergeOlder: 'joins 20 quiet',
    mergeNewer: 'joins 25 quiet',
    mergeNewerAlert: 'joins 37 quiet',
    mergeFurther: 'joins 20 quiet',
    mergeDisjoint: 'joins 20 quiet',
  },
};

const openOn = (twin: TwinState) => twin.alerts.has(tooHot.id);

function describe(
  before: TwinState,
  message: TwinMessage,
  after: TwinState,
  effects: readonly TwinEffect[],
): string {
  const change = message.type === 'merge' ? 'joins' : after === before ? 'same' : 'moves';
  const temperature = String(after.metrics.get('temperature')?.value ?? '-');
  const [first] = effects.map(({ transition }) =>
    transition.late ? 'leaves' : transition.clearedAt === null ? 'opens' : 'clears',
  );
  if (first) {
    assert.equal(effects.length, 1);
    assert.equal(effects[0]!.transition.rule, tooHot.id);
    assert.equal(openOn(after), first === 'opens');
    assert.equal(openOn(before), first === 'clears');
    return `${change} ${temperature} ${first}`;
  }
  const alert = openOn(before) ? (openOn(after) ? 'stays' : 'dropped') : openOn(after) ? 'taken' : 'quiet';
  return `${change} ${temperature} ${alert}`;
}

test('every cell of state × message is as the table says, and there is no other', () => {
  const actual = Object.fromEntries(
    Object.entries(states).map(([stateName, state]) => [
      stateName,
      Object.fromEntries(
        Object.entries(messages).map(([messageName, message]) => {
          const before = frozen(state);
          const copy = structuredClone({ ...state });
          const { state: after, effects } = receive(before, message);
          assert.deepEqual({ ...state }, copy, `${stateName} × ${messageName} changed its input`);
          return [messageName, describe(before, message, after, effects)];
        }),
      ),
    ]),
  );
  assert.deepEqual(actual, table);
});

test('the messages cover every type of message there is', () => {
  // A new type of message fails to compile here until the table has it.
  const types: Record<TwinMessage['type'], true> = {
    reading: true,
    clock: true,
    rules: true,
    told: true,
    merge: true,
  };
  assert.deepEqual(new Set(Object.values(messages).map(({ type }) => type)), new Set(Object.keys(types)));
});

test('in every cell versions and last contact only grow, and a visible change is exactly one version', () => {
  for (const [stateName, before] of Object.entries(states)) {
    for (const [messageName, message] of Object.entries(messages) as [string, TwinMessage][]) {
      const cell = `${stateName} × ${messageName}`;
      const { state: after } = receive(before, message);
      assert.ok(after.seenAt >= before.seenAt, cell);
      if (message.type === 'merge') {
        assert.equal(after.version, Math.max(before.version, message.other.version), cell);
        for (const name of message.other.metrics.keys()) assert.ok(after.metrics.has(name), cell);
      } else {
        assert.equal(after.version, before.version + (after === before ? 0 : 1), cell);
        assert.ok(after.metrics.size <= METRICS_MAX, cell);
      }
      for (const name of before.metrics.keys()) assert.ok(after.metrics.has(name), cell);
    }
  }
});

test('an incident says all there is to know of it', () => {
  const opening = receive(states.quiet, messages.crossing).effects[0]!.transition;
  assert.deepEqual(opening, {
    id: 'too-hot:demo/pump:log-b:10.1',
    rule: 'too-hot',
    kind: 'threshold',
    severity: 'warning',
    site: 'demo',
    device: 'pump',
    metric: 'temperature',
    summary: 'temperature 36 is above 30',
    threshold: 30,
    openedAt: T0 + 1,
    openedValue: 36,
    clearedAt: null,
    clearedValue: null,
    late: false,
  });
  const alerting = receive(states.quiet, messages.crossing).state;
  const back = on({ temperature: 10 }, { at: T0 + 2 });
  assert.deepEqual(receive(alerting, back).effects[0]!.transition, {
    ...opening,
    clearedAt: T0 + 2,
    clearedValue: 10,
  });
});

test('a rule for values below is the mirror image', () => {
  const tooCold: ThresholdRule = { ...tooHot, id: 'too-cold', comparison: 'below', threshold: 5 };
  const open = (values: number[]): boolean[] => {
    let twin = newTwin(SITE, DEVICE);
    return values.map((temperature, index) => {
      const message = { type: 'reading' as const, rules: rulesOf([tooCold]) };
      twin = receive(twin, { ...message, reading: reading({ temperature }, { at: T0 + index }) }).state;
      return twin.alerts.size === 1;
    });
  };
  assert.deepEqual(open([5, 4.9, 5, 6.9, 7, 4]), [false, true, true, true, false, true]);
});

test('where the rule applies: site, device, both, everywhere', () => {
  const applies = (site: string | null, device: string | null) =>
    receive(states.quiet, {
      ...on({ temperature: 36 }, { at: T0 + 1 }),
      rules: rulesOf([{ ...tooHot, site, device }]),
    } as TwinMessage).effects.length === 1;
  assert.equal(applies(null, null), true);
  assert.equal(applies(SITE, null), true);
  assert.equal(applies(null, DEVICE), true);
  assert.equal(applies(SITE, DEVICE), true);
  assert.equal(applies('other', DEVICE), false);
  assert.equal(applies(SITE, 'other'), false);
});

test('an incident that an earlier owner told is over by a reading that follows its beginning, and by none before it', () => {
  const told = receive(states.quiet, messages.told).state;
  const step = (state: TwinState, temperature: number, at: number, sequence: number) =>
    receive(state, on({ temperature }, { at, sequence }));
  const between = step(told, 20, T0 + 0.5, 11);
  assert.deepEqual(between.effects, []);
  const begun = step(between.state, 36, T0 + 1, 12);
  assert.deepEqual(begun.effects, []);
  const over = step(begun.state, 20, T0 + 2, 13);
  assert.deepEqual(
    over.effects.map(({ transition }) => [transition.id, transition.clearedAt]),
    [[messages.told.incident.id, T0 + 2]],
  );
});
