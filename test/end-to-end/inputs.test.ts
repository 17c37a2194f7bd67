/**
 * What devices and strangers send: every topic and payload shape with the real mosquitto_pub, seen everywhere a person
 * looks; and what cannot be used, set aside with its reason while a good device loses nothing (H, S, F).
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, test } from 'node:test';
import { crc32, deflateRawSync } from 'node:zlib';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import mqtt, { type MqttClient } from 'mqtt';
import { newLogId, siteId } from '../../protocol/ids.ts';
import { natsAddress } from '../../protocol/nats-address.ts';
import { PARTITIONS_DEFAULT, partitionOf } from '../../protocol/subjects.ts';
import { assertExact, checkAll, checkLedger, countHistory } from './checker.ts';
import { runProgram } from './programs.ts';
import { type Publisher, startPublisher } from './publisher.ts';
import { openScene, type Scene, until } from './scene.ts';
import { openWatcher, type Watcher } from './watcher.ts';

const SITE = 'demo';
let scene: Scene;
let watcher: Watcher;
let device: MqttClient;
let good: Publisher;

before(async () => {
  scene = await openScene({ sites: { [SITE]: ['gw-1'], other: ['gw-1'] } });
  watcher = await openWatcher({ url: scene.stack.url, sites: [SITE] });
  device = await mqtt.connectAsync(scene.stack.brokers.get(SITE)!.deviceUrl, { protocolVersion: 5 });
  // Publishes all along: nothing below may cost it a reading.
  good = await startPublisher({
    url: scene.stack.brokers.get(SITE)!.deviceUrl,
    prefix: 'good',
    devices: 2,
    messagesPerSecond: 100,
  });
});
after(async () => {
  watcher?.close();
  await good?.stop();
  await device?.endAsync(true);
  await scene?.close();
});

/** How Mosquitto's tools reach the site's broker. */
function brokerAddress(): string[] {
  const { server, user, password } = scene.stack.brokers.get(SITE)!;
  return ['-h', '127.0.0.1', '-p', String(server.port), '-u', user, '-P', password];
}

function mosquittoPub(topic: string, payload: string): Promise<string> {
  return runProgram(scene.binaries, 'mosquitto_pub', [
    ...brokerAddress(),
    '-t',
    topic,
    '-m',
    payload,
    '-q',
    '1',
  ]);
}

interface TwinView {
  device: string;
  metrics: Record<string, { value: unknown; at: number }>;
}

test('mosquitto_pub: seen in /twins, in history, in psql and over the WebSocket', async () => {
  const sentAt = Date.now();
  await mosquittoPub('devices/x/telemetry', '{"temperature":21}');
  const twin = await until('the twin is in /twins', 10_000, async () => {
    const { twins } = await scene.get<{ twins: TwinView[] }>(`/twins?site=${SITE}`);
    return twins.find(entry => entry.device === 'x');
  });
  assert.equal(twin.metrics.temperature!.value, 21);
  assert.ok(twin.metrics.temperature!.at >= sentAt && twin.metrics.temperature!.at <= Date.now());

  const path = `/twins/${SITE}/x/history?metric=temperature`;
  const { points } = await until('the point is in history', 10_000, async () => {
    const history = await scene.get<{ points: [number, number][] }>(path);
    return history.points.length > 0 && history;
  });
  assert.deepEqual(points, [[twin.metrics.temperature!.at, 21]]);

  await until('the WebSocket has it', 5000, () => {
    return watcher.twins.get(`${SITE}/x`)?.metrics.temperature?.value === 21;
  });

  const url = new URL(scene.stack.postgres.url);
  const printed = await runProgram(
    scene.binaries,
    'psql',
    [
      ...['--host', url.hostname, '--port', url.port, '--username', decodeURIComponent(url.username)],
      ...['--dbname', url.pathname.slice(1), '--no-align', '--tuples-only', '--no-psqlrc', '--command'],
      "select site, device, metric, value, kind from holdfast.reading where device = 'x'",
    ],
    { PGPASSWORD: decodeURIComponent(url.password) },
  );
  assert.equal(printed.trim(), `${SITE}|x|temperature|21|telemetry`);
});

test('mosquitto_rr: a publish with a response topic is answered once it is on disk, below its own topic only', async () => {
  const ask = (response: string, patienceSeconds: number) =>
    runProgram(scene.binaries, 'mosquitto_rr', [
      ...brokerAddress(),
      ...['-V', '5', '-q', '1', '-W', String(patienceSeconds)],
      ...['-t', 'devices/rr/telemetry', '-e', response, '-m', '{"temperature":22}'],
    ]);
  const answer = JSON.parse(await ask('devices/rr/receipts', 10)) as { outcome: string; at: number };
  assert.equal(answer.outcome, 'stored');
  assert.ok(Math.abs(Date.now() - answer.at) < 60_000, `${answer.at}`);
  await assert.rejects(ask('devices/somebody-else/receipts', 2), 'nobody answers there');
});

