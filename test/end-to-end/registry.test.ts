/** What people say of devices, on the whole stack with two cloud nodes, by the commands they have for it. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import mqtt from 'mqtt';
import type { NodeProcess } from '../../deploy/local/node-process.ts';
import { openScene, type Scene, until } from './scene.ts';

const SITE = 'demo';

let scene: Scene;
let second: NodeProcess;
let device: mqtt.MqttClient;

interface Twin {
  readonly device: string;
  readonly metrics: Record<string, { readonly value: unknown }>;
}

before(async () => {
  scene = await openScene({ sites: { [SITE]: ['gw-1'] } });
  second = scene.cloudNode('cloud-2');
  await second.start();
  device = await mqtt.connectAsync(scene.stack.brokers.get(SITE)!.deviceUrl, { protocolVersion: 5 });
});
after(async () => {
  await device?.endAsync();
  await scene?.close();
});

/** `holdfast …`. Resolves with its output; rejects when its exit code is not 0. */
function holdfast(...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [fileURLToPath(new URL('../../bin/holdfast.js', import.meta.url)), ...args],
      { env: { ...process.env, HOLDFAST_URL: scene.stack.url }, timeout: 30_000 },
      (error, stdout, stderr) =>
        error ? reject(new Error(`${error.message}\n${stdout}${stderr}`)) : resolve(stdout),
    );
  });
}

async function put(path: string, body: object, method = 'PUT'): Promise<void> {
  const response = await fetch(scene.stack.url + path, {
    method,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  assert.ok(response.ok, `${path}: ${response.status} ${await response.text()}`);
}

const publish = (name: string, payload: object) =>
  device.publishAsync(`devices/${name}/telemetry`, JSON.stringify(payload), { qos: 1 });

const twins = async () => (await scene.get<{ twins: Twin[] }>(`/twins?site=${SITE}&limit=1000`)).twins;
const twin = async (name: string) => (await twins()).find(entry => entry.device === name);

const rows = async (name: string) =>
  (
    await scene.postgres.query<{ metric: string; value: number; time: string }>(
      'select metric, value, extract(epoch from time) * 1000 as time from holdfast.reading where site = $1 and device = $2 order by time',
      [SITE, name],
    )
  ).rows;

test('a unit that is entered holds for the next readings, on whichever node owns the site', async () => {
  await publish('t-17', { t: 50 });
  await until('it has a twin', 15_000, async () => (await twin('t-17'))?.metrics.t?.value === 50);
  await put('/registry/types/thermometer', { metrics: { t: { unit: '°C', reported: '°F' } } });
  await put(`/registry/devices/${SITE}/t-17`, { type: 'thermometer', tags: ['cold'] }, 'PATCH');
  await until('it is converted', 20_000, async () => {
    await publish('t-17', { t: 50 });
    return (await twin('t-17'))?.metrics.t?.value === 10;
  });
  await until('history, too', 15_000, async () => (await rows('t-17')).at(-1)?.value === 10);
  assert.equal((await rows('t-17'))[0]!.value, 50, 'what was stored stays');
});

test('a stranger is quarantined where the site wants it so, and replayed once it has an entry: once, with its own time', async () => {
  await put(`/registry/sites/${SITE}`, { unknownDevices: 'quarantine' });
  const ts = Date.now() - 60_000;
  await until('strangers are refused', 20_000, async () => {
    await publish('probe', { p: 1 });
    return (await holdfast('quarantine', 'list', '--site', SITE)).includes('probe');
  });
  await publish('stranger', { ts, v: 7 });
  await until('it is quarantined', 15_000, async () =>
    (await holdfast('quarantine', 'list')).includes('stranger'),
  );
  assert.equal((await rows('stranger')).length, 0);
  await put(`/registry/devices/${SITE}/stranger`, { displayName: 'not one any more' }, 'PATCH');
  await put(`/registry/devices/${SITE}/probe`, {}, 'PATCH');
  await holdfast('quarantine', 'replay', '--site', SITE);
  await holdfast('quarantine', 'replay', '--site', SITE);
  assert.deepEqual(
    (await rows('stranger')).map(({ metric, value, time }) => [metric, value, Math.round(Number(time))]),
    [['v', 7, ts]],
  );
  await until('its twin knows', 20_000, async () => (await twin('stranger'))?.metrics.v?.value === 7);
  await put(`/registry/sites/${SITE}`, { unknownDevices: 'admit' });
});

test('new hardware takes the place of the old one; a device gets another name; one is retired', async () => {
  await publish('pump-1', { flow: 1 });
  await until('the old one has a twin', 15_000, async () => (await twin('pump-1')) !== undefined);
  await holdfast('devices', 'replace', `${SITE}/pump-1`, 'sn-4711');
  await until('the new one is the old one', 20_000, async () => {
    await publish('sn-4711', { flow: 2 });
    return (await twin('pump-1'))?.metrics.flow?.value === 2;
  });
  await until('under one name only', 15_000, async () => (await twin('sn-4711')) === undefined);

  await holdfast('devices', 'rename', `${SITE}/pump-1`, 'pump-north');
  await until('the twin moves', 20_000, async () => {
    const all = await twins();
    return all.some(entry => entry.device === 'pump-north') && !all.some(entry => entry.device === 'pump-1');
  });
  await publish('pump-1', { flow: 3 });
  await until(
    'its old name is known',
    15_000,
    async () => (await twin('pump-north'))?.metrics.flow?.value === 3,
  );
  await until('history follows', 15_000, async () => {
    const values = (await rows('pump-north')).map(({ value }) => value);
    return values[0] === 1 && values.at(-1) === 3;
  });

  await holdfast('devices', 'retire', `${SITE}/t-17`);
  await until('it is hidden', 15_000, async () => (await twin('t-17')) === undefined);
  assert.ok((await rows('t-17')).length > 0);
});
