/**
 * Processes that cannot do what they are told say why and what to do, in one line, and hurt nobody else (H): a taken
 * port, a bad configuration, a data folder that cannot be written, a broker that refuses the password.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import mqtt from 'mqtt';
import { mosquittoPasswordLine } from '../../deploy/local/secrets.ts';
import { withUser } from '../../deploy/local/stack.ts';
import { canReach, unprivilegedUser } from '../../deploy/local/unprivileged.ts';
import { checkAll } from './checker.ts';
import { startPublisher } from './publisher.ts';
import { gatewayEntries, openScene, type Scene, until } from './scene.ts';

const SITE = 'demo';
let scene: Scene;

before(async () => {
  scene = await openScene({ sites: { [SITE]: ['gw-1'], lonely: ['gw-1'] } });
});
after(() => scene?.close());

/** Runs one of our processes to its end. */
async function run(
  entry: 'cloud' | 'edge-gateway',
  env: Readonly<Record<string, string>>,
  user?: { uid: number; gid: number },
): Promise<{ code: number | null; output: string }> {
  const child = spawn(
    process.execPath,
    [
      '--disable-warning=ExperimentalWarning',
      fileURLToPath(new URL(`../../${entry}/main.ts`, import.meta.url)),
    ],
    { env: { PATH: process.env.PATH, ...env }, stdio: ['ignore', 'pipe', 'pipe'], ...user },
  );
  let output = '';
  child.stdout.on('data', chunk => {
    output += chunk;
  });
  child.stderr.on('data', chunk => {
    output += chunk;
  });
  const giveUp = setTimeout(() => child.kill('SIGKILL'), 20_000);
  const [code] = (await once(child, 'close')) as [number | null];
  clearTimeout(giveUp);
  return { code, output };
}

const gatewayEnv = (): Record<string, string> => ({
  HOLDFAST_SITE: 'lonely',
  HOLDFAST_GATEWAY: 'gw-1',
  HOLDFAST_MQTT_URL: scene.stack.brokers.get('lonely')!.server.url,
  HOLDFAST_NATS_URL: scene.natsUrl('lonely', 'gw-1'),
  HOLDFAST_DATA_DIR: join(scene.directory, 'refused'),
});
const cloudEnv = (): Record<string, string> => ({
  HOLDFAST_NATS_URL: scene.stack.nats.url,
  HOLDFAST_REDIS_URL: scene.stack.redis.url,
  HOLDFAST_POSTGRES_URL: scene.stack.postgres.url,
  HOLDFAST_HTTP_PORT: '0',
});

test('a taken port: exit 1 with what to set, and the node that has the port goes on undisturbed', async () => {
  const publisher = await startPublisher({
    url: scene.stack.brokers.get(SITE)!.deviceUrl,
    prefix: 'port',
    devices: 4,
    messagesPerSecond: 200,
  });
  try {
    let ended = '';
    scene.stack.cloud.onUnexpectedExit(reason => {
      ended = reason;
    });
    const { port } = new URL(scene.stack.url);
    const { code, output } = await run('cloud', { ...cloudEnv(), HOLDFAST_HTTP_PORT: port });
    assert.equal(code, 1, output);
    assert.match(output, new RegExp(`port ${port} on 127.0.0.1 is taken`));
    assert.match(output, /Set HOLDFAST_HTTP_PORT to another one/);
    await publisher.reached(publisher.acknowledged + 200);
    await publisher.finish();
    await checkAll(scene, SITE, publisher.journal, 'beside a node without a port');
    assert.equal(ended, '');
  } finally {
    await publisher.stop();
  }
});

test('servers that are not there: exit 1 with the server and the reason', async () => {
  for (const [key, url, expected] of [
    ['HOLDFAST_POSTGRES_URL', 'postgres://nobody@127.0.0.1:1/x', /PostgreSQL: .*ECONNREFUSED/],
    ['HOLDFAST_NATS_URL', 'nats://127.0.0.1:1', /NATS: .*(refused|CONNECTION)/i],
  ] as const) {
    const { code, output } = await run('cloud', { ...cloudEnv(), [key]: url });
    assert.equal(code, 1, output);
    assert.match(output, expected);
  }
});

