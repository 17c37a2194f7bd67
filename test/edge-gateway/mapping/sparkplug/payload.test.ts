/** Payloads against Eclipse Tahu's library, and against whatever comes instead of one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deflateSync } from 'node:zlib';
import fc from 'fast-check';
import { buildBatch } from '../../../../edge-gateway/batch-builder.ts';
import { compileMapping } from '../../../../edge-gateway/mapping/compile.ts';
import { Unusable } from '../../../../edge-gateway/mapping/decoded.ts';
import {
  decodeSparkplug,
  metricValue,
  shortest,
} from '../../../../edge-gateway/mapping/sparkplug/payload.ts';
import { rebirthPayload } from '../../../../edge-gateway/mapping/sparkplug/rebirth.ts';
import { tryMapping } from '../../../../edge-gateway/mapping/try-mapping.ts';
import { encodeBatch } from '../../../../protocol/batch-codec.ts';
import { frame, LOG_ID, RECEIVED_AT } from '../../frames.ts';
import { AT, decoded, encoded } from './encoded.ts';

const valueFrom = (type: string, value: unknown) => {
  const [metric] = decodeSparkplug(encoded(0, [{ name: 'm', type, value }])).metrics;
  return metricValue(metric!.value, metric!.isNull, metric!.datatype!);
};

test('every datatype as the library writes it', () => {
  const taken: [type: string, value: unknown][] = [
    ['Int8', -5],
    ['Int8', 127],
    ['Int16', -30_000],
    ['Int32', -2_147_483_648],
    ['Int64', -7],
    ['Int64', Number.MIN_SAFE_INTEGER],
    ['UInt8', 255],
    ['UInt16', 65_535],
    ['UInt32', 4_294_967_295],
    ['UInt64', Number.MAX_SAFE_INTEGER],
    ['Float', 21.4],
    ['Double', -0.1],
    ['Boolean', true],
    ['Boolean', false],
    ['String', 'Öl — ✓'],
    ['Text', ''],
    ['UUID', '7a3d'],
    ['DateTime', AT],
  ];
  for (const [type, value] of taken) assert.deepEqual(valueFrom(type, value), { is: 'value', value }, type);
  assert.deepEqual(valueFrom('Int32', null), { is: 'absent' });
  const leftOut: [type: string, value: unknown, reason: RegExp][] = [
    ['Double', Number.NaN, /^NaN$/],
    ['Float', Number.NEGATIVE_INFINITY, /^-Infinity$/],
    ['Bytes', Buffer.of(1, 2), /^Bytes$/],
    ['File', Buffer.of(1, 2), /^File$/],
    ['DataSet', { numOfColumns: 1, columns: ['a'], types: ['Int32'], rows: [[1]] }, /^DataSet$/],
    ['Template', { version: '1', isDefinition: true, metrics: [], parameters: [] }, /^Template$/],
  ];
  for (const [type, value, reason] of leftOut) {
    const found = valueFrom(type, value);
    assert.ok(found.is === 'leftOut', type);
    assert.match(found.reason, reason);
  }
});

test('integers beyond 2^53: those that a float holds are taken, others are told', () => {
  const of = (value: bigint, datatype: number) => metricValue({ in: 'integer', value }, false, datatype);
  assert.deepEqual(of(2n ** 63n, 8), { is: 'value', value: 2 ** 63 });
  assert.deepEqual(of(2n ** 64n - 2n ** 53n, 4), { is: 'value', value: -(2 ** 53) });
  const found = of(2n ** 63n + 1n, 8);
  assert.ok(found.is === 'leftOut' && found.reason.startsWith('9223372036854775809, '));
});

test('floats are the shortest number that is the same float', () => {
  for (const value of [21.4, 0.1, 1e-7, 16_777_216, 3.4028235e38, -273.15, 0]) {
    assert.equal(shortest(Math.fround(value)), value);
  }
  fc.assert(
    fc.property(fc.float(), value => Object.is(Math.fround(shortest(value)), value)),
    { numRuns: 2000 },
  );
});

test('compressed payloads, and one that would inflate without end', () => {
  const inner = encoded(5, [{ name: 'a', type: 'Int32', value: 7 }]);
  const wrap = (body: Buffer) => {
    const uuid = Buffer.from('SPBV1.0_COMPRESSED');
    const length = Buffer.of((body.length & 127) | 128, body.length >> 7);
    return Buffer.concat([Buffer.of(0x22, uuid.length), uuid, Buffer.of(0x2a), length, body]);
  };
  const { seq, metrics } = decodeSparkplug(wrap(Buffer.concat([deflateSync(inner), Buffer.alloc(128)])));
  assert.equal(seq, 5);
  assert.equal(metrics[0]?.name, 'a');
  assert.throws(
    () => decodeSparkplug(wrap(deflateSync(Buffer.alloc(8 * 1024 * 1024)))),
    /cannot be inflated/,
  );
  assert.throws(() => decodeSparkplug(wrap(Buffer.alloc(200))), /cannot be inflated/);
  // A kilobyte that stands for half a million metrics of nothing (F, H).
  const nothings = Buffer.alloc(1024 * 1024, Buffer.of(0x12, 0x00));
  assert.throws(() => decodeSparkplug(wrap(deflateSync(nothings))), /more than 16384 Sparkplug metrics/);
});

test('the rebirth command is what the library reads', () => {
  const { metrics, timestamp } = decoded(rebirthPayload(AT));
  assert.equal(Number(timestamp), AT);
  assert.deepEqual(
    metrics!.map(({ name, type, value }) => ({ name, type, value })),
    [{ name: 'Node Control/Rebirth', type: 'Boolean', value: true }],
  );
});

test('any bytes are a payload or refused, and a cut or changed payload as well (H)', () => {
  const good = encoded(7, [
    { name: 'a', alias: 300, type: 'Int64', value: -7, timestamp: AT },
    { name: 'b', type: 'String', value: 'text' },
  ]);
  const refusals = (bytes: Uint8Array) => {
    try {
      decodeSparkplug(bytes);
    } catch (error) {
      if (!(error instanceof Unusable)) throw error;
    }
  };
  for (let length = 0; length < good.length; length++) refusals(good.subarray(0, length));
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), refusals), { numRuns: 3000 });
  const changed = fc.tuple(fc.nat(good.length - 1), fc.nat(255)).map(([at, byte]) => {
    const bytes = Buffer.from(good);
    bytes[at] = byte;
    return bytes;
  });
  fc.assert(fc.property(changed, refusals), { numRuns: 3000 });
});

const mapping = compileMapping({ profiles: [{ profile: 'sparkplug' }], mappings: [] });
const born = (metrics: readonly object[], topic = 'spBv1.0/g/NBIRTH/n') => {
  const message = { topic, payload: encoded(0, metrics), receivedAt: RECEIVED_AT };
  const { readings, setAside } = tryMapping(mapping, message);
  return { setAside, metrics: readings.filter(({ kind }) => kind === 'telemetry').map(each => each.metrics) };
};

test('what cannot be stored is left out and named, the rest of the message is taken', () => {
  const rest = { name: 'rest', type: 'Int32', value: 1 };
  const bad: [metric: object, told: RegExp][] = [
    [{ name: '__proto__', type: 'Int32', value: 1 }, /^__proto__: metric name .* is not allowed$/],
    [{ name: 'n'.repeat(200), type: 'Int32', value: 1 }, /^nnn.*/],
    [{ name: 'a\0b', type: 'Int32', value: 1 }, /^ab: a metric name contains U\+0000/],
    [{ name: 'text', type: 'String', value: 'x'.repeat(5000) }, /^text: its text is longer than 4096 bytes$/],
    [
      { name: 'late', type: 'Int32', value: 1, timestamp: 9e15 },
      /^late: timestamp 9000000000000000 is not a time/,
    ],
    [{ name: 'nan', type: 'Double', value: Number.NaN }, /^nan: NaN$/],
  ];
  for (const [metric, told] of bad) {
    const found = born([metric, rest]);
    assert.equal(found.setAside, null);
    const all = Object.assign({}, ...found.metrics) as Record<string, unknown>;
    assert.equal(all.rest, 1);
    assert.match(String(all['sparkplug.leftOut']), told);
    assert.deepEqual(Object.keys(all).sort(), ['rest', 'sparkplug.leftOut']);
  }
});

