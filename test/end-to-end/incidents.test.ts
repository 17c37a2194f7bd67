/** From a reading to a page, on the whole stack with two cloud nodes: with PostgreSQL away, through a take-over, and of a dead link. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import mqtt from 'mqtt';
import { lastWords, openScene, type Scene, until } from './scene.ts';

const SITE = 'demo';
/** What pages are to keep, with PostgreSQL away. */
const PAGE_WITHIN_MS = 5000;

interface Page {
  readonly id: string;
  readonly type: string;
  readonly data: { readonly incident: string; readonly kind: string; readonly device: string | null };
  readonly atMs: number;
}

let scene: Scene;
let receiver: Server;
let device: mqtt.MqttClient;
const pages: Page[] = [];

async function change(path: string, body: object): Promise<void> {
  const response = await fetch(scene.stack.url + path, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  assert.ok(response.ok, `${path}: ${response.status} ${await response.text()}`);
}

const heat = (name: string, value: number) =>
  device.publishAsync(`devices/${name}/telemetry`, JSON.stringify({ heat: value }), { qos: 1 });

const pageOf = (type: string, name: string | null, kind = 'threshold') =>
  pages.find(page => page.type === type && page.data.device === name && page.data.kind === kind);

before(async () => {
  receiver = createServer(async (request, response) => {
    let text = '';
    for await (const chunk of request) text += String(chunk);
    const { type, data } = JSON.parse(text) as Pick<Page, 'type' | 'data'>;
    pages.push({ id: String(request.headers['webhook-id']), type, data, atMs: performance.now() });
    response.end();
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  const { port } = receiver.address() as AddressInfo;

  scene = await openScene({
    sites: { [SITE]: ['gw-1'] },
    cloudEnv: { HOLDFAST_WEBHOOK_PRIVATE: 'allow' },
  });
  device = await mqtt.connectAsync(scene.stack.brokers.get(SITE)!.deviceUrl, { protocolVersion: 5 });
  await change('/rules/too-hot', {
    kind: 'threshold',
    metric: 'heat',
    comparison: 'above',
    threshold: 30,
    hysteresis: 2,
  });
  await change('/channels/ops', { kind: 'webhook', target: `http://127.0.0.1:${port}/hook` });
  await heat('first', 20);
  // Rules and channels hold within some seconds on every node.
  let n = 0;
  await until('rule and channel are at work', 30_000, async () => {
    await heat(`probe-${n++}`, 40);
    return pages.length > 0;
  });
});
after(async () => {
  await device?.endAsync();
  await scene?.close();
  receiver?.close();
});

test('a reading pages, the next one clears, each once and in order', async () => {
  await heat('oven', 31);
  await until('the page', 10_000, () => pageOf('incident.opened', 'oven') !== undefined);
  await heat('oven', 20);
  await until('its end', 10_000, () => pageOf('incident.cleared', 'oven') !== undefined);
  const of = pages.filter(page => page.data.device === 'oven');
  assert.deepEqual(
    of.map(({ type }) => type),
    ['incident.opened', 'incident.cleared'],
  );
  assert.equal(new Set(of.map(({ data }) => data.incident)).size, 1);
});

test('PostgreSQL is away: the page leaves all the same, and is one incident afterwards', async () => {
  await scene.stack.postgres.kill();
  try {
    const startedAt = performance.now();
    await heat('kiln', 50);
    await until('the page', 10_000, () => pageOf('incident.opened', 'kiln') !== undefined);
    const tookMs = pageOf('incident.opened', 'kiln')!.atMs - startedAt;
    console.log(`  paged after ${Math.round(tookMs)} ms with PostgreSQL away`);
    assert.ok(tookMs < PAGE_WITHIN_MS);
  } finally {
    await scene.stack.postgres.start();
  }
  await until('history has it', 30_000, async () => {
    const { rows } = await scene.postgres
      .query("select 1 from holdfast.incident where device = 'kiln'")
      .catch(() => ({ rows: [] }));
    return rows.length === 1;
  });
  const { rows } = await scene.postgres.query(
    "select count(*)::int as count from holdfast.incident where device = 'kiln'",
  );
  assert.equal(rows[0].count, 1);
});

test('the owner dies: the other node tells what is left to tell, under the same ids', async () => {
  const second = scene.cloudNode('cloud-2', { HOLDFAST_WEBHOOK_PRIVATE: 'allow' });
  await second.start();
  try {
    await scene.stack.cloud.kill();
    await heat('stove', 45);
    await until('the page', 20_000, () => pageOf('incident.opened', 'stove') !== undefined);
    await heat('stove', 10);
    await heat('kiln', 10);
    await until('both ends', 20_000, () =>
      ['stove', 'kiln'].every(name => pageOf('incident.cleared', name) !== undefined),
    );
    const opened = pages.filter(page => page.type === 'incident.opened');
    const twice = opened.filter(page =>
      opened.some(
        other => other !== page && other.data.incident === page.data.incident && other.id !== page.id,
      ),
    );
    assert.deepEqual(twice, [], 'a page that comes twice has one id');
  } catch (error) {
    console.log(lastWords(scene), second.output().slice(-3000));
    throw error;
  } finally {
    await scene.stack.startCloud();
    await second.stop();
  }
});

test('a gateway that is gone is one incident of its site', async () => {
  const gateway = scene.stack.gateways.get(`${SITE}/gw-1`)!;
  await gateway.kill();
  await until('the link is dead', 40_000, () => pageOf('incident.opened', null, 'link') !== undefined);
  await gateway.start();
  await until('it is back', 20_000, () => pageOf('incident.cleared', null, 'link') !== undefined);
  assert.equal(pages.filter(page => page.data.kind === 'link' && page.type === 'incident.opened').length, 1);
});
