import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Batch, ReadingsBatch, Summaries, ThinnedBatch } from '../../protocol/batch.ts';
import { type Compression, decodeBatch, encodeBatch, encodeBatchWithin } from '../../protocol/batch-codec.ts';
import { batchBounds } from '../../protocol/batch-rules.ts';
import { limits } from '../../protocol/limits.ts';
import { gzipBytes, standardFleet } from '../bench/standard-fleet.ts';
import {
  anyBatch,
  anyFloat64,
  batchOfMessages,
  messageOf,
  type SampleMessage,
  thinnedAround,
  thinnedBatch,
} from './sample-batches.ts';

const compressions: Compression[] = ['none', 'deflate', 'zstd'];

function assertRoundTrip(batch: Batch, compression: Compression = 'zstd'): void {
  const outcome = decodeBatch(encodeBatch(batch, { compression }));
  // deepStrictEqual compares typed arrays byte by byte: -0 is not 0, and every NaN is itself.
  assert.deepStrictEqual(outcome, { outcome: 'batch', batch });
}

const oneMetric = (values: readonly number[]): ReadingsBatch =>
  batchOfMessages(
    values.map((value, i) => ({
      device: 'a',
      receivedAt: 1_700_000_000_000 + i,
      elements: [{ values: new Map([['x', value]]) }],
    })),
  );

test('any batch comes back as it was', () => {
  fc.assert(
    fc.property(anyBatch, fc.constantFrom(...compressions), (batch, compression) => {
      assertRoundTrip(batch, compression);
    }),
    { numRuns: 400 },
  );
});

test('any thinned batch comes back as it was', () => {
  fc.assert(fc.property(thinnedBatch, fc.constantFrom(...compressions), assertRoundTrip), { numRuns: 400 });
});

test('any column of float64 comes back bit for bit', () => {
  const nearDecimals = fc
    .tuple(fc.integer({ min: -1e9, max: 1e9 }), fc.nat(9), fc.integer({ min: -12, max: 12 }))
    .map(([whole, scale, ulps]) => {
      const words = new BigInt64Array(1);
      const float = new Float64Array(words.buffer);
      float[0] = whole / 10 ** scale;
      words[0]! += BigInt(ulps);
      return float[0];
    });
  const value = fc.oneof(fc.double(), anyFloat64, nearDecimals, fc.integer(), fc.constant(-0));
  // Mostly one kind with a few others: where exceptions to the scale are made.
  const column = fc.oneof(
    fc.array(value, { minLength: 1, maxLength: 40 }),
    fc
      .tuple(fc.array(nearDecimals, { minLength: 64, maxLength: 200 }), fc.array(value, { maxLength: 3 }))
      .map(([many, few]) => [...many.slice(0, 40), ...few, ...many.slice(40)]),
    fc.array(nearDecimals, { minLength: 1, maxLength: 100 }).map(values => values.map(Math.fround)),
  );
  fc.assert(
    fc.property(column, values => {
      assertRoundTrip(oneMetric(values));
    }),
    { numRuns: 500 },
  );
});

test('the extremes of float64 come back bit for bit, alone and together', () => {
  const extremes = [
    0,
    -0,
    5e-324,
    -5e-324,
    2.2250738585072014e-308,
    2.225073858507201e-308,
    Number.MAX_VALUE,
    -Number.MAX_VALUE,
    Number.EPSILON,
    2 ** 51 - 1,
    2 ** 51,
    2 ** 52 + 1,
    2 ** 53 - 1,
    2 ** 53,
    -(2 ** 53),
    1.7e15 + 0.25,
    0.1 + 0.2,
    74.93588199999998,
    1e-15,
    1e21,
    123456789012345.67,
    NaN,
    Infinity,
    -Infinity,
  ];
  for (const value of extremes) {
    assertRoundTrip(oneMetric([value]));
    assertRoundTrip(oneMetric(Array.from({ length: 100 }, (_, i) => (i === 50 ? value : i / 8))));
  }
  assertRoundTrip(oneMetric(extremes));
});

test('a batch without rows, and one with rows without readings, come back', () => {
  assertRoundTrip(batchOfMessages([]));
  assertRoundTrip(batchOfMessages([{ device: 'a', receivedAt: 1, elements: [] }]));
  assertRoundTrip(batchOfMessages([{ device: 'a', receivedAt: 1, elements: [{ values: new Map() }] }]));
});

test('the largest batch comes back', () => {
  const messages = Array.from({ length: limits.batchMessagesMax }, (_, i) => ({
    device: `${(i * 7919) % 3001}`,
    receivedAt: 1_700_000_000_000 + i,
    elements: Array.from({ length: limits.batchRowsMax / limits.batchMessagesMax }, (_, e) => ({
      ts: 1_700_000_000_000.5 + i * e,
      values: new Map<string, number | string | boolean>([
        ['a', Math.sin(i)],
        [`b${i % 50}`, i % 3 === 0],
        ['c', `${i % 17}`],
      ]),
    })),
  }));
  assertRoundTrip(batchOfMessages(messages));
});

