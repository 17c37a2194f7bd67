/** What the box tells of itself: the command beside a running gateway with a real broker and nats-server, and without one. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import mqtt from 'mqtt';
import { defaultCacheDirectory, findBinaries } from '../../deploy/local/find-servers.ts';
import { type NodeProcess, nodeProcess } from '../../deploy/local/node-process.ts';
import { freePort, type Server, startMosquitto } from '../../deploy/local/servers.ts';
import { nodeFiles } from '../../edge-gateway/log/files.ts';
import { readSent } from '../../edge-gateway/log/sent-marks.ts';
import { SOCKET_NAME } from '../../edge-gateway/status/socket-path.ts';
import type { GatewayState } from '../../edge-gateway/status/state.ts';
import { isLogId } from '../../protocol/ids.ts';
import { type SmallCloud, startSmallCloud } from './small-cloud.ts';

const project = fileURLToPath(new URL('../..', import.meta.url));
const NAMED = ['--site', 'demo', '--gateway', 'gw-1', '--no-mapping'];
let directory: string;
let cloud: SmallCloud;
let broker: Server;
let metricsPort = 0;
const gateways: NodeProcess[] = [];

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-status-'));
  cloud = await startSmallCloud();
  const binaries = await findBinaries({
    cacheDirectory: defaultCacheDirectory,
    report: line => process.stderr.write(`${line}\n`),
    need: ['mosquitto'],
  });
  const users = [{ user: 'gateway', password: 'gateway' }];
  broker = await startMosquitto({ binaries, directory: join(directory, 'broker'), users });
  metricsPort = await freePort();
});
after(async () => {
  for (const gateway of gateways) await gateway.stop();
  await broker?.kill();
  await cloud?.close();
  await rm(directory, { recursive: true, force: true });
});

async function startGateway(dataDirectory: string, env: Record<string, string> = {}): Promise<NodeProcess> {
  mkdirSync(dataDirectory, { recursive: true });
  const gateway = nodeProcess({
    name: 'gateway',
    entry: new URL('../../edge-gateway/main.ts', import.meta.url),
    env: {
      HOLDFAST_SITE: 'demo',
      HOLDFAST_GATEWAY: 'gw-1',
      HOLDFAST_MQTT_URL: broker.url,
      HOLDFAST_NATS_URL: cloud.natsUrl,
      HOLDFAST_DATA_DIR: dataDirectory,
      ...env,
    },
  });
  gateways.push(gateway);
  await gateway.start();
  return gateway;
}

const status = (...args: string[]) => edge('status', ...args);

function edge(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', 'edge-gateway/command.ts', ...args],
    { cwd: project, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let out = '';
  let err = '';
  child.stdout.on('data', chunk => {
    out += chunk;
  });
  child.stderr.on('data', chunk => {
    err += chunk;
  });
  return new Promise(resolve => child.on('close', code => resolve({ code, out, err })));
}

/** Asks until it is so, and gives that answer. */
async function statusWhen(
  dataDirectory: string,
  isSo: (state: GatewayState & { attention: string[] }) => boolean,
) {
  const until = performance.now() + 20_000;
  for (;;) {
    const answer = await status('--data', dataDirectory, '--json');
    const state = JSON.parse(answer.out) as GatewayState & { attention: string[] };
    if (isSo(state)) return { ...answer, state };
    if (performance.now() > until) throw new Error(`not within 20 s; last: ${answer.out}`);
  }
}

function metricsOverSocket(socketPath: string): Promise<string> {
  return new Promise((resolve, reject) => {
    request({ socketPath, path: '/metrics' }, response => {
      let text = '';
      response.on('data', chunk => {
        text += chunk;
      });
      response.on('end', () => resolve(text));
    })
      .on('error', reject)
      .end();
  });
}

