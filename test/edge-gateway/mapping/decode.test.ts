import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { decodeCbor } from '../../../edge-gateway/mapping/cbor.ts';
import { compileMapping } from '../../../edge-gateway/mapping/compile.ts';
import { decodePayload, formatOf } from '../../../edge-gateway/mapping/decode.ts';
import { type Decoded, DecodedTime, Unusable } from '../../../edge-gateway/mapping/decoded.ts';
import { NO_MAPPING, profileNames, readMappingFile } from '../../../edge-gateway/mapping/mapping-file.ts';
import { decodeMsgpack } from '../../../edge-gateway/mapping/msgpack.ts';
import { tryMapping } from '../../../edge-gateway/mapping/try-mapping.ts';
import { RECEIVED_AT } from '../frames.ts';

const hex = (text: string) => Buffer.from(text, 'hex');
const plain = new Packr({ useRecords: false, variableMapSize: true });
const mapping = compileMapping(NO_MAPPING);

function tried(payload: Uint8Array, contentType: string, topic = 'devices/d/telemetry', by = mapping) {
  return tryMapping(by, { topic, payload, receivedAt: RECEIVED_AT, properties: { contentType } });
}

test('CBOR: the examples of RFC 8949, appendix A', () => {
  const examples: [string, Decoded][] = [
    ['00', 0],
    ['17', 23],
    ['1818', 24],
    ['1903e8', 1000],
    ['1a000f4240', 1_000_000],
    ['1b000000e8d4a51000', 1_000_000_000_000],
    ['1bffffffffffffffff', 18446744073709551615n],
    ['c249010000000000000000', 18446744073709551616n],
    ['3bffffffffffffffff', -18446744073709551616n],
    ['c349010000000000000000', -18446744073709551617n],
    ['20', -1],
    ['3903e7', -1000],
    ['f90000', 0],
    ['f98000', -0],
    ['f93c00', 1],
    ['fb3ff199999999999a', 1.1],
    ['f97bff', 65504],
    ['fa47c35000', 100000],
    ['fb7e37e43c8800759c', 1e300],
    ['f90001', 2 ** -24],
    ['f90400', 0.00006103515625],
    ['fbc010666666666666', -4.1],
    ['f97c00', Number.POSITIVE_INFINITY],
    ['f97e00', Number.NaN],
    ['f9fc00', Number.NEGATIVE_INFINITY],
    ['f4', false],
    ['f5', true],
    ['f6', null],
    ['f7', undefined],
    ['c11a514b67b0', new DecodedTime(1363896240000)],
    ['c1fb41d452d9ec200000', new DecodedTime(1363896240500)],
    ['c074323031332d30332d32315432303a30343a30305a', '2013-03-21T20:04:00Z'],
    ['d74401020304', new Uint8Array([1, 2, 3, 4])],
    ['40', new Uint8Array()],
    ['60', ''],
    ['62c3bc', 'ü'],
    ['64f0908591', '\u{10151}'],
    ['80', []],
    ['8301820203820405', [1, [2, 3], [4, 5]]],
    ['a201020304', { 1: 2, 3: 4 }],
    ['a26161016162820203', { a: 1, b: [2, 3] }],
    ['5f42010243030405ff', new Uint8Array([1, 2, 3, 4, 5])],
    ['7f657374726561646d696e67ff', 'streaming'],
    ['9fff', []],
    ['9f018202039f0405ffff', [1, [2, 3], [4, 5]]],
    ['bf61610161629f0203ffff', { a: 1, b: [2, 3] }],
    ['bf6346756ef563416d7421ff', { Fun: true, Amt: -2 }],
    // RFC 8949, 3.4.4: 273.15 as a decimal fraction.
    ['c48221196ab3', 273.15],
  ];
  for (const [bytes, value] of examples)
    assert.deepEqual(normal(decodeCbor(hex(bytes))), normal(value), bytes);
});

/** Maps have no prototype and bytes may be Buffers: equal all the same. */
function normal(value: Decoded): unknown {
  if (value instanceof Uint8Array) return [...value];
  if (Array.isArray(value)) return value.map(normal);
  if (value instanceof DecodedTime) return { time: value.ms };
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, normal(member)]));
}

test('CBOR that is not well-formed, or that nothing can be made of, is refused', () => {
  const bad: [string, RegExp][] = [
    ['18', /ends too early/],
    ['1c', /reserved/],
    ['62c3', /ends too early/],
    ['61ff', /not UTF-8/],
    ['9f01', /ends too early/],
    ['ff', /break where a value should be/],
    ['0000', /1 bytes after its end/],
    ['9bffffffffffffffff', /ends too early/],
    ['bbffffffffffffffff', /ends too early/],
    ['7f4101ff', /chunk of another type/],
    ['1f', /indefinite length/],
    ['a2616101616102', /"a" twice/],
    ['a2010261310a', /"1" twice/],
    ['a18001', /neither text nor a number/],
    ['c101ff', /after its end/],
    ['c16161', /tag 1 on something else/],
    ['f0', /simple value/],
    ['81'.repeat(200), /nested deeper/],
  ];
  for (const [bytes, reason] of bad) {
    assert.throws(
      () => decodeCbor(hex(bytes)),
      error => error instanceof Unusable && reason.test(error.message),
      bytes,
    );
  }
});

