import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { buildBatch } from '../../edge-gateway/batch-builder.ts';
import type { Frame } from '../../edge-gateway/log/frame.ts';
import { readPayload } from '../../edge-gateway/payload.ts';
import { routeTopic } from '../../edge-gateway/topics.ts';
import { kinds, type ReadingsBatch, RowFlag } from '../../protocol/batch.ts';
import { decodeBatch, encodeBatch } from '../../protocol/batch-codec.ts';
import { forEachRow } from '../../protocol/batch-rows.ts';
import { batchFault } from '../../protocol/batch-rules.ts';
import { limits } from '../../protocol/limits.ts';
import { frame, LOG_ID } from './frames.ts';

interface Row {
  readonly sequence: number;
  readonly element: number;
  readonly device: string;
  readonly kind: string;
  readonly at: number;
  readonly receivedAt: number;
  readonly ownTimestamp: boolean;
  readonly readings: unknown;
}

function rowsOf(batch: ReadingsBatch): Row[] {
  const rows: Row[] = [];
  const { rows: columns } = batch;
  forEachRow(batch, ({ row, names, values }) => {
    rows.push({
      sequence: batch.firstSequence + columns.sequenceOffset[row]!,
      element: columns.element[row]!,
      device: batch.devices[columns.device[row]!]!,
      kind: kinds[columns.kind[row]!]!,
      at: columns.at[row]!,
      receivedAt: columns.receivedAt[row]!,
      ownTimestamp: (columns.flags[row]! & RowFlag.ownTimestamp) !== 0,
      readings: names.map((name, index) => [name, values[index]]),
    });
  });
  return rows;
}

/** The same one message at a time. */
function naiveRows(frames: readonly Frame[]): { rows: Row[]; setAside: number[] } {
  const rows: Row[] = [];
  const setAside: number[] = [];
  for (const { sequence, topic, payload, receivedAt, retain, payloadBytes } of frames) {
    if (payload.length === 0 && retain) continue;
    const routed = routeTopic(topic);
    const read = routed.ok ? readPayload(payload, routed.route) : null;
    if (!routed.ok || !read?.ok || payloadBytes > limits.payloadBytesMax) {
      setAside.push(sequence);
      continue;
    }
    for (const [element, { at, names, values }] of read.elements.entries()) {
      if (names.length === 0) continue;
      rows.push({
        sequence,
        element,
        device: routed.route.device,
        kind: routed.route.kind,
        at: at ?? receivedAt,
        receivedAt,
        ownTimestamp: at !== null,
        readings: names.map((name, index) => [name, values[index]]),
      });
    }
  }
  return { rows, setAside };
}

const topic = fc.constantFrom(
  'devices/a/telemetry',
  'devices/b/telemetry',
  'devices/a/events',
  'sensors/temperature/c',
  'nothing/fits',
  'devices/ /telemetry',
);
const metrics = fc.dictionary(
  fc.constantFrom('t', 'h', 'state', 'motor'),
  fc.oneof(
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.boolean(),
    fc.constantFrom('on', 'off'),
    fc.constant(null),
    fc.record({ rpm: fc.nat() }),
  ),
);
const element = fc.oneof(
  metrics,
  fc.tuple(metrics, fc.integer({ min: 1, max: 2e12 })).map(([members, ts]) => ({ ...members, ts })),
);
const payload = fc.oneof(
  { weight: 6, arbitrary: element.map(one => JSON.stringify(one)) },
  { weight: 2, arbitrary: fc.array(element, { maxLength: 4 }).map(list => JSON.stringify(list)) },
  { weight: 2, arbitrary: fc.constantFrom('21.5', 'online', '', 'NaN', '{"a":1e400}', '{', '😀', 'null') },
);
const frames: fc.Arbitrary<Frame[]> = fc
  .tuple(
    fc.integer({ min: 1, max: 2 ** 40 }),
    fc.array(fc.tuple(topic, payload, fc.boolean()), { minLength: 1, maxLength: 40 }),
  )
  .map(([first, list]) =>
    list.map(([where, what, retain], index) => frame(first + index, where, what, { retain })),
  );

test('rows, columns and set-aside messages are those of one message at a time', () => {
  fc.assert(
    fc.property(frames, list => {
      const batch = buildBatch(LOG_ID, list);
      const naive = naiveRows(list);
      assert.equal(batch.firstSequence, list[0]!.sequence);
      assert.equal(batch.count, list.length);
      assert.deepEqual(rowsOf(batch), naive.rows);
      assert.deepEqual(
        batch.setAside.map(entry => batch.firstSequence + entry.sequenceOffset),
        naive.setAside,
      );
      for (const { reason } of batch.setAside) assert.notEqual(reason, '');
    }),
    { numRuns: 500 },
  );
});