test('every topic shape and payload shape', async () => {
  const ts = Date.now() - 1000;
  const shapes: [topic: string, payload: string, device: string, expected: Record<string, unknown>][] = [
    [
      'devices/s1/telemetry',
      '{"temperature":21.5,"on":true,"mode":"auto","gone":null}',
      's1',
      { temperature: 21.5, on: true, mode: 'auto' },
    ],
    [
      'devices/s2/telemetry',
      '{"motor":{"rpm":900,"bearing":{"temperature":40}}}',
      's2',
      { 'motor.rpm': 900, 'motor.bearing.temperature': 40 },
    ],
    ['devices/s3/telemetry', `{"ts":${ts},"values":{"humidity":40}}`, 's3', { humidity: 40 }],
    ['devices/s4/telemetry', `[{"ts":${ts},"a":1},{"ts":${ts + 1},"a":2,"b":3}]`, 's4', { a: 2, b: 3 }],
    ['devices/s5/telemetry', '[{"a":1},{"a":2}]', 's5', { a: 2 }],
    [
      'devices/s6/telemetry',
      '{"phase":[230,231,229]}',
      's6',
      { 'phase.0': 230, 'phase.1': 231, 'phase.2': 229 },
    ],
    ['devices/s7/events', '{"door":"open"}', 's7', { 'event.door': 'open' }],
    ['devices/s8/status', 'online', 's8', { status: 'online' }],
    ['devices/s9/location', '{"lat":48.1,"lon":11.6}', 's9', { 'location.lat': 48.1, 'location.lon': 11.6 }],
    ['assets/s10/telemetry', '{"level":0.5}', 's10', { level: 0.5 }],
    ['sensors/pressure/s11', '1013.25', 's11', { pressure: 1013.25 }],
    ['sensors/air/s12', '{"co2":417}', 's12', { co2: 417 }],
    ['devices/s13/telemetry', `{"timestamp":"${new Date(ts).toISOString()}","a":-0.1}`, 's13', { a: -0.1 }],
    ['devices/s14/telemetry', `{"ts":${Math.floor(ts / 1000)},"a":5e-324}`, 's14', { a: 5e-324 }],
    ['devices/s15/telemetry', '{"température":"°C — ✓"}', 's15', { température: '°C — ✓' }],
  ];
  for (const [topic, payload] of shapes) await mosquittoPub(topic, payload);
  for (const [topic, , name, expected] of shapes) {
    const { metrics } = await until(`the twin of ${topic}`, 10_000, () =>
      scene.get<TwinView>(`/twins/${SITE}/${name}`),
    );
    const values = Object.fromEntries(Object.entries(metrics).map(([metric, { value }]) => [metric, value]));
    assert.deepEqual(values, expected, topic);
  }
  const times = async (name: string, metric: string) => {
    const { points } = await until(`${name} in history`, 10_000, async () => {
      const path = `/twins/${SITE}/${name}/history?metric=${metric}`;
      const history = await scene.get<{ points: [number, unknown][] }>(path);
      return history.points.length > 0 && history;
    });
    return points;
  };
  assert.deepEqual(await times('s3', 'humidity'), [[ts, 40]]);
  assert.deepEqual(await times('s4', 'a'), [
    [ts, 1],
    [ts + 1, 2],
  ]);
  assert.deepEqual(await times('s14', 'a'), [[Math.floor(ts / 1000) * 1000, 5e-324]]);
  assert.deepEqual(
    (await times('s5', 'a')).map(([, value]) => value),
    [1, 2],
  );
  console.log(`shapes: ${shapes.length}`);
});

