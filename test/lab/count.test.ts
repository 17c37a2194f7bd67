/** The lab's count finds what is gone, double or made up, and blames the broker only for what is the broker's. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { messageKey } from '../../deploy/faults/broker-tap.ts';
import { type CountInput, count } from '../../deploy/faults/count.ts';
import type { DeviceJournal } from '../../deploy/faults/devices.ts';
import type { StoredCounter } from '../../deploy/faults/stored-counters.ts';
import { isClean } from '../../deploy/lab/report.ts';

const KILLED_AT = 1_000_000;

/** Two devices with three acknowledged messages each; the second one has no timestamps. */
function input(change: {
  stored?: StoredCounter[];
  notTaken?: string[];
  handedOver?: Record<string, number>;
  acknowledgedAt?: number;
  nobodyThere?: boolean;
  brokerKilledAt?: number[];
  thinned?: number;
}): CountInput {
  const at = change.acknowledgedAt ?? KILLED_AT - 1000;
  const journals = ['lab-0', 'lab-4'].map(
    (device, index): DeviceJournal => ({
      device,
      ownTimestamps: index === 0,
      published: 3,
      acknowledged: new Map([1, 2, 3].map(n => [n, { at, nobodyThere: change.nobodyThere ?? false }])),
    }),
  );
  const keys = journals.flatMap(({ device }) => [1, 2, 3].map(n => messageKey(device, n)));
  return {
    journals,
    tap: {
      acknowledged: new Set(keys.filter(key => !change.notTaken?.includes(key))),
      handedOver: key => change.handedOver?.[key] ?? 1,
    },
    brokerKilledAt: change.brokerKilledAt ?? [],
    stored: change.stored ?? all(),
    ledger: { late: 0, thinned: change.thinned ?? 0 },
    wrongValues: [],
  };
}

const all = (): StoredCounter[] =>
  ['lab-0', 'lab-4'].flatMap(device => [1, 2, 3].map(n => ({ device, n, times: 1 })));
const without = (device: string, n: number) => all().filter(row => row.device !== device || row.n !== n);
const twice = (device: string, n: number) => [...without(device, n), { device, n, times: 2 }];

test('everything once is clean', () => {
  const { count: counted, details } = count(input({}));
  assert.ok(isClean(counted));
  assert.deepEqual([counted.published, counted.acknowledged, counted.stored], [6, 6, 6]);
  assert.deepEqual(details, []);
});

test('what the gateway acknowledged and history lacks is lost, also around the death of a broker', () => {
  const { count: counted, details } = count(
    input({ stored: without('lab-0', 2), brokerKilledAt: [KILLED_AT] }),
  );
  assert.equal(counted.lost, 1);
  assert.equal(counted.lost_at_broker, 0);
  assert.match(details[0]!, /missing: lab-0 2.*by the gateway too/);
  assert.ok(!isClean(counted));
});

test('what never reached the gateway is the broker’s loss if it died soon after its PUBACK, or had nobody to give it to', () => {
  const gone = { stored: without('lab-0', 2), notTaken: [messageKey('lab-0', 2)] };
  const verdict = (change: Parameters<typeof input>[0]) => count(input({ ...gone, ...change })).count;
  assert.equal(verdict({ brokerKilledAt: [KILLED_AT] }).lost_at_broker, 1);
  assert.equal(verdict({ nobodyThere: true }).lost_at_broker, 1);
  assert.equal(verdict({}).lost, 1, 'no broker was killed');
  const longBefore = { acknowledgedAt: KILLED_AT - 60_000, brokerKilledAt: [KILLED_AT] };
  assert.equal(verdict(longBefore).lost, 1, 'it had saved that');
});

test('a double is forgiven only without a timestamp, and only when the broker handed it over as new twice', () => {
  const double = (device: string, handed: number) =>
    count(input({ stored: twice(device, 1), handedOver: { [messageKey(device, 1)]: handed } })).count;
  assert.equal(double('lab-0', 2).duplicates, 1);
  assert.equal(double('lab-4', 1).duplicates, 1);
  const forgiven = double('lab-4', 2);
  assert.deepEqual([forgiven.duplicates, forgiven.repeated_unmarked], [0, 1]);
  assert.ok(isClean(forgiven));
});

test('what nobody published is a phantom, and what was thinned is not lost', () => {
  assert.equal(count(input({ stored: [...all(), { device: 'lab-0', n: 4, times: 1 }] })).count.phantoms, 1);
  assert.equal(count(input({ stored: without('lab-0', 2), thinned: 1 })).count.lost, 0);
});