test('a running gateway is shown, with and without its link; a stopped one from its folder', {
  timeout: 60_000,
}, async () => {
  const data = join(directory, 'edge', 'gw-1');
  const gateway = await startGateway(data, {
    HOLDFAST_METRICS_PORT: String(metricsPort),
    HOLDFAST_LINK_BUDGET: '50MB/day',
    HOLDFAST_LINK_GATHER_SECONDS_MAX: '1',
  });
  assert.equal(statSync(join(data, SOCKET_NAME)).mode & 0o777, 0o600);
  await statusWhen(data, ({ report, link }) => report.broker.connected && link.connected);
  const device = await mqtt.connectAsync(broker.url, { protocolVersion: 5, clientId: 'device' });
  for (let n = 1; n <= 100; n++) {
    await device.publishAsync('devices/a/telemetry', JSON.stringify({ n }), { qos: 1 });
  }
  const fine = await statusWhen(
    data,
    ({ report }) => report.messages === 100 && report.unsettledMessages === 0,
  );
  assert.deepEqual(fine.state.attention, []);
  assert.equal(fine.code, 0);
  assert.equal(fine.state.report.dataBudget?.bytesMax, 50_000_000);
  assert.ok(fine.state.report.dataBudget.bytesUsed > 0);
  const text = await status('--data', data);
  assert.equal(text.code, 0);
  assert.match(text.out, /^demo\/gw-1: all is well\n/);
  assert.match(text.out, /budget +\[\.+\] 0 %/);

  const metrics = await metricsOverSocket(join(data, SOCKET_NAME));
  assert.match(metrics, /^holdfast_edge_messages_total\{site="demo",gateway="gw-1"\} 100$/m);
  const overTcp = await fetch(`http://127.0.0.1:${metricsPort}/metrics`);
  assert.match(await overTcp.text(), /^holdfast_edge_cloud_connected\{[^}]*\} 1$/m);
  assert.equal((await fetch(`http://127.0.0.1:${metricsPort}/status`)).status, 404);

  cloud.link.cut();
  await statusWhen(data, ({ link }) => !link.connected);
  await device.publishAsync('devices/a/telemetry', '{"n":101}', { qos: 1 });
  const waiting = await statusWhen(data, ({ link }) => link.waitingMessages === 1);
  assert.equal(waiting.code, 1);
  assert.match(
    waiting.state.attention.join('\n'),
    /^The cloud is not reached: the link to the cloud is down\.$/m,
  );
  await statusWhen(data, ({ report }) => (report.oldestUnsettledAt ?? 0) > 0);
  const cutText = await status('--data', data);
  assert.match(cutText.out, /waiting +1 messages/);
  assert.match(cutText.out, /not in sight without a link/);
  await device.endAsync();

  const [logId] = readdirSync(join(data, 'log')).filter(isLogId);
  const marked = () => readSent(nodeFiles, join(data, 'log', logId!));
  assert.equal((await marked()).contains(101), false);
  const stick = join(directory, 'stick');
  mkdirSync(stick);
  const recipient = await identityToRecipient(await generateX25519Identity());
  const exported = await edge('export', stick, '--data', data, '--to', recipient, ...NAMED, '--json');
  assert.equal(exported.code, 0, exported.err);
  // What the disk does not know to be settled yet goes along: applied twice, it changes nothing.
  assert.ok(JSON.parse(exported.out).messages >= 1);
  assert.equal((await marked()).contains(101), true, 'the gateway has noted it (A)');

  await gateway.stop();
  cloud.link.heal();
  const stopped = await status('--data', data);
  assert.equal(stopped.code, 2);
  assert.match(stopped.out, /^No gateway runs on /);
  assert.match(stopped.out, /waiting +1 messages/);
});

test('a data folder whose name is too long for a socket is no hindrance', { timeout: 60_000 }, async () => {
  const data = join(directory, 'a'.repeat(120), 'gw-1');
  const gateway = await startGateway(data);
  const { state } = await statusWhen(data, () => true);
  assert.equal(state.gateway, 'gw-1');
  await gateway.stop();
});

test('wrong options, and a folder with nothing in it, are told apart from trouble', {
  timeout: 60_000,
}, async () => {
  const wrong = await status('--dta', directory);
  assert.equal(wrong.code, 2);
  assert.match(wrong.err, /--data FOLDER/);
  const nothing = await status('--data', join(directory, 'nothing'));
  assert.equal(nothing.code, 2);
  assert.match(nothing.out, /^No gateway runs on /);
});