test('more metrics than a row has, and one name twice at a time, make more rows', () => {
  const many = Array.from({ length: 600 }, (_, n) => ({ name: `m${n}`, type: 'Int32', value: n }));
  assert.deepEqual(
    born(many).metrics.map(each => Object.keys(each).length),
    [256, 256, 88],
  );
  const twice = [1, 2].map(value => ({ name: 'a', type: 'Int32', value }));
  assert.deepEqual(born(twice).metrics, [{ a: 1 }, { a: 2 }]);
});

test('whatever a node says becomes a batch (H)', () => {
  const name = fc.oneof(fc.constantFrom('a', 'b', '__proto__', ''), fc.string({ unit: 'binary' }));
  const timestamp = fc.constantFrom(0, AT, AT + 0.5, 9e15, Number.MAX_SAFE_INTEGER);
  const metric = fc.oneof(
    fc.record({
      name,
      timestamp,
      type: fc.constantFrom('Int8', 'Int64', 'UInt64'),
      value: fc.maxSafeInteger(),
    }),
    fc.record({ name, timestamp, type: fc.constantFrom('Float', 'Double'), value: fc.double() }),
    fc.record({ name, timestamp, type: fc.constant('String'), value: fc.string({ unit: 'binary' }) }),
    fc.record({ name, type: fc.constant('Bytes'), value: fc.uint8Array() }),
    fc.record({
      alias: fc.maxSafeInteger().map(Math.abs),
      type: fc.constant('Boolean'),
      value: fc.boolean(),
    }),
  );
  const types = fc.constantFrom('NBIRTH/n', 'NDATA/n', 'NDEATH/n', 'DBIRTH/n/d', 'DDATA/n/d', 'DDEATH/n/d');
  fc.assert(
    fc.property(types, fc.array(metric, { maxLength: 12 }), (rest, metrics) => {
      const sent = frame(1, `spBv1.0/g/${rest}`, encoded(1, metrics));
      assert.ok(encodeBatch(buildBatch(LOG_ID, [sent], mapping)).length > 0);
    }),
    { numRuns: 1000 },
  );
});