test('an encoder refuses a batch that breaks a rule', () => {
  const good = oneMetric([1, 2, 3]);
  const rows = (change: Partial<ReadingsBatch['rows']>): Batch => ({
    ...good,
    rows: { ...good.rows, ...change },
  });
  const bad: [RegExp, Batch][] = [
    [/count of 0/, { ...good, count: 0 }],
    [/count of/, { ...good, count: limits.batchMessagesMax + 1 }],
    [/past the last sequence/, { ...good, count: 2 }],
    [/first sequence/, { ...good, firstSequence: -1 }],
    [/log id/, { ...good, logId: 'x' as ReadingsBatch['logId'] }],
    [/named twice/, { ...good, devices: ['a', 'a'] }],
    [/breaks the rule/, { ...good, devices: ['a b'] }],
    [/comes twice/, { ...good, metrics: [...good.metrics, ...good.metrics] }],
    [/names no metric/, { ...good, shapes: [[1]] }],
    [/names a metric twice/, { ...good, shapes: [[0, 0]] }],
    [/out of order/, rows({ sequenceOffset: Uint32Array.of(1, 0, 2) })],
    [/out of order/, rows({ sequenceOffset: Uint32Array.of(0, 0, 2) })],
    [/without its device/, rows({ device: Uint32Array.of(0, 0, 1) })],
    [/without its shape/, rows({ shape: Uint32Array.of(0, 1, 0) })],
    [/not finite/, rows({ at: Float64Array.of(0, NaN, 0) })],
    [/column of 2/, rows({ kind: new Uint8Array(2) })],
    [/kind numbered/, rows({ kind: Uint8Array.of(0, 4, 0) })],
    [/flags/, rows({ flags: Uint8Array.of(0, 2, 0) })],
    [/column of 2/, { ...good, metrics: [{ name: 'x', type: 'number', values: new Float64Array(2) }] }],
    [/well-formed/, { ...good, metrics: [{ name: 'x', type: 'string', values: ['', '\ud800', ''] }] }],
    [
      /neither 0 nor 1/,
      { ...good, metrics: [{ name: 'x', type: 'boolean', values: Uint8Array.of(0, 1, 2) }] },
    ],
  ];
  for (const [reason, batch] of bad)
    assert.throws(() => encodeBatch(batch), { name: 'RangeError', message: reason });
});

const summaryOf = (device: string, metric: string, from: number) =>
  ({ device, metric, from, minimum: 1, mean: 2, maximum: 3, count: 4 }) as const;

test('the largest thinned batch comes back', () => {
  const devices = 1024;
  const entries = Array.from({ length: batchBounds.summariesMax }, (_, i) => ({
    ...summaryOf(`d${i % devices}`, `m${i >> 12}`, 60_000 * ((i >> 10) % 4)),
    minimum: Math.fround(Math.sin(i)),
    mean: 1,
    maximum: 1 + (i % 100) / 10,
  }));
  const rows = Array.from({ length: limits.batchRowsMax }, (_, i) => ({
    device: `${i}`,
    receivedAt: i,
    elements: [{ values: new Map([['a', i]]) }],
  }));
  const kept = batchOfMessages(rows);
  assert.ok(kept.count > limits.batchMessagesMax);
  assertRoundTrip(thinnedAround(kept, entries, { count: batchBounds.lostMax }));
});

test('a thinned batch that comes out over the limit is refused, as a value where that is asked for', () => {
  const noise = Array.from({ length: batchBounds.summariesMax }, (_, i) => Math.abs((Math.sin(i) * 1e5) % 1));
  const entries = noise.map((value, i) => ({
    ...summaryOf(`d${i % 1024}`, `m${i >> 10}`, 0),
    minimum: value - noise[(i * 7) % noise.length]! - 1,
    mean: value,
    maximum: value + noise[(i * 11) % noise.length]! + 1,
  }));
  const batch = thinnedAround(batchOfMessages([]), entries);
  assert.equal(encodeBatchWithin(batch), null);
  assert.throws(() => encodeBatch(batch), { name: 'RangeError', message: /over the limit/ });
});