const values = fc.letrec<{ value: unknown }>(tie => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constantFrom(null, true, false),
    // msgpackr writes -0 as the integer 0.
    fc.double({ noNaN: true }).map(number => number + 0),
    fc.integer(),
    fc.string({ unit: 'grapheme', maxLength: 300 }),
    fc.array(tie('value'), { maxLength: 20 }),
    // msgpackr changes this one key while it writes.
    fc.dictionary(
      fc.string({ maxLength: 8 }).filter(key => key !== '__proto__'),
      tie('value'),
      { maxKeys: 20 },
    ),
  ),
})).value;

test('msgpack: what msgpackr writes is read', () => {
  fc.assert(
    fc.property(values, value => {
      assert.deepEqual(normal(decodeMsgpack(plain.pack(value))), normal(value as Decoded));
    }),
    { numRuns: 500 },
  );
});

test('msgpack: every width of integer, text, bytes, list, map and time', () => {
  const examples: [string, Decoded][] = [
    ['cc80', 128],
    ['cd0100', 256],
    ['ce00010000', 65536],
    ['cf0020000000000001', 9007199254740993n],
    ['d080', -128],
    ['d18000', -32768],
    ['d280000000', -2147483648],
    ['d3ffdfffffffffffff', -9007199254740993n],
    ['e0', -32],
    ['ca3fc00000', 1.5],
    ['d90161', 'a'],
    ['da000161', 'a'],
    ['db0000000161', 'a'],
    ['c40101', new Uint8Array([1])],
    ['c5000101', new Uint8Array([1])],
    ['c60000000101', new Uint8Array([1])],
    ['dc000101', [1]],
    ['dd0000000101', [1]],
    ['de0001a16101', { a: 1 }],
    ['df00000001a16101', { a: 1 }],
    ['8101a161', { 1: 'a' }],
    ['d6ff514b67b0', new DecodedTime(1363896240000)],
    ['d7ff77359400514b67b0', new DecodedTime(1363896240500)],
    ['c70cff1dcd650000000000514b67b0', new DecodedTime(1363896240500)],
  ];
  for (const [bytes, value] of examples) {
    assert.deepEqual(normal(decodeMsgpack(hex(bytes))), normal(value), bytes);
  }
  const bad: [string, RegExp][] = [
    ['c1', /byte 0xc1/],
    ['ddffffffff', /ends too early/],
    ['dfffffffff', /ends too early/],
    ['a1', /ends too early/],
    ['a1ff', /not UTF-8/],
    ['82a16101a16102', /"a" twice/],
    ['819001', /neither text nor a number/],
    ['d40500', /extension type 5/],
    ['d4ff00', /timestamp of 1 bytes/],
    ['0101', /after its end/],
    ['91'.repeat(200), /nested deeper/],
  ];
  for (const [bytes, reason] of bad) {
    assert.throws(
      () => decodeMsgpack(hex(bytes)),
      error => error instanceof Unusable && reason.test(error.message),
      bytes,
    );
  }
});

test('all formats become the same readings', () => {
  const object = {
    ts: RECEIVED_AT,
    temperature: 21.5,
    motor: { rpm: 900, on: true },
    mode: 'auto',
    gone: null,
  };
  const cbor = hex(
    `a5${'62'}7473${`1b${RECEIVED_AT.toString(16).padStart(16, '0')}`}6b74656d7065726174757265f94d60` +
      '656d6f746f72a26372706d190384626f6ef5646d6f6465646175746f64676f6e65f6',
  );
  const expected = tried(Buffer.from(JSON.stringify(object)), 'application/json; charset=utf-8');
  assert.deepEqual(expected.readings[0]?.metrics, {
    temperature: 21.5,
    'motor.rpm': 900,
    'motor.on': true,
    mode: 'auto',
  });
  assert.equal(expected.readings[0]?.time, new Date(RECEIVED_AT).toISOString());
  for (const type of ['application/msgpack', 'application/x-msgpack', 'application/vnd.msgpack']) {
    assert.deepEqual(tried(plain.pack(object), type), expected);
  }
  assert.deepEqual(tried(cbor, 'Application/CBOR'), expected);
  assert.deepEqual(tried(Buffer.from(JSON.stringify(object)), 'text/plain'), expected);
  assert.deepEqual(tried(Buffer.from(JSON.stringify(object)), ''), expected);
});