test('whatever the devices send, the batch can be encoded and says the same after decoding (A, H)', () => {
  const anything = fc
    .array(fc.tuple(fc.oneof(topic, fc.string({ maxLength: 20 })), fc.oneof(payload, fc.uint8Array())), {
      minLength: 1,
      maxLength: 20,
    })
    .map(list => list.map(([where, what], index) => frame(1 + index, where, what)));
  fc.assert(
    fc.property(anything, list => {
      const batch = buildBatch(LOG_ID, list);
      assert.equal(batchFault(batch), null);
      const decoded = decodeBatch(encodeBatch(batch));
      assert.equal(decoded.outcome, 'batch');
      const back = (decoded as { batch: ReadingsBatch }).batch;
      assert.deepEqual(rowsOf(back), rowsOf(batch));
      assert.equal(back.setAside.length, batch.setAside.length);
    }),
    { numRuns: 500 },
  );
});

test('a metric that comes in two types has two columns', () => {
  const batch = buildBatch(LOG_ID, [
    frame(1, 'devices/a/telemetry', '{"x":1}'),
    frame(2, 'devices/a/telemetry', '{"x":"on"}'),
    frame(3, 'devices/a/telemetry', '{"x":true}'),
    frame(4, 'devices/a/telemetry', '{"x":2}'),
  ]);
  assert.deepEqual(
    batch.metrics.map(({ name, type, values }) => [name, type, [...values]]),
    [
      ['x', 'number', [1, 2]],
      ['x', 'string', ['on']],
      ['x', 'boolean', [1]],
    ],
  );
  assert.deepEqual(batch.shapes, [[0], [1], [2]]);
  assert.deepEqual(batch.devices, ['a']);
});

test('a message limit and a row limit end the batch early; the rest goes with the next (F)', () => {
  const small = Array.from({ length: limits.batchMessagesMax + 10 }, (_, index) =>
    frame(100 + index, 'devices/a/telemetry', '1'),
  );
  const first = buildBatch(LOG_ID, small);
  assert.equal(first.count, limits.batchMessagesMax);
  const second = buildBatch(LOG_ID, small.slice(first.count));
  assert.equal(second.firstSequence, 100 + limits.batchMessagesMax);
  assert.equal(second.count, 10);

  const wide = `[${Array(limits.elementsPerMessageMax).fill('1').join()}]`;
  const arrays = Array.from({ length: 40 }, (_, index) => frame(1 + index, 'devices/a/telemetry', wide));
  let left = arrays;
  let rows = 0;
  while (left.length > 0) {
    const batch = buildBatch(LOG_ID, left);
    assert.ok(batch.rows.length <= limits.batchRowsMax);
    assert.equal(batchFault(batch), null);
    assert.ok(batch.count > 0);
    rows += batch.rows.length;
    left = left.slice(batch.count);
  }
  assert.equal(rows, 40 * limits.elementsPerMessageMax);
});

test('oversize messages are set aside with their first bytes and their true length', () => {
  const cut = Buffer.alloc(limits.quarantinedPayloadBytesMax + 1000, 'x');
  const batch = buildBatch(LOG_ID, [
    frame(1, 'devices/a/telemetry', cut, { payloadBytes: 5 * 1024 * 1024 }),
    frame(2, 'devices/a/telemetry', '1'),
    frame(3, `devices/a/telemetry/${'t'.repeat(2000)}`, '1'),
  ]);
  assert.equal(batch.rows.length, 1);
  const [payloadAside, topicAside] = batch.setAside;
  assert.equal(payloadAside!.reason, 'payload of 5242880 bytes, at most 262144');
  assert.equal(payloadAside!.payloadBytes, 5 * 1024 * 1024);
  assert.equal(payloadAside!.payload.length, limits.quarantinedPayloadBytesMax);
  assert.equal(topicAside!.sequenceOffset, 2);
  assert.match(topicAside!.reason, /^topic longer than 1024 bytes$/);
  assert.equal(batchFault(batch), null);
});

test('an empty retained message deletes, it is no reading; an empty one that is not is set aside', () => {
  const batch = buildBatch(LOG_ID, [
    frame(1, 'devices/a/status', '', { retain: true }),
    frame(2, 'devices/a/status', ''),
  ]);
  assert.equal(batch.count, 2);
  assert.equal(batch.rows.length, 0);
  assert.deepEqual(
    batch.setAside.map(({ sequenceOffset, reason }) => [sequenceOffset, reason]),
    [[1, 'payload is empty']],
  );
});

test('topics and payloads that nothing compresses still give batches below the wire limit (F)', () => {
  // The log hands out frames up to a bound of payload bytes; topics come on top, and bad ones travel along.
  let left = Array.from({ length: 300 }, (_, index) =>
    frame(1 + index, `x/${randomBytes(20_000).toString('base64')}`, randomBytes(1500)),
  );
  let settled = 0;
  while (left.length > 0) {
    const batch = buildBatch(LOG_ID, left);
    assert.ok(encodeBatch(batch).length <= limits.batchWireBytesMax);
    assert.equal(batch.setAside.length, batch.count);
    settled += batch.count;
    left = left.slice(batch.count);
  }
  assert.equal(settled, 300);
});
