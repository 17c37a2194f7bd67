/** Protobuf payloads, encoded by protobufjs, and schemas with their mistakes. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import protobuf from 'protobufjs';
import { compileMapping } from '../../../edge-gateway/mapping/compile.ts';
import { Unusable } from '../../../edge-gateway/mapping/decoded.ts';
import { readMappingFile } from '../../../edge-gateway/mapping/mapping-file.ts';
import { decodeProtobuf } from '../../../edge-gateway/mapping/protobuf-decode.ts';
import { loadSchema } from '../../../edge-gateway/mapping/protobuf-schema.ts';
import { tryMapping } from '../../../edge-gateway/mapping/try-mapping.ts';
import { RECEIVED_AT } from '../frames.ts';

const folder = mkdtempSync(join(tmpdir(), 'holdfast-protobuf-'));
after(() => rmSync(folder, { recursive: true }));

const PLANT = `
syntax = "proto3";
package plant.v1;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "parts/motor.proto";
enum Mode { MODE_OFF = 0; MODE_AUTO = 1; }
message Reading {
  google.protobuf.Timestamp timestamp = 1;
  double temperature = 2;
  sint32 offset = 3;
  optional float level = 4;
  Mode mode = 5;
  bool running = 6;
  string note = 7;
  Motor motor = 8;
  repeated int32 codes = 9;
  map<string, double> extra = 10;
  google.protobuf.Duration uptime = 11;
  google.protobuf.DoubleValue maybe = 12;
  oneof which { int64 big = 13; string text = 14; }
  fixed64 wide = 15;
  bytes raw = 16;
  repeated Reading history = 17;
}
message Tree { Tree left = 1; repeated Empty many = 2; }
message Empty { int32 a = 1; int32 b = 2; int32 c = 3; int32 d = 4; }
`;
const files: Record<string, string> = {
  'plant.proto': PLANT,
  'parts/motor.proto': 'syntax = "proto3";\npackage plant.v1;\nmessage Motor { uint32 rpm = 1; }\n',
  'old.proto':
    'syntax = "proto2";\nmessage Old { required int32 a = 1; optional int32 b = 2 [default = 5]; }\n',
};
const text = (path: string): string => {
  const found = files[path];
  if (found === undefined) throw new Error(`ENOENT: ${path}`);
  return found;
};
const loaded = loadSchema('plant.proto', text);
assert.ok(loaded.ok, JSON.stringify(loaded));
const { schema } = loaded;

/** protobufjs itself, with code of its own. */
const library = new protobuf.Root();
for (const name of [
  'google/protobuf/timestamp.proto',
  'google/protobuf/duration.proto',
  'google/protobuf/wrappers.proto',
])
  library.addJSON(protobuf.common.get(name)!.nested!);
protobuf.parse(files['parts/motor.proto']!, library, { keepCase: true });
protobuf.parse(PLANT, library, { keepCase: true });
library.resolveAll();
const encode = (type: string, value: object): Buffer => {
  const message = library.lookupType(type);
  return Buffer.from(message.encode(message.fromObject(value)).finish());
};
const decode = (bytes: Uint8Array, type = 'plant.v1.Reading') =>
  JSON.parse(
    JSON.stringify(decodeProtobuf(bytes, schema, type), (_, v) => (typeof v === 'bigint' ? `${v}` : v)),
  );

test('every field type comes back as it was sent', () => {
  const value = {
    timestamp: { seconds: 1763712345, nanos: 678_000_000 },
    temperature: 21.5,
    offset: -3,
    level: 0.5,
    mode: 'MODE_AUTO',
    running: true,
    note: 'Öl',
    motor: { rpm: 900 },
    codes: [1, -2, 3],
    extra: { a: 1.5, b: 2 },
    uptime: { seconds: 90, nanos: 500_000_000 },
    maybe: { value: 4 },
    big: -5,
    wide: '9007199254740993',
  };
  assert.deepEqual(decode(encode('plant.v1.Reading', value)), {
    ...value,
    timestamp: { ms: 1763712345678 },
    uptime: 90.5,
    maybe: 4,
  });
});

