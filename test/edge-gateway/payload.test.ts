import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readPayload } from '../../edge-gateway/payload.ts';
import type { Value } from '../../protocol/batch.ts';
import { limits } from '../../protocol/limits.ts';

const route = { prefix: '', bareName: 'value' };
const read = (payload: string | Uint8Array, as = route) =>
  readPayload(typeof payload === 'string' ? Buffer.from(payload) : payload, as);

/** Elements as `[at, {name: value}]`. */
function elements(payload: string, as = route): [number | null, Record<string, Value>][] {
  const outcome = read(payload, as);
  assert.ok(outcome.ok, `${payload}: ${JSON.stringify(outcome)}`);
  return outcome.elements.map(({ at, names, values }) => [
    at,
    Object.fromEntries(names.map((name, index) => [name, values[index]!])),
  ]);
}

function reasonFor(payload: string | Uint8Array): string {
  const outcome = read(payload);
  assert.ok(
    !outcome.ok,
    `${Buffer.from(payload).toString().slice(0, 60)} was taken: ${JSON.stringify(outcome)}`,
  );
  return outcome.reason;
}

const AT = Date.UTC(2026, 0, 15, 12);

test('the documented payload shapes', () => {
  const cases: [string, [number | null, Record<string, Value>][]][] = [
    ['{"temperature":21.4}', [[null, { temperature: 21.4 }]]],
    [`{"ts":${AT},"temperature":21.4}`, [[AT, { temperature: 21.4 }]]],
    [`{"temperature":21.4,"timestamp":${AT}}`, [[AT, { temperature: 21.4 }]]],
    [`{"ts":${AT},"values":{"temperature":21.4}}`, [[AT, { temperature: 21.4 }]]],
    ['{"values":5}', [[null, { values: 5 }]]],
    ['{"motor":{"rpm":900,"on":true}}', [[null, { 'motor.rpm': 900, 'motor.on': true }]]],
    ['{"a":{"b":{"c":1}},"d":2}', [[null, { 'a.b.c': 1, d: 2 }]]],
    ['{"axis":[1,2,3]}', [[null, { 'axis.0': 1, 'axis.1': 2, 'axis.2': 3 }]]],
    [
      `[{"ts":${AT},"a":1},{"a":"x"}]`,
      [
        [AT, { a: 1 }],
        [null, { a: 'x' }],
      ],
    ],
    [
      '[1,true]',
      [
        [null, { value: 1 }],
        [null, { value: true }],
      ],
    ],
    ['21.5', [[null, { value: 21.5 }]]],
    ['true', [[null, { value: true }]]],
    ['"online"', [[null, { value: 'online' }]]],
    ['online', [[null, { value: 'online' }]]],
    ['  {"a":1}\n', [[null, { a: 1 }]]],
    ['\ufeff{"a":1}', [[null, { a: 1 }]]],
    ['{"a":null,"b":1}', [[null, { b: 1 }]]],
    ['null', [[null, {}]]],
    ['{}', [[null, {}]]],
    ['[]', []],
    ['{"toString":1,"hasOwnProperty":2}', [[null, { toString: 1, hasOwnProperty: 2 }]]],
    ['{"ünï":"😀"}', [[null, { ünï: '😀' }]]],
    ['-0', [[null, { value: -0 }]]],
    ['1.7976931348623157e308', [[null, { value: Number.MAX_VALUE }]]],
    ['5e-324', [[null, { value: 5e-324 }]]],
  ];
  for (const [payload, expected] of cases) assert.deepEqual(elements(payload), expected, payload);
});

test('the topic puts its prefix before every name and names a bare value', () => {
  const as = { prefix: 'event.', bareName: 'event' };
  assert.deepEqual(elements('{"door":"open","lock":{"on":true}}', as), [
    [null, { 'event.door': 'open', 'event.lock.on': true }],
  ]);
  assert.deepEqual(elements('{"values":{"door":"open"}}', as), [[null, { 'event.door': 'open' }]]);
  assert.deepEqual(elements('"open"', as), [[null, { event: 'open' }]]);
});

test('timestamps: seconds, milliseconds, microseconds, ISO 8601', () => {
  const cases: [string, number][] = [
    [`${AT}`, AT],
    [`${AT / 1000}`, AT],
    [`${AT / 1000 + 0.5}`, AT + 500],
    [`${AT * 1000}`, AT],
    [`${AT}.25`, AT + 0.25],
    ['"2026-01-15T12:00:00Z"', AT],
    ['"2026-01-15T12:00:00.250Z"', AT + 250],
    ['"2026-01-15T13:00:00+01:00"', AT],
    ['"2026-01-15T13:00:00+0100"', AT],
    ['"2026-01-15T12:00Z"', AT],
    ['"2026-01-15"', Date.UTC(2026, 0, 15)],
    ['0', 0],
  ];
  for (const [ts, at] of cases) assert.deepEqual(elements(`{"ts":${ts},"a":1}`), [[at, { a: 1 }]], ts);
});

