import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { applyRegistry, applyRegistryToThinned } from '../../cloud/registry/apply.ts';
import { decodeKeptMessage, keptMessageOf } from '../../cloud/registry/kept-message.ts';
import { buildBatch } from '../../edge-gateway/batch-builder.ts';
import type { ReadingsBatch } from '../../protocol/batch.ts';
import { forEachRow } from '../../protocol/batch-rows.ts';
import { batchFault } from '../../protocol/batch-rules.ts';
import { thinnedOf } from '../cloud/history.ts';
import { frame, LOG_ID } from '../edge-gateway/frames.ts';
import { snapshot } from './snapshot.ts';

type Sent = readonly [device: string, payload: unknown];
const batchOf = (messages: readonly Sent[], first = 1): ReadingsBatch =>
  buildBatch(
    LOG_ID,
    messages.map(([device, payload], index) =>
      frame(first + index, `devices/${device}/telemetry`, JSON.stringify(payload)),
    ),
  );

/** Rows as `sequence.element device {…}`. */
function told(batch: ReadingsBatch): string[] {
  const lines: string[] = [];
  forEachRow(batch, ({ row, names, values }) => {
    const sequence = batch.firstSequence + batch.rows.sequenceOffset[row]!;
    const metrics = JSON.stringify(Object.fromEntries(names.map((name, i) => [name, values[i]])));
    lines.push(`${sequence}.${batch.rows.element[row]} ${batch.devices[batch.rows.device[row]!]} ${metrics}`);
  });
  return lines;
}

test('a batch that nothing applies to comes back as it is', () => {
  const batch = batchOf([
    ['a', { t: 1 }],
    ['b', { t: 2 }],
  ]);
  assert.equal(applyRegistry(batch, null), batch);
  assert.equal(applyRegistry(batch, snapshot({})), batch);
  assert.equal(
    applyRegistry(batch, snapshot({ unknownDevices: 'quarantine', devices: { a: {}, b: {} } })),
    batch,
  );
});

test('readings under an alias are those of its device', () => {
  const batch = batchOf([
    ['new', { t: 1 }],
    ['old', { t: 2 }],
    ['c', { t: 3 }],
  ]);
  const applied = applyRegistry(batch, snapshot({ devices: { old: {} }, aliases: { new: 'old' } }));
  assert.deepEqual(told(applied), ['1.0 old {"t":1}', '2.0 old {"t":2}', '3.0 c {"t":3}']);
  assert.deepEqual(told(batch)[0], '1.0 new {"t":1}', 'the batch that came is as it was');
});

test('each device is converted as its own type says, within one column; texts and truths are left alone', () => {
  const fahrenheit = { t: { unit: '°C', reported: '°F' }, p: { unit: 'bar', reported: 'kPa' } };
  const applied = applyRegistry(
    batchOf([
      ['f', { t: 50, p: 150 }],
      ['c', { t: 50 }],
      ['new', [{ t: 212 }, { t: 'hot' }, { t: true }]],
      ['f', { other: 50 }],
    ]),
    snapshot({ devices: { f: fahrenheit, c: { t: { unit: '°C' } } }, aliases: { new: 'f' } }),
  );
  assert.deepEqual(told(applied), [
    '1.0 f {"t":10,"p":1.5}',
    '2.0 c {"t":50}',
    '3.0 f {"t":100}',
    '3.1 f {"t":"hot"}',
    '3.2 f {"t":true}',
    '4.0 f {"other":50}',
  ]);
});

test('H: what the policy refuses is set aside whole, and all else goes on', () => {
  const batch = batchOf([
    ['stranger', [{ t: 1 }, { t: 2, on: true, s: 'x' }]],
    ['known', { t: 3 }],
    ['stranger', { t: 4 }],
    ['bad', 'no message'],
  ]);
  const applied = applyRegistry(batch, snapshot({ unknownDevices: 'quarantine', devices: { known: {} } }));
  assert.deepEqual(told(applied), ['2.0 known {"t":3}']);
  assert.equal(batchFault(applied), null);
  assert.equal(applied.count, 4);
  const aside = applied.setAside;
  assert.deepEqual(
    aside.map(({ sequenceOffset, topic }) => [sequenceOffset, topic]),
    [0, 2, 3].map(offset => [offset, '']),
  );
  assert.match(aside[0]!.reason, /stranger: not in the registry/);
  assert.equal(aside[0]!.receivedAt, batch.rows.receivedAt[0]);
  const [first, second] = aside.map(({ payload }) => decodeKeptMessage(payload)!);
  assert.equal(first!.isApplied, false);
  assert.deepEqual(told(first!.batch), ['1.0 stranger {"t":1}', '1.1 stranger {"t":2,"on":true,"s":"x"}']);
  assert.deepEqual(told(second!.batch), ['3.0 stranger {"t":4}']);
});

test('of a thinned run summaries follow alias and unit, and no policy takes them away', () => {
  const thinned = thinnedOf(1, 10, {
    summaries: [
      { device: 'new', metric: 't', minimum: 32, maximum: 212, mean: 50, count: 2 },
      { device: 'stranger', metric: 't', minimum: 1 },
    ],
  });
  const site = snapshot({
    unknownDevices: 'quarantine',
    devices: { old: { t: { unit: '°C', reported: '°F' } } },
    aliases: { new: 'old' },
  });
  const { summaries } = applyRegistryToThinned(thinned, site);
  assert.deepEqual([...summaries.devices].sort(), ['old', 'stranger']);
  const i = summaries.device.indexOf(summaries.devices.indexOf('old'));
  assert.deepEqual([summaries.minimum[i], summaries.maximum[i], summaries.mean[i]], [0, 100, 10]);
  assert.equal(applyRegistryToThinned(thinned, null), thinned);
  assert.equal(applyRegistryToThinned(thinned, snapshot({})), thinned);
});

test('A, B: whatever is refused, every reading is in the batch or in what was set aside, once', () => {
  const device = fc.constantFrom('a', 'b', 'c', 'd');
  const value = fc.oneof(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.boolean(), fc.string());
  const element = fc.dictionary(fc.constantFrom('x', 'y', 'z'), value, { minKeys: 1 });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(device, fc.array(element, { minLength: 1, maxLength: 3 })), { minLength: 1 }),
      fc.uniqueArray(device),
      (messages, known) => {
        const batch = batchOf(messages);
        const site = snapshot({
          unknownDevices: 'quarantine',
          devices: Object.fromEntries(known.map(name => [name, {}])),
        });
        const applied = applyRegistry(batch, site);
        assert.equal(batchFault(applied), null);
        const aside = applied.setAside.flatMap(({ payload, topic }) => {
          const kept = topic === '' ? decodeKeptMessage(payload) : null;
          return kept ? told(kept.batch) : [];
        });
        assert.deepEqual([...told(applied), ...aside].sort(), told(batch).sort());
      },
    ),
    { numRuns: 200, verbose: 1 },
  );
});

test('a message that PostgreSQL refused is kept as history had it, even when two names became one', () => {
  const batch = batchOf([
    ['new', { t: 1 }],
    ['old', { t: 2 }],
  ]);
  const applied = applyRegistry(batch, snapshot({ devices: { old: {} }, aliases: { new: 'old' } }));
  const kept = decodeKeptMessage(keptMessageOf(applied, 2))!;
  assert.equal(kept.isApplied, true);
  assert.deepEqual(told(kept.batch), ['2.0 old {"t":2}']);
  assert.equal(keptMessageOf(applied, 3).length, 0, 'a message without rows');
  assert.equal(decodeKeptMessage(Buffer.from('HFK1 and then nonsense')), null);
});