test('what cannot be used is set aside with its reason', async () => {
  const large = `{"a":"${'x'.repeat(5 * 1024 * 1024)}"}`;
  const bad: [topic: string, payload: string | Buffer, reason: RegExp][] = [
    ['devices/bad-0/telemetry', '{"temperature":', /not JSON/],
    ['devices/bad-1/telemetry', '{"temperature":NaN}', /not JSON/],
    ['devices/bad-2/telemetry', 'NaN', /not JSON/],
    [
      'devices/bad-3/telemetry',
      '{"temperature":1e400}',
      /"temperature" is a number beyond what 64-bit floats hold/,
    ],
    ['devices/bad-4/telemetry', '{"__proto__":{"admin":true}}', /metric name "__proto__" is not allowed/],
    ['devices/bad-5/telemetry', '{"a":{"__proto__":1}}', /metric name "a.__proto__" is not allowed/],
    ['devices/bad-6/telemetry', '{"text":"a\\u0000b"}', /U\+0000/],
    ['devices/bad-7/telemetry', '{"a\\u0000b":1}', /U\+0000/],
    ['devices/bad-8/telemetry', large, /payload of 5242888 bytes, at most 262144/],
    ['foo/bar', '{"temperature":1}', /topic fits no shape: expected devices\/\{id\}/],
    ['devices/bad name/telemetry', '{"a":1}', /device name in the topic/],
    ['devices/bad-9/telemetry', Buffer.from([0x7b, 0xff, 0xfe]), /not UTF-8/],
    ['devices/bad-10/telemetry', '{"text":"\\ud800"}', /not well-formed Unicode/],
    ['devices/bad-11/telemetry', '{"ts":"yesterday","a":1}', /is not a time/],
    ['devices/bad-12/telemetry', `${'{"a":'.repeat(12)}1${'}'.repeat(12)}`, /nested deeper than 8 levels/],
    ['devices/bad-13/telemetry', '   ', /payload is empty/],
    [
      'devices/bad-14/telemetry',
      `[${'{"a":1},'.repeat(1024)}{"a":1}]`,
      /array of 1025 elements, at most 1024/,
    ],
    ['devices/bad-15/telemetry', '{"a":1,"values":{"a":2}}', /one metric twice/],
  ];
  for (const [topic, payload] of bad) await device.publishAsync(topic, payload, { qos: 1 });
  interface Quarantined {
    topic: string;
    reason: string;
    payloadBytes: number;
    payload: string;
  }
  const { quarantined } = await until('all of them are in /quarantine', 20_000, async () => {
    const answer = await scene.get<{ quarantined: Quarantined[]; total: number }>(
      `/quarantine?site=${SITE}&limit=1000`,
    );
    return answer.total >= bad.length && answer;
  });
  for (const [topic, payload, reason] of bad) {
    const entry = quarantined.find(candidate => candidate.topic === topic);
    assert.ok(entry, topic);
    assert.match(entry.reason, reason, topic);
    assert.equal(entry.payloadBytes, Buffer.byteLength(payload));
  }
  const { rows } = await scene.postgres.query(
    "select distinct device from holdfast.reading where device like 'bad%'",
  );
  assert.deepEqual(rows, []);
  console.log(`set aside: ${quarantined.length}`);
});

test("a gateway's credentials reach its own subjects and no others (S)", async () => {
  const stranger = await connect({
    ...natsAddress(scene.natsUrl('other', 'gw-1')),
    inboxPrefix: '_INBOX_other_gw-1',
    reconnect: false,
  });
  const refused: string[] = [];
  void (async () => {
    for await (const status of stranger.status()) {
      if (status.type === 'error') refused.push(status.error.message);
    }
  })();
  const heard: string[] = [];
  const partition = partitionOf(siteId(SITE), PARTITIONS_DEFAULT);
  const publishes = [
    `ingest.${partition}.live.${SITE}.gw-1`,
    `ingest.${partition}.backfill.${SITE}.gw-1`,
    `hello.${SITE}.gw-1`,
    `settled.${SITE}.gw-1`,
    'settled.other.gw-1',
    `push.${SITE}`,
    '$JS.API.STREAM.DELETE.ingest',
    '$JS.API.STREAM.PURGE.ingest',
    `ingest.${partition}.live.other.gw-2`,
  ];
  const subscribes = [
    '>',
    'ingest.>',
    'hello.>',
    `settled.${SITE}.gw-1`,
    'push.>',
    `_INBOX_${SITE}_gw-1.>`,
    '_INBOX.>',
  ];
  for (const subject of publishes) stranger.publish(subject, 'x');
  for (const subject of subscribes) {
    stranger.subscribe(subject, {
      callback: (error, message) => {
        if (error) refused.push(error.message);
        else heard.push(message.subject);
      },
    });
  }
  await stranger.flush();
  await until('each is refused', 5000, () =>
    [
      ...publishes.map(subject => `publish to "${subject}"`),
      ...subscribes.map(subject => `subscription to "${subject}"`),
    ].every(what => refused.some(message => message.toLowerCase().includes(what.toLowerCase()))),
  ).catch(error => {
    throw new Error(`${(error as Error).message}; refused: ${refused.join(' | ')}`);
  });
  await good.reached(good.acknowledged + 50);
  assert.deepEqual(heard, []);
  console.log(`refused: ${publishes.length} publishes, ${subscribes.length} subscriptions`);
  await stranger.close();
});

