/** `holdfast edge try-mapping` as a person runs it, and every example of docs/mapping.md with it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import protobuf from 'protobufjs';
import { profileNames } from '../../../edge-gateway/mapping/mapping-file.ts';

const command = fileURLToPath(new URL('../../../edge-gateway/command.ts', import.meta.url));
const page = readFileSync(new URL('../../../docs/mapping.md', import.meta.url), 'utf8');
const folder = mkdtempSync(join(tmpdir(), 'holdfast-mapping-'));
after(() => rmSync(folder, { recursive: true }));

const [, yaml] = /```yaml\n([\s\S]*?)```/.exec(page)!;
writeFileSync(join(folder, 'site.yaml'), yaml!);
const [, proto] = /```proto\n([\s\S]*?)```/.exec(page)!;
writeFileSync(join(folder, 'plant.proto'), proto!);

/** A Sparkplug device's birth and data, as a real node sent them. */
const { messages } = JSON.parse(
  readFileSync(new URL('fixtures/sparkplug.json', import.meta.url), 'utf8'),
) as { messages: { topic: string; payload: string; birth?: string }[] };
const data = messages.find(({ topic, birth }) => topic.includes('/DDATA/') && birth !== undefined)!;
writeFileSync(join(folder, 'data.bin'), Buffer.from(data.payload, 'base64'));
writeFileSync(join(folder, 'birth.bin'), Buffer.from(data.birth!, 'base64'));

const root = protobuf.parse(proto!, { keepCase: true }).root;
root.addJSON(protobuf.common.get('google/protobuf/timestamp.proto')!.nested!);
const Reading = root.lookupType('plant.v1.Reading');
const reading = Reading.fromObject({
  timestamp: { seconds: 1763712345 },
  temperature: 21.5,
  mode: 'AUTO',
  motor: { rpm: 900 },
});
writeFileSync(join(folder, 'reading.bin'), Reading.encode(reading).finish());

function run(args: readonly string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, ...args], {
    cwd: folder,
    encoding: 'utf8',
    env,
  });
  return { status, stdout, stderr };
}

/** Words as a shell takes them, single quotes and all. */
const words = (line: string): string[] =>
  [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare!);

const examples = [...page.matchAll(/```console\n([\s\S]*?)```/g)]
  .flatMap(([, block]) => block!.split(/^\$ holdfast edge /m).slice(1))
  .map(example => {
    const end = example.indexOf('\n');
    return { args: words(example.slice(0, end)), printed: example.slice(end + 1) };
  });

test('every example of docs/mapping.md prints what the page says, and every profile has one', () => {
  assert.ok(examples.length > profileNames.length);
  for (const { args, printed } of examples) {
    assert.deepEqual(run(args), { status: 0, stdout: printed, stderr: '' }, args.join(' '));
  }
  for (const name of profileNames)
    assert.match(page, new RegExp(`### ${name}\n\n\`\`\`console\n\\$ holdfast`));
});

test('a Sparkplug data message without its birth is set aside, and a birth that is none is told', () => {
  const args = ['try-mapping', '--mapping', 'site.yaml', '--topic', data.topic, '--file', 'data.bin'];
  const without = run(args);
  assert.equal(without.status, 1);
  assert.match(without.stdout, /^set aside: alias 10 without a birth/);
  assert.match(run([...args, '--birth', 'site.yaml']).stderr, /^--birth site\.yaml: payload is not/);
  const elsewhere = run(['try-mapping', '--topic', 'a', '--payload', '1', '--birth', 'birth.bin']);
  assert.deepEqual([elsewhere.status, /no topic of Sparkplug data/.test(elsewhere.stderr)], [2, true]);
});

test('JSON, a payload of a file, user properties, the mapping file of the environment', () => {
  writeFileSync(join(folder, 'pack'), Buffer.from('81a16e05', 'hex'));
  const args = [
    'try-mapping',
    '--topic',
    'a',
    '--file',
    'pack',
    '--content-type',
    'application/msgpack',
    '--json',
  ];
  writeFileSync(
    join(folder, 'own.yaml'),
    'mappings:\n  - { topic: a, device: d, deviceType: { userProperty: type } }\n',
  );
  const { status, stdout } = run([...args, '--user-property', 'type=a=b'], {
    HOLDFAST_MAPPING_FILE: 'own.yaml',
  });
  assert.equal(status, 0);
  assert.deepEqual(JSON.parse(stdout), {
    readings: [{ device: 'd', kind: 'telemetry', time: null, metrics: { n: 5, 'device.type': 'a=b' } }],
    setAside: null,
  });
});

test('exit codes: 1 for a message that is set aside, 2 for what cannot be tried', () => {
  const aside = run(['try-mapping', '--topic', 'devices/d/telemetry', '--payload', '{']);
  assert.equal(aside.status, 1);
  assert.match(aside.stdout, /^set aside: payload is not JSON/);
  const nothing = run([
    'try-mapping',
    '--mapping',
    'site.yaml',
    '--topic',
    'zigbee2mqtt/bridge/info',
    '--payload',
    '{}',
  ]);
  assert.deepEqual(nothing, { status: 0, stdout: 'nothing to store\n', stderr: '' });
  writeFileSync(join(folder, 'wrong.yaml'), 'profiles: [x]\n');
  const wrong: [string[], RegExp][] = [
    [['try-mapping'], /^holdfast edge try-mapping --topic/],
    [['try-maping'], /^There is no command edge try-maping/],
    [['try-mapping', '--payload', '1'], /^holdfast edge try-mapping --topic/],
    [['try-mapping', '--topic', 'a', '--payload', '1', '--file', 'b'], /^holdfast edge try-mapping --topic/],
    [['try-mapping', '--tpoic', 'a'], /'--tpoic'/],
    [['try-mapping', '--topic', 'a', '--file', 'nowhere'], /ENOENT.*nowhere/],
    [['try-mapping', '--topic', 'a', '--payload', '1', '--user-property', 'x'], /NAME=VALUE/],
    [
      ['try-mapping', '--mapping', 'wrong.yaml', '--topic', 'a', '--payload', '1'],
      /^wrong\.yaml:1: profiles\.0/,
    ],
  ];
  for (const [args, message] of wrong) {
    const { status, stderr } = run(args);
    assert.equal(status, 2, args.join(' '));
    assert.match(stderr, message, args.join(' '));
  }
});
