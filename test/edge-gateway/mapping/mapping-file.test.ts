import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { loadMappingFile, readMappingFile } from '../../../edge-gateway/mapping/mapping-file.ts';

/** Each text has one mistake, on the line that ends with `# !`, unless the line is given. */
const mistakes: [text: string, reason: RegExp, line?: number][] = [
  ['profiles: [a\nmappings: ]', /flow sequence/i, 2],
  ['profiles:\n  - zigbee2mqtt\n profiles: 1 # !', /./],
  ['mappings: []\nmappings: [] # !', /unique/],
  ['profile: zigbee2mqtt # !', /^profile: not known: expected profiles, mappings, protobuf$/],
  ['profiles: zigbee2mqtt # !', /^profiles: .*expected array/],
  ['profiles:\n  - tasmota\n  - zigbee3mqtt # !', /expected one of "zigbee2mqtt"\|"tasmota"\|"shelly"/],
  ['profiles:\n  - tasmota\n  - base: home # !', /^profiles\.1\.profile: .*expected one of "zigbee2mqtt"/],
  [
    'profiles:\n  - profile: shelly\n    timeZone: UTC # !',
    /the profile shelly has no timeZone: expected base/,
  ],
  ['profiles:\n  - profile: tasmota\n    timeZone: Mars # !', /not a time zone: .*Europe\/Berlin/],
  [
    'profiles:\n  - profile: tasmota\n    timezone: UTC # !',
    /^profiles\.0\.timezone: not known: expected .*timeZone/,
  ],
  ['profiles:\n  - profile: zigbee2mqtt\n    base: z/# # !', /^profiles\.0\.base: expected topic levels/],
  ['profiles:\n  - profile: senml\n    topics:\n      - a\n      - a/b{c # !', /level "b\{c": expected/],
  ['mappings:\n  - device: x # !', /^mappings\.0\.topic: missing: expected string/],
  ['mappings:\n  - topic: a/{x} # !', /^mappings\.0\.device: missing: expected a name or a template/],
  ['mappings:\n  - topic: a/{x}/{x} # !\n    device: d', /\{x\} twice/],
  ['mappings:\n  - topic: a/#/b # !\n    device: d', /level "#": expected/],
  ['mappings:\n  - topic: a/{x}\n    device: "{y}" # !', /\{y\} is no level of the topic: the topic names x/],
  ['mappings:\n  - topic: a\n    device: d\n    prefix: "{" # !', /a brace without its other half/],
  ['mappings:\n  - topic: a\n    device: "my device" # !', /a device name has the characters/],
  ['mappings:\n  - topic: a\n    device: d\n    kind: telemetri # !', /expected one of "telemetry"\|"event"/],
  [
    'mappings:\n  - topic: a\n    device: d\n    time:\n      unit: s # !',
    /^mappings\.0\.time\.field: missing/,
    4,
  ],
  ['mappings:\n  - topic: a\n    device: d\n    time: { field: t, unit: h } # !', /"auto"\|"s"\|"ms"/],
  [
    'mappings:\n  - topic: a\n    device: d\n    time: { field: t, unti: s } # !',
    /time\.unti: not known: expected field, unit/,
  ],
  ['mappings:\n  - topic: a\n    device: d\n    only: [] # !', /^mappings\.0\.only: /],
  ['mappings:\n  - topic: a\n    device: d\n    only: [a]\n    except: [b] # !', /either only or except/],
  [
    'mappings:\n  - topic: a\n    device: d\n    rename:\n      t: 5 # !',
    /^mappings\.0\.rename\.t: .*expected string/,
  ],
  ['mappings:\n  - topic: a\n    device: d\n    deviceType: 5 # !', /expected text, or userProperty:/],
  [
    'mappings:\n  - topic: a\n    device: d\n    contentType: text/html # !',
    /not known: expected application\/json/,
  ],
  [
    'profiles:\n  - profile: sparkplug\n    base: a # !',
    /the profile sparkplug has no base: expected no options/,
  ],
  [
    'mappings:\n  - topic: a/{x}\n    device: "{x}"\n    receipts: a # !',
    /^mappings\.0\.receipts: \{x\} must be one of its levels/,
  ],
  [
    'mappings:\n  - topic: a/{x}/{y}\n    device: "{x}-{y}"\n    receipts: a/{x}-{y} # !',
    /receipts: \{x\} must be one of its levels/,
  ],
  ['mappings:\n  - topic: a\n    device: d\n    receipts: a/# # !', /receipts: expected topic levels/],
  ['mappings:\n  - topic: a\n    device: d\n    receipts: $SYS/a # !', /receipts: expected topic levels/],
  ['protobuf:\n  - schema: a.proto # !', /^protobuf\.0\.message: missing: expected string/],
  ['protobuf:\n  - schema: /nowhere/a.proto # !\n    message: M', /^protobuf\.0\.schema: ENOENT/],
  [
    'protobuf:\n  - schema: a.proto\n    message: M\n    topics: b # !',
    /topics: not known: expected schema, message, topic$/,
  ],
  [
    'mappings:\n  - topic: a\n    device: d\n    prefx: b # !',
    /prefx: not known: expected topic, ignore, device/,
  ],
];