test('a timestamp that is none: the reason shows it and says what would do', () => {
  for (const ts of [
    'true',
    'false',
    '"now"',
    '""',
    '"1"',
    '"12"',
    '"1768478400"',
    '"May 2026"',
    '"12:00"',
    '"2026-13-01"',
    '"2026-01-15T25:00:00Z"',
    '"15.01.2026"',
    '-1',
    '1e400',
    '-1e400',
    '1e19',
    '1e308',
    '[]',
    '[1]',
    '{}',
    '{"seconds":1}',
  ]) {
    const reason = reasonFor(`{"ts":${ts},"a":1}`);
    assert.match(reason, /^timestamp .* is not a time: seconds, milliseconds or microseconds.*ISO 8601$/, ts);
  }
});

test('bad input is refused whole, with a reason that a person can act on (H)', () => {
  const deep = (levels: number) => `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`;
  const many = (count: number) => `{${Array.from({ length: count }, (_, i) => `"m${i}":1`).join()}}`;
  const cases: [string, string | Uint8Array, RegExp][] = [
    ['empty', '', /^payload is empty$/],
    ['blank', ' \r\n\t', /^payload is empty$/],
    ['invalid JSON', '{"a":1', /^payload is not JSON: .*position 6/],
    ['two documents', '{"a":1}{"a":2}', /^payload is not JSON/],
    ['comma number', '21,5', /^payload is not JSON/],
    ['NaN', 'NaN', /^payload is not JSON/],
    ['NaN member', '{"a":NaN}', /^payload is not JSON/],
    ['Infinity', 'Infinity', /^payload is not JSON/],
    ['-Infinity member', '{"a":-Infinity}', /^payload is not JSON/],
    ['undefined', 'undefined', /^payload is not JSON/],
    ['1e400', '1e400', /^"value" is a number beyond what 64-bit floats hold$/],
    ['1e400 member', '{"a":{"b":-1e400}}', /^"a\.b" is a number beyond/],
    ['1e400 in an array', '[{"a":1},{"a":1e400}]', /^"a" is a number beyond/],
    ['__proto__ flat', '{"__proto__":1}', /^metric name "__proto__" is not allowed$/],
    ['__proto__ with an object', '{"__proto__":{"polluted":1}}', /"__proto__" is not allowed/],
    ['__proto__ nested', '{"a":{"__proto__":{"b":1}}}', /"__proto__" is not allowed/],
    ['__proto__ at the end', '{"a":{"__proto__":1}}', /"a\.__proto__" is not allowed/],
    ['__proto__ in an array', '[{"a":1},{"__proto__":2}]', /"__proto__" is not allowed/],
    ['__proto__ in an inner array', '{"a":[{"__proto__":2}]}', /__proto__" is not allowed/],
    ['__proto__ in values', '{"values":{"__proto__":2}}', /"__proto__" is not allowed/],
    ['__proto__ inside a dotted name', '{"a.__proto__.b":1}', /"a\.__proto__\.b" is not allowed/],
    ['__proto__ before a dot', '{"__proto__.b":1}', /"__proto__\.b" is not allowed/],
    ['constructor', '{"constructor":{"prototype":{"x":1}}}', /"constructor" is not allowed/],
    ['U+0000 in a name', '{"a\\u0000b":1}', /^a metric name contains U\+0000/],
    ['U+0000 in an outer name', '{"a\\u0000b":{"c":1}}', /^a metric name contains U\+0000/],
    ['U+0000 in a value', '{"a":"x\\u0000y"}', /^the value of "a" contains U\+0000/],
    ['U+0000 raw', '{"a":"x\0y"}', /^payload is not JSON/],
    ['lone surrogate in a name', '{"\\ud83d":1}', /^a metric name is not well-formed Unicode$/],
    ['lone surrogate in a value', '{"a":"\\udc00"}', /^the value of "a" is not well-formed Unicode$/],
    ['invalid UTF-8', Buffer.from('{"a":"\xff"}', 'latin1'), /^payload is not UTF-8 text$/],
    ['overlong UTF-8', Buffer.from([0x22, 0xc0, 0x80, 0x22]), /^payload is not UTF-8 text$/],
    ['UTF-16', Buffer.from('{"a":1}', 'utf16le'), /^payload is not/],
    ['binary', Buffer.from([0x81, 0xa1, 0x61, 0x01]), /^payload is not UTF-8 text$/],
    ['too deep', deep(limits.nestingMax + 2), /^nested deeper than 8 levels$/],
    ['far too deep', '['.repeat(100_000) + ']'.repeat(100_000), /^array inside an array$/],
    ['far too deep object', deep(20_000), /^nested deeper than 8 levels$/],
    ['array in array', '[[1,2]]', /^array inside an array$/],
    ['too many metrics', many(limits.metricsPerElementMax + 1), /^more than 256 metrics in one message$/],
    [
      'too many elements',
      `[${'1,'.repeat(limits.elementsPerMessageMax)}1]`,
      /^array of 1025 elements, at most 1024$/,
    ],
    ['long name', `{"${'n'.repeat(129)}":1}`, /^a metric name is longer than 128 bytes$/],
    [
      'long nested name',
      `{"${'n'.repeat(100)}":{"${'m'.repeat(100)}":1}}`,
      /^a metric name is longer than 128/,
    ],
    ['long name in UTF-8', `{"${'ü'.repeat(65)}":1}`, /^a metric name is longer than 128 bytes$/],
    ['long string', `"${'s'.repeat(4097)}"`, /^the value of "value" is longer than 4096 bytes$/],
    ['long string in UTF-8', `"${'😀'.repeat(1025)}"`, /^the value of "value" is longer than 4096 bytes$/],
    ['no name', '{"":1}', /^a metric without a name$/],
    ['one metric twice', '{"a":{"b":1},"a.b":2}', /^one metric twice in a message$/],
    ['values and beside it', '{"a":1,"values":{"a":2}}', /^one metric twice in a message$/],
  ];
  for (const [what, payload, expected] of cases) assert.match(reasonFor(payload), expected, what);
  assert.equal(({} as { polluted?: unknown }).polluted, undefined);
});

test('the bounds themselves are inside', () => {
  const deep = `${'{"a":'.repeat(limits.nestingMax + 1)}1${'}'.repeat(limits.nestingMax + 1)}`;
  const many = Array.from({ length: limits.metricsPerElementMax }, (_, i) => `"m${i}":1`).join();
  assert.equal(elements(deep).length, 1);
  assert.equal(Object.keys(elements(`{${many}}`)[0]![1]).length, 256);
  assert.equal(elements(`[${'1,'.repeat(limits.elementsPerMessageMax - 1)}1]`).length, 1024);
  assert.equal(elements(`{"${'n'.repeat(128)}":1}`).length, 1);
  assert.equal(elements(`"${'s'.repeat(4096)}"`).length, 1);
});

test('a reason is text that a batch may carry, whatever it quotes (H)', () => {
  // The parser quotes single UTF-16 units, and cutting a long name may split a pair.
  for (const payload of [
    '😀',
    '{"a":😀}',
    '{"a":1}😀',
    `{"ts":"${'x'.repeat(58)}😀"}`,
    `{"${'n'.repeat(59)}😀":1e400}`,
  ]) {
    assert.ok(reasonFor(payload).isWellFormed(), payload);
  }
});

function assertSound(payload: Uint8Array): void {
  const outcome = read(payload);
  if (!outcome.ok) {
    assert.ok(outcome.reason.isWellFormed() && outcome.reason !== '');
    assert.ok(Buffer.byteLength(outcome.reason) <= 1024);
    return;
  }
  for (const { at, names, values } of outcome.elements) {
    assert.ok(at === null || Number.isFinite(at));
    assert.equal(names.length, values.length);
    assert.equal(new Set(names).size, names.length);
    for (const value of values) {
      assert.ok(typeof value === 'number' ? Number.isFinite(value) : typeof value !== 'object');
      if (typeof value === 'string') assert.ok(value.isWellFormed() && !value.includes('\0'));
    }
    for (const name of names) assert.ok(name.isWellFormed() && !name.includes('\0') && name !== '');
  }
}

test('any bytes give sound elements or a reason, never an exception (H)', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), assertSound), { numRuns: 3000 });
});