test('an encoder refuses a thinned batch that breaks a rule', () => {
  const good = thinnedAround(oneMetric([1, 2, 3]), [
    summaryOf('a', 'x', 60_000),
    summaryOf('a', 'x', 120_000),
    summaryOf('b', 'y', 60_000),
  ]);
  assertRoundTrip(good);
  const summaries = (change: Partial<Summaries>): Batch => ({
    ...good,
    summaries: { ...good.summaries, ...change },
  });
  const kept = (change: Partial<ReadingsBatch>): Batch => ({ ...good, kept: { ...good.kept, ...change } });
  const bad: [RegExp, Batch][] = [
    [/count of/, { ...good, count: 2 ** 32 }],
    [/interval of/, { ...good, intervalMs: 30_000 }],
    [/not finite/, { ...good, receivedTo: Number.POSITIVE_INFINITY }],
    [/before it begins/, { ...good, receivedFrom: 1 }],
    [/another log/, kept({ logId: 'f'.repeat(32) as ReadingsBatch['logId'] })],
    [/another run/, kept({ firstSequence: 1 })],
    [/another run/, kept({ count: 2 })],
    [/another run/, { ...good, count: 4 }],
    [/named twice/, kept({ devices: ['a', 'a'] })],
    [/another log/, { ...good, kept: { ...good, settlement: 'thinned' } as never }],
    [/metric that is named twice/, summaries({ metrics: ['x', 'x'] })],
    [/metric name/, summaries({ metrics: ['x', 'y'.repeat(129)] })],
    [/device that is named twice/, summaries({ devices: ['a', 'a'] })],
    [/breaks the rule/, summaries({ devices: ['a', ''] })],
    [/without its metric/, summaries({ metrics: ['x'] })],
    [/without its device/, summaries({ devices: ['a'] })],
    [/a column of 3 for 2/, summaries({ length: 2 })],
    [/a column of 2 for 3/, summaries({ mean: new Float64Array(2) })],
    [/65537 summaries/, summaries({ length: 65_537 })],
    [/begins at/, summaries({ from: Float64Array.of(60_000, 120_001, 60_000) })],
    [/begins at/, summaries({ from: Float64Array.of(-60_000, 120_000, 60_000) })],
    [/begins at/, summaries({ from: Float64Array.of(60_000, 60_000 * 2 ** 28, 60_000) })],
    [/begins at/, summaries({ from: Float64Array.of(60_000, Number.NaN, 60_000) })],
    [/out of the order/, summaries({ from: Float64Array.of(60_000, 60_000, 60_000) })],
    [/out of the order/, summaries({ from: Float64Array.of(120_000, 60_000, 60_000) })],
    [/out of the order/, summaries({ metric: Uint32Array.of(1, 0, 0), device: Uint32Array.of(0, 0, 0) })],
    [/no readings/, summaries({ count: Uint32Array.of(4, 0, 4) })],
    [/two extremes of one/, summaries({ count: Uint32Array.of(4, 1, 4) })],
    [/not finite/, summaries({ minimum: Float64Array.of(1, Number.NEGATIVE_INFINITY, 1) })],
    [/not finite/, summaries({ maximum: Float64Array.of(3, Number.NaN, 3) })],
    [/within its extremes/, summaries({ mean: Float64Array.of(2, 3.1, 2) })],
    [/within its extremes/, summaries({ mean: Float64Array.of(2, 0.9, 2) })],
    [/within its extremes/, summaries({ mean: Float64Array.of(2, Number.NaN, 2) })],
  ];
  for (const [reason, batch] of bad) {
    assert.throws(() => encodeBatch(batch as ThinnedBatch), { name: 'RangeError', message: reason });
  }
});

test('the standard fleet stays within its bytes per reading', t => {
  const fleet = standardFleet();
  const nextMessages = (size: number): { messages: SampleMessage[]; gzip: number } => {
    const messages: SampleMessage[] = [];
    const published: { topic: string; payload: string }[] = [];
    while (messages.length < size) {
      const { site, device, topic, payload } = fleet.next().value;
      if (site !== 0) continue;
      messages.push(messageOf(device, 1_735_689_700_000 + Math.floor(messages.length / 20), payload));
      published.push({ topic, payload });
    }
    return { messages, gzip: gzipBytes(published) };
  };
  for (const [size, bytesMax] of [
    [500, 1.45],
    [2000, 0.75],
    [4000, 0.63],
  ] as const) {
    const { messages, gzip } = nextMessages(size);
    const bytes = encodeBatch(batchOfMessages(messages)).length;
    const perReading = bytes / size / 4;
    t.diagnostic(
      `${size} messages: ${perReading.toFixed(3)} bytes per reading, gzip ${(gzip / size / 4).toFixed(3)}`,
    );
    assert.ok(perReading <= bytesMax, `${perReading} bytes per reading in batches of ${size}`);
    assert.ok(bytes * 2.2 <= gzip);
  }
});

test('numbers without any pattern take hardly more than their 8 bytes', () => {
  const random = fc.sample(anyFloat64, { numRuns: 1000, seed: 1 });
  assert.ok(encodeBatch(oneMetric(random)).length < 1000 * 8 + 200);
});