test('every mistake is named with its file, its line and what would be right', () => {
  for (const [text, reason, line] of mistakes) {
    const read = readMappingFile(text, 'site.yaml');
    assert.ok(!read.ok, text);
    const [problem] = read.problems;
    const [, found, message] = /^site\.yaml:(\d+): (.*)$/.exec(problem!)!;
    const expected = line ?? text.split('\n').findIndex(each => each.endsWith('# !')) + 1;
    assert.equal(Number(found), expected, `${text}\n${problem}`);
    assert.match(message!, reason, text);
  }
});

test('several mistakes come all at once', () => {
  const read = readMappingFile('profiles: [x, y]\nmapings: []', 'f');
  assert.equal(!read.ok && read.problems.length, 3);
});

test('an empty file is a mapping file that says nothing', () => {
  for (const text of ['', '# nothing yet\n', 'profiles:\n  []']) {
    assert.deepEqual(readMappingFile(text, 'f'), { ok: true, config: { profiles: [], mappings: [] } });
  }
});

test('any text is a mapping or a list of problems with lines', () => {
  const words = fc.constantFrom(
    ...'profiles mappings topic device : - [ ] { } " & * a # | > \n'.split(' '),
    '\n  ',
    ': ',
  );
  fc.assert(
    fc.property(fc.array(words, { maxLength: 25 }), parts => {
      const read = readMappingFile(parts.join(''), 'f');
      if (!read.ok) for (const problem of read.problems) assert.match(problem, /^f:\d+: ./s);
    }),
    { numRuns: 1000 },
  );
});

test('a file that is not there is named', () => {
  const read = loadMappingFile('/nowhere/site.yaml');
  assert.match((!read.ok && read.problems[0]) || '', /^\/nowhere\/site\.yaml: ENOENT/);
});

test('the gateway does not start with a wrong mapping file: exit code 2, and every problem on a line of its own', t => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-mapping-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'site.yaml');
  writeFileSync(file, 'profiles:\n  - zigbee3mqtt\n');
  const main = fileURLToPath(new URL('../../../edge-gateway/main.ts', import.meta.url));
  const { status, stderr } = spawnSync(process.execPath, [main], {
    encoding: 'utf8',
    env: {
      HOLDFAST_SITE: 'demo',
      HOLDFAST_GATEWAY: 'edge-1',
      HOLDFAST_MQTT_URL: 'mqtt://127.0.0.1:1',
      HOLDFAST_NATS_URL: 'nats://127.0.0.1:1',
      HOLDFAST_DATA_DIR: join(folder, 'data'),
      HOLDFAST_MAPPING_FILE: file,
    },
  });
  assert.equal(status, 2);
  assert.match(stderr, /^mapping: .*site\.yaml:2: profiles\.0\.profile: .*zigbee2mqtt/m);
});
