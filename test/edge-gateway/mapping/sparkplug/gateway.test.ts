/**
 * A real Sparkplug edge node (Eclipse Tahu's client), a real broker, a gateway process that is killed, up to the cloud's
 * database.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { newClient } from 'sparkplug-client';
import type { UPayload } from 'sparkplug-payload/lib/sparkplugbpayload.js';
import type { NodeProcess } from '../../../../deploy/local/node-process.ts';
import { openScene, type Scene, until } from '../../../end-to-end/scene.ts';

const SITE = 'plant';
const NODE = 'g1:press-line';
const DEVICE = `${NODE}:press:_7`;
let scene: Scene;
let gateway: NodeProcess;
let node: ReturnType<typeof newClient>;
/** Rebirth commands that the node got. */
let rebirths = 0;
/** What the node calls alias 10 and 11; changes with a new birth. */
let births = 0;

const metrics = (list: readonly object[]) => list as UPayload['metrics'] & object;

function beBorn(): void {
  births++;
  node.publishNodeBirth({
    timestamp: Date.now(),
    metrics: metrics([
      { name: 'Node Control/Rebirth', type: 'Boolean', value: false },
      { name: 'Uptime', alias: 1, type: 'Int64', value: births },
    ]),
  });
  node.publishDeviceBirth('press 7', {
    timestamp: Date.now(),
    metrics: metrics([
      { name: 'Temperature/Oil', alias: 10, type: 'Float', value: 41.5 },
      { name: 'Offset', alias: 11, type: 'Int16', value: 3 },
    ]),
  });
}

async function atTheBroker(times: number): Promise<void> {
  await until('the gateway is at its broker', 20_000, () => {
    return gateway.output().split('broker: connected').length > times;
  });
}

interface Row {
  device: string;
  metric: string;
  value: number | string;
  at: Date;
}

const history = async (metric: string): Promise<Row[]> => {
  const sql =
    'select device, metric, value, time as at from holdfast.reading where metric = $1 order by time';
  return (await scene.postgres.query(sql, [metric])).rows;
};

const statusOf = async (device: string): Promise<unknown> => {
  const twin = await scene.get<{ metrics: Record<string, { value: unknown }> }>(`/twins/${SITE}/${device}`);
  return twin.metrics.status?.value;
};

before(async () => {
  scene = await openScene({ sites: { [SITE]: ['gw-1'] } });
  await scene.stack.gateways.get(`${SITE}/gw-1`)!.stop();
  const file = join(scene.directory, 'site.yaml');
  writeFileSync(file, 'profiles: [sparkplug]\n');
  gateway = scene.gateway(SITE, 'gw-1', { HOLDFAST_MAPPING_FILE: file });
  await gateway.start();
  await atTheBroker(1);
  const { deviceUrl } = scene.stack.brokers.get(SITE)!;
  const { username, password, host } = new URL(deviceUrl);
  node = newClient({
    serverUrl: `mqtt://${host}`,
    username: decodeURIComponent(username),
    password: decodeURIComponent(password),
    groupId: 'g1',
    edgeNode: 'press-line',
    clientId: 'press-line',
    publishDeath: true,
  });
  node.on('ncmd', payload => {
    if (!payload.metrics?.some(({ name, value }) => name === 'Node Control/Rebirth' && value === true))
      return;
    rebirths++;
    beBorn();
  });
  await once(node, 'birth');
  beBorn();
});
after(async () => {
  node?.stop();
  await scene?.close();
});

test('a birth: values under their names, and node and device are online', async () => {
  await until('the device is online', 10_000, async () => (await statusOf(DEVICE)) === 'online');
  await until('its values are in history', 10_000, async () => (await history('Offset')).length === 1);
  assert.equal(await statusOf(NODE), 'online');
  const [row] = await history('Temperature/Oil');
  assert.deepEqual([row?.device, row?.value], [DEVICE, 41.5]);
});

test('data by alias after the gateway was killed: names of the birth before, times of the metrics', async () => {
  await gateway.kill();
  await gateway.start();
  await atTheBroker(2);
  const at = Date.now() - 5000;
  node.publishDeviceData('press 7', {
    timestamp: at + 100,
    metrics: metrics([
      { alias: 10, type: 'Float', value: 42.3, timestamp: at },
      { alias: 11, type: 'Int16', value: -4, timestamp: at },
    ]),
  });
  await until('the data is in history', 10_000, async () => (await history('Offset')).length === 2);
  const [offset] = (await history('Offset')).filter(({ value }) => value === -4);
  const [oil] = (await history('Temperature/Oil')).filter(({ value }) => value === 42.3);
  assert.deepEqual([offset!.device, Number(offset!.at)], [DEVICE, at]);
  assert.deepEqual([oil!.device, Number(oil!.at)], [DEVICE, at]);
  assert.equal(rebirths, 0, 'nothing was missing');
});

test('unknown aliases: set aside with their reason, one rebirth command, and data goes on', async () => {
  const before = births;
  for (let value = 0; value < 3; value++) {
    node.publishDeviceData('press 7', {
      timestamp: Date.now(),
      metrics: metrics([{ alias: 99, type: 'Int32', value }]),
    });
  }
  await until('the node was born again', 10_000, () => births === before + 1);
  const { rows } = await until('all three are set aside', 10_000, async () => {
    const found = await scene.postgres.query('select topic, reason from quarantine');
    return found.rows.length >= 3 && found;
  });
  assert.equal(rows.length, 3);
  for (const { topic, reason } of rows) {
    assert.equal(topic, 'spBv1.0/g1/DDATA/press-line/press 7');
    assert.match(reason, /alias 99 is not in the last birth/);
  }
  node.publishNodeData({
    timestamp: Date.now(),
    metrics: metrics([{ alias: 1, type: 'Int64', value: -77 }]),
  });
  await until('data goes on', 10_000, async () =>
    (await history('Uptime')).some(({ value, device }) => value === -77 && device === NODE),
  );
  assert.equal(rebirths, 1);
});

test('a death of the node: it and its device are offline', async () => {
  node.stop();
  await until('both are offline', 10_000, async () => {
    return (await statusOf(NODE)) === 'offline' && (await statusOf(DEVICE)) === 'offline';
  });
});