test('what proto3 does not send is zero, what may be absent is absent', () => {
  const zeros = { temperature: 0, offset: 0, mode: 'MODE_OFF', running: false, note: '', wide: 0 };
  assert.deepEqual(decode(Buffer.of()), zeros);
  assert.deepEqual(decode(encode('plant.v1.Reading', { level: 0, big: 0, motor: {} })), {
    ...zeros,
    level: 0,
    big: 0,
    motor: { rpm: 0 },
  });
  const old = loadSchema('old.proto', text);
  assert.ok(old.ok);
  assert.deepEqual({ ...(decodeProtobuf(Buffer.of(0x08, 7), old.schema, 'Old') as object) }, { a: 7 });
});

test('the same with random values, unknown fields in between', () => {
  const reading = fc.record(
    {
      temperature: fc.double({ noNaN: true, noDefaultInfinity: true }).filter(value => !Object.is(value, -0)),
      offset: fc.integer(),
      mode: fc.constantFrom('MODE_OFF', 'MODE_AUTO'),
      running: fc.boolean(),
      note: fc.string({ unit: 'grapheme' }),
      codes: fc.array(fc.integer(), { minLength: 1, maxLength: 20 }),
      big: fc.maxSafeInteger(),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(reading, value => {
      const unknown = Buffer.from([0xa0, 0x06, 0x96, 0x01, 0xaa, 0x06, 0x02, 0x68, 0x69]);
      const bytes = Buffer.concat([unknown, encode('plant.v1.Reading', value), unknown]);
      const zeros = { temperature: 0, offset: 0, mode: 'MODE_OFF', running: false, note: '', wide: 0 };
      assert.deepEqual(decode(bytes), { ...zeros, ...value });
    }),
    { numRuns: 500 },
  );
});

test('hostile payloads are refused, and never cost more than they are (F, H)', () => {
  const refused = (bytes: Uint8Array, reason: RegExp, type = 'plant.v1.Reading') =>
    assert.throws(
      () => decodeProtobuf(bytes, schema, type),
      error => error instanceof Unusable && reason.test(error.message),
    );
  refused(Buffer.of(0x12, 0xff, 0xff, 0xff, 0x7f), /not of the schema's type/);
  refused(Buffer.of(0x3a, 0xff, 0xff, 0xff, 0x7f), /ends too early/);
  refused(Buffer.of(0x3a, 1, 0xff), /not UTF-8/);
  refused(Buffer.of(0x18, ...new Array<number>(11).fill(0xff)), /more than 10 bytes/);
  refused(Buffer.of(0x07), /without a number/);
  refused(Buffer.of(0xa6, 0x06), /wire type 6/);
  let nested = Buffer.of();
  for (let depth = 0; depth < 40; depth++) nested = Buffer.concat([Buffer.of(0x0a, nested.length), nested]);
  refused(nested, /nested deeper/, 'plant.v1.Tree');
  refused(Buffer.alloc(2 * 100_000, Buffer.of(0x12, 0)), /more than 262144 values/, 'plant.v1.Tree');
  refused(Buffer.from([...new Array<number>(40).fill(0xa3).flatMap(byte => [byte, 0x06])]), /nested deeper/);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), bytes => {
      try {
        decodeProtobuf(bytes, schema, 'plant.v1.Reading');
      } catch (error) {
        if (!(error instanceof Unusable)) throw error;
      }
    }),
    { numRuns: 3000 },
  );
});