test('what JSON does not have: exact numbers are taken, the rest is refused with its name', () => {
  const cases: [object | Uint8Array, RegExp | number][] = [
    [{ n: 9007199254740992n }, 2 ** 53],
    [{ n: 9007199254740993n }, /"n" is an integer that 64-bit floats do not hold exactly/],
    [{ n: Number.NaN }, /"n" is NaN, which is no number/],
    [{ n: Number.POSITIVE_INFINITY }, /"n" is a number beyond/],
    [{ n: Buffer.from('abc') }, /"n" is 3 bytes of binary data/],
    [{ n: new Date(RECEIVED_AT) }, /"n" is a time: only the timestamp may be one/],
    [{ n: { constructor: 1 } }, /"n\.constructor" is not allowed/],
    [hex('81a95f5f70726f746f5f5f01'), /"__proto__" is not allowed/],
    [hex('81a16101ff'), /after its end/],
  ];
  for (const [value, expected] of cases) {
    const trial = tried(value instanceof Uint8Array ? value : plain.pack(value), 'application/msgpack');
    if (typeof expected === 'number') assert.deepEqual(trial.readings[0]?.metrics, { n: expected });
    else assert.match(trial.setAside ?? 'taken', expected);
  }
  const timed = tried(plain.pack({ ts: new Date(RECEIVED_AT), n: 1 }), 'application/msgpack');
  assert.equal(timed.readings[0]?.time, new Date(RECEIVED_AT).toISOString());
});

test('text/plain: JSON, a number as people write it, or text', () => {
  const cases: [string, unknown][] = [
    ['21.5', 21.5],
    ['+5', 5],
    ['007', 7],
    ['.5', 0.5],
    ['true', true],
    ['door open!', 'door open!'],
    ['21,5', '21,5'],
    [' on\n', 'on'],
  ];
  for (const [text, value] of cases) {
    assert.deepEqual(tried(Buffer.from(text), 'text/plain').readings[0]?.metrics, { value }, text);
  }
  for (const text of ['NaN', '-inf', '{"a":', '"open', '', ' ', '\xff']) {
    assert.notEqual(tried(Buffer.from(text, 'latin1'), 'text/plain').setAside, null, text);
  }
});

test('an unknown content type is set aside with those that are known', () => {
  for (const type of ['application/octet-stream', 'image/png', '__proto__', 'x'.repeat(1000)]) {
    const { setAside } = tried(Buffer.from('1'), type);
    assert.match(
      setAside!,
      /is not known: expected application\/json, application\/msgpack, application\/cbor/,
    );
  }
  assert.match(
    tried(Buffer.from('[]'), 'application/senml+json').setAside!,
    /needs the profile senml in the mapping file/,
  );
});

const formats = ['json', 'text', 'msgpack', 'cbor'] as const;

test('any bytes: a value or a refusal from every decoder, never another exception (H)', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 80 }),
    fc.tuple(values, fc.nat(), fc.nat(255)).map(([value, at, byte]) => {
      const packed = Uint8Array.from(plain.pack(value));
      packed[at % packed.length] = byte;
      return packed;
    }),
  );
  fc.assert(
    fc.property(bytes, payload => {
      for (const format of formats) {
        try {
          decodePayload(payload, format);
        } catch (error) {
          assert.ok(error instanceof Unusable, String(error));
        }
      }
    }),
    { numRuns: 4000 },
  );
  assert.equal(formatOf('text/plain'), 'text');
});

test('any bytes on any topic: every profile gives readings or a reason (H)', () => {
  const file = readMappingFile(`profiles: [${profileNames.join(', ')}]`, 'all');
  assert.ok(file.ok);
  const all = compileMapping(file.config);
  const topic = fc.oneof(
    fc.constantFrom(
      'zigbee2mqtt/a',
      'zigbee2mqtt/a/availability',
      'tele/a/SENSOR',
      'tele/a/LWT',
      'stat/a/RESULT',
      'shellies/a/relay/0',
      'shelly-a/events/rpc',
      'shelly-a/status/switch:0',
      'owntracks/a/b',
      'x',
    ),
    fc.string({ unit: 'binary', maxLength: 12 }).map(name => `zigbee2mqtt/${name}`),
  );
  const names = fc.constantFrom(
    ...['Time', 'last_seen', 'action', 'POWER', 'params', 'ts', 'method', 'events', '_type', 'tst'],
    ...['bn', 'n', 'v', 'vs', 't', 'bt', 'bver', 's', '-2', '0', '__proto__', 'constructor', 'a'],
  );
  const node = fc.letrec<{ node: unknown }>(tie => ({
    node: fc.oneof(
      { depthSize: 'small' },
      fc.constantFrom(
        null,
        true,
        1,
        -1,
        1e9,
        1e300,
        'NotifyStatus',
        'NotifyEvent',
        'location',
        'lwt',
        '2024-02-24T22:20:38',
      ),
      fc.array(tie('node'), { maxLength: 3 }),
      fc.dictionary(names, tie('node'), { maxKeys: 5 }),
    ),
  })).node;
  const payload = fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    node.map(value => Buffer.from(JSON.stringify(value))),
  );
  const type = fc.constantFrom(
    '',
    'text/plain',
    'application/json',
    'application/senml+json',
    'application/senml+cbor',
  );
  fc.assert(
    fc.property(topic, payload, type, (where, what, contentType) => {
      const outcome = all({
        topic: where,
        payload: what,
        receivedAt: RECEIVED_AT,
        properties: { contentType },
      });
      if (!outcome.ok) assert.notEqual(outcome.reason, '');
    }),
    { numRuns: 4000 },
  );
});
