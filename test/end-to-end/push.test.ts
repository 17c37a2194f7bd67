/**
 * Push over the real stack: a snapshot and then every change, with no gap, for sites and for single twins, while a
 * device publishes at a high rate (C); what a client may not do (F, H); and an alert from its rule to the incident.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import { after, before, test } from 'node:test';
import mqtt, { type MqttClient } from 'mqtt';
import { startPublisher } from './publisher.ts';
import { openScene, type Scene, until } from './scene.ts';
import { openWatcher, type Watcher } from './watcher.ts';

const SITE = 'demo';
let scene: Scene;
let device: MqttClient;
const watchers: Watcher[] = [];

before(async () => {
  scene = await openScene({ sites: { [SITE]: ['gw-1'] } });
  device = await mqtt.connectAsync(scene.stack.brokers.get(SITE)!.deviceUrl, { protocolVersion: 5 });
});
after(async () => {
  for (const watcher of watchers) watcher.close();
  await device?.endAsync(true);
  await scene?.close();
});

async function watch(scopes: { sites?: string[]; twins?: string[] }): Promise<Watcher> {
  const watcher = await openWatcher({ url: scene.stack.url, ...scopes });
  watchers.push(watcher);
  return watcher;
}

const publish = (topic: string, payload: unknown) =>
  device.publishAsync(topic, JSON.stringify(payload), { qos: 1 });

test('clients that come and go while a site publishes fast: no gap for any of them', async () => {
  const publisher = await startPublisher({
    url: scene.stack.brokers.get(SITE)!.deviceUrl,
    prefix: 'fast',
    devices: 10,
    messagesPerSecond: 1000,
  });
  try {
    const followers: Watcher[] = [];
    // One after the other, so that each one's snapshot is read while the earlier ones are being served.
    for (let count = 200; count <= 4000; count += 200) {
      await publisher.reached(count);
      const scopes = count % 400 === 0 ? { sites: [SITE] } : { twins: [`${SITE}/fast-0`, `${SITE}/fast-1`] };
      followers.push(await watch(scopes));
    }
    await publisher.finish();
    for (const [index, follower] of followers.entries()) {
      const wanted = [...publisher.journal.values()].filter(
        ({ device: name }) => index % 2 === 1 || name === 'fast-0' || name === 'fast-1',
      );
      await until(`follower ${index} is up to date`, 10_000, () =>
        wanted.every(({ device: name, published }) => {
          return follower.twins.get(`${SITE}/${name}`)?.metrics.n?.value === published;
        }),
      );
      assert.equal(follower.twins.size, wanted.length, 'only what was asked for');
    }
    const updates = followers.reduce((sum, follower) => sum + follower.updates, 0);
    const breaches = followers.flatMap(follower => follower.breaches);
    console.log(
      `${followers.length} followers: ${updates} updates, ${breaches.length} breaches, published ${publisher.published}`,
    );
    assert.deepEqual(breaches, []);
  } finally {
    await publisher.stop();
  }
});

test('after unsubscribe nothing more comes, and the other subscriptions go on', async () => {
  const follower = await watch({ twins: [`${SITE}/left`, `${SITE}/kept`] });
  await publish('devices/left/telemetry', { value: 1 });
  await publish('devices/kept/telemetry', { value: 1 });
  await until('both are seen', 5000, () => follower.twins.size === 2);
  follower.send(JSON.stringify({ type: 'unsubscribe', twins: [`${SITE}/left`] }));
  // A message that comes back proves that the one before it was handled.
  follower.send('?');
  await until('the server has answered', 5000, () => follower.errors.length === 1);
  await publish('devices/left/telemetry', { value: 2 });
  await publish('devices/kept/telemetry', { value: 2 });
  await until(
    'the other one is seen',
    5000,
    () => follower.twins.get(`${SITE}/kept`)!.metrics.value!.value === 2,
  );
  assert.equal(follower.twins.get(`${SITE}/left`)!.metrics.value!.value, 1);
});

test('300 twins come in parts, each of them once', async () => {
  for (let i = 0; i < 300; i++) {
    device.publish(`devices/many-${i}/telemetry`, JSON.stringify({ value: i }), { qos: 1 });
  }
  const { total } = await until('300 twins are there', 15_000, async () => {
    const page = await scene.get<{ total: number }>(`/twins?site=${SITE}&search=many-&limit=1`);
    return page.total === 300 && (await scene.get<{ total: number }>(`/twins?site=${SITE}&limit=1`));
  });
  const follower = await watch({ sites: [SITE] });
  await until('the snapshot is whole', 5000, () => follower.twins.size === total);
  const { snapshots } = follower;
  console.log(
    `${total} twins in ${snapshots.length} parts: ${snapshots.map(part => part.twins).join(' + ')}`,
  );
  assert.ok(snapshots.length >= 2);
  assert.deepEqual(
    snapshots.map(({ part, parts }) => [part, parts]),
    snapshots.map((_, index) => [index + 1, snapshots.length]),
  );
  assert.equal(
    snapshots.reduce((sum, { twins }) => sum + twins, 0),
    total,
  );
  for (let i = 0; i < 300; i++) {
    assert.equal(follower.twins.get(`${SITE}/many-${i}`)?.metrics.value?.value, i);
  }
});

test('what changed while the stream was cut is pushed when it is back, even for a twin that stays silent', async () => {
  const follower = await watch({ twins: [`${SITE}/silent`] });
  await publish('devices/silent/telemetry', { value: 1 });
  await until('the twin is seen', 5000, () => follower.twins.size === 1);
  await scene.stack.nats.kill();
  await publish('devices/silent/telemetry', { value: 2 });
  await scene.stack.nats.start();
  await until(
    'the change is seen',
    30_000,
    () => follower.twins.get(`${SITE}/silent`)!.metrics.value!.value === 2,
  );
  assert.equal(follower.connections, 1);
  assert.deepEqual(follower.breaches, []);
});

test('a Redis that comes back empty is filled before anybody reads it: never half a fleet', async () => {
  const crowd = 2000;
  for (let i = 0; i < crowd; i++) device.publish(`devices/crowd-${i}/telemetry`, '1', { qos: 1 });
  const total = async () => (await scene.get<{ total: number }>(`/twins?site=${SITE}&limit=1`)).total;
  const before = await until('the crowd is there', 20_000, async () => {
    const page = await scene.get<{ total: number }>(`/twins?site=${SITE}&search=crowd-&limit=1`);
    return page.total === crowd && total();
  });
  const seen = new Map<string, number>();
  for (let round = 0; round < 3; round++) {
    await scene.stack.redis.kill();
    const started = scene.stack.redis.start();
    let filled = 0;
    // Asked without a pause: the moment in question is a few milliseconds long.
    await until('it is filled', 20_000, async () => {
      for (let i = 0; i < 20; i++) {
        const answer = await total().then(String, () => 'not now');
        seen.set(answer, (seen.get(answer) ?? 0) + 1);
        if (answer !== 'not now') filled++;
      }
      return filled > 20;
    });
    await started;
    const late = await watch({ sites: [SITE] });
    await until('a new client has all', 10_000, () => late.twins.size === before);
    assert.equal(late.snapshots.filter(({ part }) => part === 1).length, 1);
  }
  console.log(`answers while Redis was away and back: ${JSON.stringify(Object.fromEntries(seen))}`);
  assert.deepEqual([...seen.keys()].sort(), [String(before), 'not now'].sort());
});

test('malformed messages are answered with what is wrong, and the connection goes on', async () => {
  const follower = await watch({});
  const wrong: [string, RegExp][] = [
    ['not json', /not JSON/],
    ['{"type":"subscribe","sites":"demo"}', /sites/],
    ['{"type":"subscribe","twins":["no-slash"]}', /not a twin name/],
    ['{"type":"subscribe","sites":["../etc"]}', /not a site name/],
    ['{"type":"shout"}', /type/],
    ['null', /./],
    [JSON.stringify({ type: 'subscribe', sites: Array(1001).fill(SITE) }), /sites/],
  ];
  for (const [index, [text, expected]] of wrong.entries()) {
    follower.send(text);
    await until(`an answer to ${text.slice(0, 40)}`, 5000, () => follower.errors.length === index + 1);
    assert.equal(follower.errors[index]!.code, 'bad-message');
    assert.match(follower.errors[index]!.detail, expected);
  }
  follower.send(JSON.stringify({ type: 'subscribe', twins: [`${SITE}/many-7`] }));
  await until('a subscription still works', 5000, () => follower.twins.size === 1);
  assert.equal(follower.connections, 1);
});

test('a client that sends too fast, or too much at once, is closed; others are not', async () => {
  const other = await watch({ twins: [`${SITE}/other`] });
  const url = `${scene.stack.url.replace('http', 'ws')}/push`;
  const closedWith = async (send: (socket: WebSocket) => void) => {
    const socket = new WebSocket(url);
    await once(socket, 'open');
    send(socket);
    const [event] = (await once(socket, 'close')) as [{ code: number; reason: string }];
    return { code: event.code, reason: event.reason };
  };
  const tooMany = await closedWith(socket => {
    for (let i = 0; i < 500; i++) socket.send('{"type":"subscribe"}');
  });
  assert.deepEqual(tooMany, { code: 1008, reason: 'too many messages per second' });
  const tooLarge = await closedWith(socket => socket.send('x'.repeat(65 * 1024)));
  assert.notEqual(tooLarge.code, 1000);

  await publish('devices/other/telemetry', { value: 5 });
  await until(
    'the other client is served',
    5000,
    () => other.twins.get(`${SITE}/other`)?.metrics.value?.value === 5,
  );
  assert.equal(other.connections, 1);
});

test("another page's origin is refused, the own one and none are let in", async () => {
  const { host } = new URL(scene.stack.url);
  const upgrade = async (origin: string | null) => {
    const outgoing = request(`${scene.stack.url}/push`, {
      headers: {
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': Buffer.alloc(16).toString('base64'),
        ...(origin !== null && { origin }),
      },
    });
    outgoing.end();
    const status = await new Promise<number>((resolve, reject) => {
      outgoing.once('error', reject);
      outgoing.once('response', response => resolve(response.statusCode!));
      outgoing.once('upgrade', response => resolve(response.statusCode!));
    });
    outgoing.destroy();
    return status;
  };
  assert.equal(await upgrade('https://elsewhere.example'), 403);
  assert.equal(await upgrade('null'), 403);
  assert.equal(await upgrade(`http://${host}`), 101);
  assert.equal(await upgrade(null), 101);
});

test('a rule opens one incident and clears it once, in the update, in the twin and in /incidents', async () => {
  await scene.postgres.query(
    `insert into holdfast.rule (id, metric, comparison, threshold, hysteresis, severity, site)
     values ('too-hot', 'temperature', 'above', 80, 5, 'critical', $1)`,
    [SITE],
  );
  const follower = await watch({ twins: [`${SITE}/oven`] });
  // Rules are read again every few seconds; a device of its own shows when.
  await until('the rule is in force', 15_000, async () => {
    await publish('devices/canary/telemetry', { temperature: 99 });
    const { alerts } = await scene.get<{ alerts: object }>(`/twins/${SITE}/canary`);
    return Object.keys(alerts).length === 1;
  });
  for (const temperature of [70, 81, 95, 79, 76, 82, 75, 74, 70]) {
    await publish('devices/oven/telemetry', { temperature });
  }
  interface Incident {
    device: string;
    rule: string;
    severity: string;
    openedValue: number;
    clearedValue: number | null;
    clearedAt: number | null;
    openedAt: number;
  }
  const [incident, ...more] = await until('the incident is cleared', 10_000, async () => {
    const { incidents } = await scene.get<{ incidents: Incident[] }>(`/incidents?site=${SITE}&device=oven`);
    return incidents[0]?.clearedAt != null && incidents;
  });
  assert.equal(more.length, 0);
  const { rule, severity, openedValue, clearedValue } = incident!;
  assert.deepEqual(
    { rule, severity, openedValue, clearedValue },
    { rule: 'too-hot', severity: 'critical', openedValue: 81, clearedValue: 75 },
  );
  assert.ok(incident!.clearedAt! >= incident!.openedAt);

  await until('the follower has seen the last value', 5000, () => {
    return follower.twins.get(`${SITE}/oven`)?.metrics.temperature?.value === 70;
  });
  // Opening and clearing may fall into one batch; what is shown in the end, and never twice, is what counts.
  const opened = follower.alertChanges.filter(({ alerts }) => 'too-hot' in alerts).length;
  assert.ok(opened <= 1);
  assert.deepEqual(follower.twins.get(`${SITE}/oven`)!.alerts, {});
  const canary = await scene.get<{ alerts: Record<string, { value: number }> }>(`/twins/${SITE}/canary`);
  assert.equal(canary.alerts['too-hot']!.value, 99);
  const { rows } = await scene.postgres.query<{ count: number }>(
    `select count(*)::int as count from holdfast.incident where rule = 'too-hot'`,
  );
  console.log(`incidents: ${rows[0]!.count} of 2 devices`);
  assert.equal(rows[0]!.count, 2);
});

test('an alert that opens and one that clears are both pushed', async () => {
  const follower = await watch({ twins: [`${SITE}/kettle`] });
  await publish('devices/kettle/telemetry', { temperature: 99 });
  await until(
    'the alert is pushed',
    10_000,
    () => 'too-hot' in (follower.twins.get(`${SITE}/kettle`)?.alerts ?? {}),
  );
  await publish('devices/kettle/telemetry', { temperature: 20 });
  await until('its end is pushed', 10_000, () => {
    const twin = follower.twins.get(`${SITE}/kettle`)!;
    return twin.metrics.temperature!.value === 20 && !('too-hot' in twin.alerts);
  });
  assert.deepEqual(
    follower.alertChanges.map(({ alerts }) => Object.keys(alerts)),
    [['too-hot'], []],
  );
  assert.deepEqual(follower.breaches, []);
});