for (const [name, content] of Object.entries(files)) {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

function compiled(mapping: string) {
  const file = readMappingFile(mapping, join(folder, 'site.yaml'));
  assert.ok(file.ok, JSON.stringify(file));
  // As a worker gets it.
  const mapped = compileMapping(structuredClone(file.config));
  return (topic: string, payload: Uint8Array, contentType?: string) =>
    tryMapping(mapped, {
      topic,
      payload,
      receivedAt: RECEIVED_AT,
      ...(contentType !== undefined && { properties: { contentType } }),
    });
}

const PAYLOAD = encode('plant.v1.Reading', { timestamp: { seconds: 1763712345 }, motor: { rpm: 900 } });

test('by topic, by the only one there is, by the parameter of the content type', () => {
  const site = compiled(`
protobuf:
  - { schema: plant.proto, message: plant.v1.Reading, topic: "devices/+/telemetry" }
  - { schema: plant.proto, message: plant.v1.Motor }
  - { schema: old.proto, message: Old, topic: "assets/#" }
mappings:
  - { topic: "m/{id}", device: "{id}", contentType: application/protobuf }
`);
  const { readings } = site('devices/d/telemetry', PAYLOAD);
  assert.deepEqual(readings, [
    {
      device: 'd',
      kind: 'telemetry',
      time: '2025-11-21T08:05:45.000Z',
      metrics: {
        'motor.rpm': 900,
        temperature: 0,
        offset: 0,
        mode: 'MODE_OFF',
        running: false,
        note: '',
        wide: 0,
      },
    },
  ]);
  const rpm = Buffer.of(0x08, 7);
  for (const contentType of [
    'application/protobuf',
    'application/x-protobuf',
    'application/vnd.google.protobuf',
  ]) {
    assert.deepEqual(site('devices/d/status', rpm, contentType).readings[0]?.metrics, { 'status.rpm': 7 });
  }
  assert.deepEqual(site('m/d', rpm).readings[0]?.metrics, { rpm: 7 });
  for (const contentType of [
    'application/protobuf; messageType="Old"',
    'application/x-protobuf;messageType=Old',
    'application/vnd.google.protobuf; proto=.Old; encoding=delimited',
  ]) {
    assert.deepEqual(
      site('devices/d/telemetry', rpm, contentType).readings[0]?.metrics,
      { a: 7 },
      contentType,
    );
  }
  assert.deepEqual(
    site('devices/d/telemetry', Buffer.from('{"a":1}'), 'application/json').readings[0]?.metrics,
    {
      a: 1,
    },
  );
});

test('what cannot be told is set aside with what to do', () => {
  const two = compiled(
    'protobuf:\n  - { schema: plant.proto, message: plant.v1.Motor }\n  - { schema: old.proto, message: Old }',
  );
  const type = 'application/protobuf';
  assert.match(two('devices/d/telemetry', PAYLOAD, type).setAside!, /give the topic below protobuf:/);
  assert.match(
    two('devices/d/telemetry', PAYLOAD, `${type}; messageType=New`).setAside!,
    /the Protobuf message "New" is none of those/,
  );
  assert.match(compiled('')('devices/d/telemetry', PAYLOAD, type).setAside!, /needs its schema/);
  assert.match(two('nowhere', PAYLOAD, `${type}; messageType=Old`).setAside!, /fits no shape/);
});

test('mistakes in schemas come with the line in the mapping file and in the schema', () => {
  writeFileSync(join(folder, 'broken.proto'), 'syntax = "proto3";\nmessage A {\n  int32 a = x;\n}\n');
  writeFileSync(join(folder, 'lonely.proto'), 'syntax = "proto3";\nimport "nowhere.proto";\nmessage A {}\n');
  writeFileSync(join(folder, 'untyped.proto'), 'syntax = "proto3";\nmessage A { B b = 1; }\n');
  writeFileSync(
    join(folder, 'group.proto'),
    'syntax = "proto2";\nmessage A { optional group B = 1 { optional int32 c = 2; } }\n',
  );
  const problem = (schemaFile: string, message = 'A') => {
    const read = readMappingFile(
      `profiles: []\nprotobuf:\n  - schema: ${schemaFile}\n    message: ${message}\n`,
      join(folder, 'site.yaml'),
    );
    return read.ok ? 'none' : read.problems.join('\n').replaceAll(`${folder}/`, '');
  };
  assert.match(
    problem('broken.proto'),
    /^site\.yaml:3: protobuf\.0\.schema: broken\.proto:3: illegal id 'x'$/,
  );
  assert.match(problem('lonely.proto'), /^site\.yaml:3: .*lonely\.proto: imports "nowhere\.proto"/);
  assert.match(problem('untyped.proto'), /^site\.yaml:3: .*no such.*B/);
  assert.match(problem('group.proto'), /^site\.yaml:3: .*groups are not read/);
  assert.match(problem('absent.proto'), /^site\.yaml:3: .*ENOENT/);
  assert.match(
    problem('old.proto', 'New'),
    /^site\.yaml:4: protobuf\.0\.message: old\.proto has no message "New": it has Old$/,
  );
});