test('hostile batches are counted or quarantined, and others are unaffected (H, I)', async () => {
  const subject = `ingest.${partitionOf(siteId('other'), PARTITIONS_DEFAULT)}.live.other.gw-1`;
  const hostile: NatsConnection = await connect({
    ...natsAddress(scene.natsUrl('other', 'gw-1')),
    inboxPrefix: '_INBOX_other_gw-1',
  });
  interface Totals {
    totals: { corrupt: number; quarantined: number; refused: number; batches: number };
  }
  const before = (await scene.get<Totals>('/health')).totals;
  const noise = 200;
  for (let i = 0; i < noise; i++) hostile.publish(subject, randomBytes(i * 7));
  // 48 MiB of zeros in 48 KiB, said to be at the limit: inflating stops there.
  const logId = newLogId(Date.now());
  hostile.publish(
    subject,
    sealed(logId, 1, 10, 16 * 1024 * 1024, deflateRawSync(Buffer.alloc(48 * 1024 * 1024))),
  );
  hostile.publish(subject, sealed(logId, 11, 10, 0xffff_ffff, deflateRawSync(Buffer.alloc(1024))));
  hostile.publish(subject, sealed(logId, 21, 10, 64, deflateRawSync(randomBytes(64))));
  hostile.publish(subject, sealed(logId, 2 ** 48 - 20, 10, 64, deflateRawSync(randomBytes(64))));
  hostile.publish('hello.other.gw-1', 'not json');
  await hostile.flush();
  const counted = await until('all are counted', 15_000, async () => {
    const { totals } = await scene.get<Totals>('/health');
    return (
      totals.corrupt - before.corrupt >= noise && totals.quarantined - before.quarantined >= 40 && totals
    );
  });
  const entries = await until('the undecodable ones are in /quarantine', 10_000, async () => {
    const { quarantined } = await scene.get<{ quarantined: { reason: string }[] }>('/quarantine?site=other');
    return quarantined.length === 4 && quarantined;
  });
  console.log(
    `hostile: ${counted.corrupt - before.corrupt} damaged, ${entries.length} quarantined: ${entries[0]!.reason}`,
  );
  const site = await mqtt.connectAsync(scene.stack.brokers.get('other')!.deviceUrl, { protocolVersion: 5 });
  await site.publishAsync('devices/y/telemetry', '{"a":1}', { qos: 1 });
  await until('the same site is served on', 10_000, () => scene.get('/twins/other/y'));
  await site.endAsync(true);
  await hostile.close();
});

/** A batch with a right checksum and whatever body. */
function sealed(logId: string, first: number, count: number, inflated: number, body: Buffer): Buffer {
  const header = Buffer.alloc(37);
  header[0] = 1;
  header[5] = 1;
  header.write(logId, 7, 'hex');
  header.writeUIntLE(first, 23, 6);
  header.writeUInt32LE(count, 29);
  header.writeUInt32LE(inflated, 33);
  const bytes = Buffer.concat([header, body]);
  bytes.writeUInt32LE(crc32(bytes.subarray(5), crc32(bytes.subarray(0, 1))), 1);
  return bytes;
}

test('what is asked wrongly over HTTP is answered with what is wrong', async () => {
  const wrong: [path: string, status: number, detail: RegExp][] = [
    ['/twins/demo/nobody', 404, /no twin demo\/nobody/],
    ['/nothing', 404, /no such page/],
    ['/twins?limit=0', 400, /limit/],
    ['/twins?site=../etc', 400, /not a site name/],
    [`/twins/${SITE}/x/history`, 400, /metric/],
    [`/twins/${SITE}/x/history?metric=a&from=2&to=1`, 400, /from lies after to/],
    [`/twins/${SITE}/x/history?metric=a&from=yesterday`, 400, /from/],
    ['/twins/%ff/x', 400, /percent-encoded/],
    [`/twins/${SITE}/x%00/history?metric=a`, 404, /no twin/],
    [`/twins/${SITE}/x/history?metric=a&from=1e300`, 400, /from/],
    [`/twins/${SITE}/x/history?metric=a&from=-1e15`, 400, /from/],
    [`/twins/${SITE}/x/history?metric=a%00b`, 400, /U\+0000/],
  ];
  for (const [path, status, detail] of wrong) {
    const response = await fetch(scene.stack.url + path);
    const body = (await response.json()) as { detail: string };
    assert.equal(response.status, status, `${path}: ${body.detail}`);
    assert.match(body.detail, detail, path);
  }
});

test('the good device lost nothing, and nothing is unsettled', async () => {
  await good.finish();
  await checkAll(scene, SITE, good.journal, 'beside all that');
  await checkLedger(scene, SITE);
  assertExact(await countHistory(scene, SITE, good.journal), 'beside all that');
  assert.deepEqual(watcher.breaches, []);
  assert.ok(device.connected, 'nothing of this cost the publisher its connection');
});
