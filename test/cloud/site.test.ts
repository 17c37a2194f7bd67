import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Rule } from '../../cloud/actors/rule.ts';
import { indexRules } from '../../cloud/actors/rule-index.ts';
import { newSiteState, receiveBatch, TWINS_PER_SITE_MAX } from '../../cloud/actors/site.ts';
import { newTwin, type TwinState } from '../../cloud/actors/twin.ts';
import { buildBatch } from '../../edge-gateway/batch-builder.ts';
import { frame, LOG_ID, RECEIVED_AT } from '../edge-gateway/frames.ts';
import { foldBatch, SITE, tooHot } from './twins.ts';

const batchOf = (...messages: [string, unknown][]) =>
  buildBatch(
    LOG_ID,
    messages.map(([device, payload], index) =>
      frame(1 + index, `devices/${device}/telemetry`, JSON.stringify(payload)),
    ),
  );

test('a batch changes the twins it has readings for; before and after belong together', () => {
  const twins = new Map<string, TwinState>();
  const first = foldBatch(SITE, twins, batchOf(['a', { t: 1 }], ['b', { t: 2 }], ['a', { t: 3 }]), []);
  assert.deepEqual([...first.changes.keys()], ['a', 'b']);
  assert.equal(first.changes.get('a')!.before, null);
  assert.equal(first.changes.get('a')!.after.metrics.get('t')!.value, 3);
  assert.equal(first.changes.get('a')!.after.version, 2);
  assert.equal(twins.size, 0, 'the fold leaves the map to its caller');

  for (const [device, { after }] of first.changes) twins.set(device, after);
  const second = foldBatch(SITE, twins, batchOf(['b', { t: 2 }], ['b', { t: 5 }], ['b', { t: 6 }]), []);
  assert.deepEqual([...second.changes.keys()], ['b']);
  assert.equal(second.changes.get('b')!.before, twins.get('b'));
});

test('the same batch again changes nothing (C)', () => {
  const batch = batchOf(['a', [{ t: 40 }, { t: 20, s: 'on' }]], ['b', { t: 35 }]);
  const once = foldBatch(SITE, new Map(), batch, [tooHot]);
  const twins = new Map([...once.changes].map(([device, { after }]) => [device, after]));
  const again = foldBatch(SITE, twins, batch, [tooHot]);
  assert.equal(again.changes.size, 0);
  assert.deepEqual(again.transitions, []);
});

test('incidents carry the sequence and element of the reading that opened them', () => {
  const batch = batchOf(['a', { temperature: 20 }], ['a', [{ temperature: 25 }, { temperature: 31 }]]);
  const { transitions } = foldBatch(SITE, new Map(), batch, [tooHot]);
  assert.deepEqual(
    transitions.map(({ id }) => id),
    [`too-hot:${SITE}/a:${LOG_ID}:2.1`],
  );
});

test('a timestamp too far ahead is ordered by its arrival', () => {
  const batch = batchOf(['a', { ts: RECEIVED_AT + 86_400_000, t: 1 }], ['a', { t: 2 }]);
  const { changes } = foldBatch(SITE, new Map(), batch, []);
  assert.equal(changes.get('a')!.after.metrics.get('t')!.value, 2);
});

test('beyond the bound a new device has no twin, and is counted; known ones go on (F)', () => {
  const one = newTwin(SITE, 'known');
  const twins = new Map<string, TwinState>([['known', one]]);
  while (twins.size < TWINS_PER_SITE_MAX - 1) twins.set(`d${twins.size}`, one);
  const outcome = foldBatch(
    SITE,
    twins,
    batchOf(['last', { t: 1 }], ['over', { t: 1 }], ['over', { t: 2 }], ['known', { t: 1 }]),
    [],
  );
  assert.deepEqual([...outcome.changes.keys()], ['last', 'known']);
  assert.equal(outcome.withoutTwin, 2);
});

test('a twin that throws goes on without the message, and is set aside the second time; the others go on (H)', () => {
  const broken: Rule = Object.defineProperty({ ...tooHot, id: 'broken', device: 'bad' }, 'threshold', {
    enumerable: true,
    get() {
      throw new Error('a bug');
    },
  });
  const rules = indexRules([tooHot, broken], 1);
  const state = newSiteState(SITE);
  const twins = new Map<string, TwinState>();
  let sequence = 1;
  const arrive = (...messages: [string, unknown][]) => {
    const frames = messages.map(([device, payload]) =>
      frame(sequence++, `devices/${device}/telemetry`, JSON.stringify(payload)),
    );
    const batch = buildBatch(LOG_ID, frames);
    const outcome = receiveBatch(state, twins, { batch, gateway: 'g', lane: 'live' }, rules);
    for (const [device, { after }] of outcome.changes) twins.set(device, after);
    return outcome;
  };
  arrive(['bad', { other: 1 }], ['good', { temperature: 20 }]);
  const stored = twins.get('bad')!;
  const first = arrive(['bad', { temperature: 99 }], ['good', { temperature: 31 }]);
  assert.equal(twins.get('bad'), stored, 'it is as it was');
  assert.equal(first.transitions.length, 1, 'the other one has its incident');
  assert.equal(state.failures.get('bad')!.setAside, false);
  arrive(['bad', { temperature: 99 }]);
  assert.match(state.failures.get('bad')!.reason, /a bug/);
  assert.equal(state.failures.get('bad')!.setAside, true);
  const last = arrive(['bad', { other: 2 }], ['good', { temperature: 5 }]);
  assert.equal(last.withoutTwin, 1, 'in history only');
  assert.equal(twins.get('good')!.metrics.get('temperature')!.value, 5);
});