test('any JSON, whole or damaged in one place, gives sound elements or a reason (H)', () => {
  const names = fc.oneof(
    fc.constantFrom('ts', 'timestamp', 'values', '__proto__', 'constructor', 'a', 'a.b', '', '😀'),
    fc.string({ unit: 'binary', maxLength: 6 }),
  );
  const leaves = fc.oneof(
    fc.double(),
    fc.boolean(),
    fc.constant(null),
    fc.string({ unit: 'binary', maxLength: 8 }),
    fc.constantFrom(1e11, 1e14, 2 ** 53, -1, AT),
  );
  const { json } = fc.letrec<{ json: unknown }>(tie => ({
    json: fc.oneof(
      { depthSize: 'small' },
      leaves,
      fc.array(tie('json'), { maxLength: 4 }),
      fc.array(fc.tuple(names, tie('json')), { maxLength: 5 }).map(entries => ({ entries })),
    ),
  }));
  const text = (node: unknown): string => {
    if (Array.isArray(node)) return `[${node.map(text).join()}]`;
    if (typeof node === 'object' && node !== null) {
      const { entries } = node as { entries: [string, unknown][] };
      return `{${entries.map(([name, member]) => `${JSON.stringify(name)}:${text(member)}`).join()}}`;
    }
    return JSON.stringify(node);
  };
  fc.assert(
    fc.property(json, fc.nat(), fc.option(fc.nat(255)), (node, at, byte) => {
      const bytes = Buffer.from(text(node));
      if (byte !== null) bytes[at % bytes.length] = byte;
      assertSound(bytes);
    }),
    { numRuns: 3000 },
  );
});