test('a bad configuration: exit 2, and every wrong key is named', async () => {
  const cases: ['cloud' | 'edge-gateway', Record<string, string>, RegExp[]][] = [
    ['cloud', {}, [/HOLDFAST_NATS_URL/, /HOLDFAST_REDIS_URL/, /HOLDFAST_POSTGRES_URL/]],
    ['cloud', { ...cloudEnv(), HOLDFAST_HTTP_PORT: '99999' }, [/HOLDFAST_HTTP_PORT/]],
    ['cloud', { ...cloudEnv(), HOLDFAST_PARTITIONS: 'many' }, [/HOLDFAST_PARTITIONS/]],
    ['cloud', { ...cloudEnv(), HOLDFAST_NATS_URL: 'no address' }, [/HOLDFAST_NATS_URL/]],
    [
      'edge-gateway',
      {},
      [/HOLDFAST_SITE/, /HOLDFAST_GATEWAY/, /HOLDFAST_MQTT_URL/, /HOLDFAST_NATS_URL/, /HOLDFAST_DATA_DIR/],
    ],
    ['edge-gateway', { ...gatewayEnv(), HOLDFAST_SITE: 'two words' }, [/HOLDFAST_SITE: a site name/]],
    ['edge-gateway', { ...gatewayEnv(), HOLDFAST_MQTT_URL: 'http://x' }, [/HOLDFAST_MQTT_URL/]],
    ['edge-gateway', { ...gatewayEnv(), HOLDFAST_NATS_URL: 'no address' }, [/HOLDFAST_NATS_URL/]],
    ['edge-gateway', { ...gatewayEnv(), HOLDFAST_NATS_URL: 'localhost:4222' }, [/HOLDFAST_NATS_URL/]],
    ['edge-gateway', { ...gatewayEnv(), HOLDFAST_BUFFER_BYTES_MAX: '1' }, [/HOLDFAST_BUFFER_BYTES_MAX/]],
  ];
  for (const [entry, env, expected] of cases) {
    const { code, output } = await run(entry, env);
    assert.equal(code, 2, output);
    for (const key of expected) assert.match(output, key);
    assert.ok(!output.includes('    at '), `no stack trace:\n${output}`);
  }
});

test('a data folder that cannot be made or written: exit 1 with the reason and what to set', async () => {
  const file = join(scene.directory, 'a-file');
  writeFileSync(file, '');
  const below = await run('edge-gateway', { ...gatewayEnv(), HOLDFAST_DATA_DIR: join(file, 'data') });
  assert.equal(below.code, 1, below.output);
  assert.match(below.output, /a-file.* is not a folder/);
  assert.match(below.output, /set HOLDFAST_DATA_DIR to a folder this user may write/);

  const readOnly = join(scene.directory, 'read-only');
  mkdirSync(readOnly, { mode: 0o555 });
  const user = unprivilegedUser();
  const project = fileURLToPath(new URL('../..', import.meta.url));
  // As root every folder can be written: the gateway has to run as somebody else, who must be able to read it.
  if (user && !canReach(user, project)) {
    console.log(`the user ${user.name} cannot read the project: the read-only folder is not tried`);
    return;
  }
  const refused = await run('edge-gateway', { ...gatewayEnv(), HOLDFAST_DATA_DIR: readOnly }, user);
  assert.equal(refused.code, 1, refused.output);
  assert.match(refused.output, /EACCES|permission denied/i);
  assert.match(refused.output, /set HOLDFAST_DATA_DIR to a folder this user may write/);
});

test('a second gateway on the same data folder: exit 1, and the first one goes on', async () => {
  const env = { ...gatewayEnv(), HOLDFAST_DATA_DIR: join(scene.directory, 'gateways', 'lonely', 'gw-1') };
  const { code, output } = await run('edge-gateway', env);
  assert.equal(code, 1, output);
  assert.match(output, /the disk buffer cannot be used/);
  assert.notEqual(scene.stack.gateways.get('lonely/gw-1')!.pid(), undefined);
});

test('a broker that refuses the password: said in the log and in /sites, and tried until it is let in', async () => {
  await scene.stack.gateways.get('lonely/gw-1')!.stop();
  const { server, deviceUrl } = scene.stack.brokers.get('lonely')!;
  const user = { user: 'gateway-2', password: 'not-known-yet' };
  const gateway = scene.gateway('lonely', 'gw-1', { HOLDFAST_MQTT_URL: withUser(server.url, user) });
  await gateway.start();
  const expected =
    /the broker at 127\.0\.0\.1:\d+ refuses user \\?"gateway-2\\?" \(.+\): check the user and password in HOLDFAST_MQTT_URL/;
  await until('the reason is in the log', 10_000, () => expected.test(gateway.output()));
  assert.ok(!gateway.output().includes(user.password), 'the password is not in the log');
  await until('the reason is in /sites', 15_000, async () => {
    const entry = (await gatewayEntries(scene)).find(({ site }) => site === 'lonely');
    return entry !== undefined && !entry.broker.connected && expected.test(entry.broker.reason ?? '');
  });
  // The broker learns the password; the gateway is not touched.
  await server.stop();
  const passwords = join(scene.directory, 'brokers', 'lonely', 'passwords');
  appendFileSync(passwords, `${mosquittoPasswordLine(user.user, user.password)}\n`);
  await server.start();
  await until('the gateway is let in', 30_000, () => gateway.output().includes('broker: connected'));
  const device = await mqtt.connectAsync(deviceUrl, { protocolVersion: 5 });
  await device.publishAsync('devices/z/telemetry', '{"a":1}', { qos: 1 });
  await until('a reading comes through', 10_000, () => scene.get('/twins/lonely/z'));
  await device.endAsync(true);
});
