/** The intake at a real Mosquitto: presence, retained metadata, changed topic filters, shared subscriptions, a wall clock that jumps. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import mqtt, { type MqttClient } from 'mqtt';
import pino from 'pino';
import type { Binaries } from '../../deploy/local/binaries.ts';
import { defaultCacheDirectory, findBinaries } from '../../deploy/local/find-servers.ts';
import { type Server, startMosquitto } from '../../deploy/local/servers.ts';
import { withUser } from '../../deploy/local/stack.ts';
import { type Intake, startIntake } from '../../edge-gateway/intake.ts';
import { openDiskBuffer } from '../../edge-gateway/log/disk-buffer.ts';
import { type FileOperations, nodeFiles } from '../../edge-gateway/log/files.ts';
import type { Message } from '../../edge-gateway/log/frame.ts';
import { readMappingFile } from '../../edge-gateway/mapping/mapping-file.ts';
import { newRedelivery } from '../../edge-gateway/redelivery.ts';
import { gatewayId, siteId } from '../../protocol/ids.ts';
import { until } from '../end-to-end/scene.ts';

const directory = mkdtempSync(join(tmpdir(), 'holdfast-test-intake-'));
let binaries: Binaries;
let broker: Server;
let device: MqttClient;

before(async () => {
  binaries = await findBinaries({
    cacheDirectory: defaultCacheDirectory,
    report: () => {},
    need: ['mosquitto'],
  });
  const users = [{ user: 'gateway', password: 'secret' }];
  broker = await startMosquitto({ binaries, directory: join(directory, 'broker'), users });
  device = await mqtt.connectAsync(broker.url, { protocolVersion: 5 });
});
after(async () => {
  for (const gateway of running) await gateway.close();
  await device?.endAsync(true);
  await broker?.kill();
  rmSync(directory, { recursive: true, force: true });
});

type Extra = Partial<Parameters<typeof startIntake>[0]['config']>;

interface Running {
  readonly intake: Intake;
  /** What was stored, as `topic=payload`. */
  readonly stored: string[];
  readonly messages: Message[];
  readonly said: string[];
  close(): Promise<void>;
}

/** What is still open when a test has failed. */
const running = new Set<Running>();

/** A gateway's intake on the data folder of its name. */
async function startGateway(
  name: string,
  extra: Extra = {},
  more: {
    mapping?: string;
    clock?: { wallMs(): number; monotonicMs(): number };
    files?: FileOperations;
  } = {},
): Promise<Running> {
  const dataDirectory = join(directory, 'data', name);
  const said: string[] = [];
  const logger = pino({ level: 'info' }, { write: line => void said.push(line) });
  const opened = await openDiskBuffer({
    directory: join(dataDirectory, 'log'),
    bytesMax: 64 * 1024 * 1024,
    bootId: 'test',
    logger: pino({ level: 'silent' }),
    ...(more.files && { files: more.files }),
  });
  assert.ok(opened.outcome === 'open');
  const messages: Message[] = [];
  const stored: string[] = [];
  const buffer: typeof opened.buffer = {
    ...opened.buffer,
    append(message, onDurable) {
      const outcome = opened.buffer.append(message, onDurable);
      if (outcome === 'accepted') {
        messages.push(message);
        stored.push(`${message.topic}=${Buffer.from(message.payload)}`);
      }
      return outcome;
    },
  };
  const mapping = readMappingFile(more.mapping ?? '', 'site.yaml');
  assert.ok(mapping.ok);
  const redelivery = newRedelivery({ receiveMaximum: 100, window: 1000 });
  for (const frame of await opened.buffer.recentFrames(1000)) redelivery.remember(frame);
  const intake = startIntake({
    config: {
      mqttUrl: broker.url,
      site: siteId('s'),
      gateway: gatewayId(name),
      topics: ['#'],
      receiveMaximum: 100,
      dataDirectory,
      ...extra,
    },
    buffer,
    redelivery,
    mapping: mapping.config,
    ...(more.clock && { clock: more.clock }),
    logger,
  });
  const gateway: Running = {
    intake,
    stored,
    messages,
    said,
    async close() {
      if (!running.delete(gateway)) return;
      await intake.close();
      await opened.buffer.close();
    },
  };
  running.add(gateway);
  return gateway;
}

async function connected(name: string, ...rest: [Extra?, Parameters<typeof startGateway>[2]?]) {
  const gateway = await startGateway(name, ...rest);
  await until('it is subscribed', 10_000, () => gateway.intake.broker.connected);
  await until('metadata is read', 10_000, () => gateway.said.some(line => line.includes('metadata read')));
  return gateway;
}

const publish = (topic: string, payload: string, retain = false) =>
  device.publishAsync(topic, payload, { qos: 1, retain });
/** Publishes a message of its own and waits for it: all that came before has been handled by then. */
async function passThrough({ stored }: Running, topic = 'devices/last/telemetry') {
  const payload = JSON.stringify({ n: Math.random() });
  await publish(topic, payload);
  await until('the last message is stored', 10_000, () => stored.includes(`${topic}=${payload}`));
}
async function retainedAt(topic: string): Promise<Record<string, unknown> | undefined> {
  const tool = await mqtt.connectAsync(broker.url, { protocolVersion: 5 });
  let found: Record<string, unknown> | undefined;
  tool.on('message', (_, payload) => {
    found = JSON.parse(payload.toString());
  });
  await tool.subscribeAsync(topic);
  await until(`something is retained at ${topic}`, 5000, () => found);
  await tool.endAsync();
  return found;
}

test('a retained status is stored once: not at every start, and again when it has changed meanwhile', async () => {
  await publish('devices/early/status', 'online', true);
  await publish('devices/early/telemetry', '{"a":1}', true);
  const first = await connected('presence');
  await until('the status is stored', 10_000, () => first.stored.includes('devices/early/status=online'));
  await passThrough(first);
  assert.equal(
    first.stored.filter(entry => entry.startsWith('devices/early/')).length,
    1,
    'telemetry is not',
  );
  assert.equal(first.messages[0]!.retain, true);
  // A live one is a message like any other.
  await publish('devices/early/status', 'busy', true);
  await until('the live one is stored', 10_000, () => first.stored.includes('devices/early/status=busy'));
  await first.close();

  const second = await connected('presence');
  await passThrough(second);
  assert.deepEqual(
    second.stored.filter(entry => entry.includes('/status')),
    [],
  );
  await second.close();

  // The session has this one in its queue: it is stored from there, and not a second time for being retained.
  await publish('devices/early/status', 'offline', true);
  const third = await connected('presence');
  await passThrough(third);
  await until('nothing is open', 5000, () => third.stored.includes('devices/early/status=offline'));
  await passThrough(third);
  assert.deepEqual(
    third.stored.filter(entry => entry.includes('/status')),
    ['devices/early/status=offline'],
  );
  await third.close();
});

test('metadata is read at every start and is no reading', async () => {
  const bridge = '[{"type":"Coordinator"},{"friendly_name":"lamp","type":"Router"}]';
  await publish('zigbee2mqtt/bridge/devices', bridge, true);
  await publish('zigbee2mqtt/lamp/availability', '{"state":"online"}', true);
  const options = { mapping: 'profiles: [zigbee2mqtt]' };
  for (const stored of [['zigbee2mqtt/lamp/availability={"state":"online"}'], []]) {
    const gateway = await connected('metadata', {}, options);
    await until('metadata', 5000, () => gateway.intake.metadata.has('zigbee2mqtt/bridge/devices'));
    await until('its presence', 5000, () => stored.every(entry => gateway.stored.includes(entry)));
    await passThrough(gateway);
    assert.deepEqual(
      gateway.stored.filter(entry => entry.startsWith('zigbee2mqtt')),
      stored,
    );
    assert.equal(Buffer.from(gateway.intake.metadata.get('zigbee2mqtt/bridge/devices')!).toString(), bridge);
    assert.match(gateway.said.join(''), /"zigbeeDevices":1/);
    await gateway.close();
  }
});

test('the gateway says that it is there, and it comes back as nothing', async () => {
  const gateway = await connected('itself');
  const topic = 'holdfast/gateways/s/itself/status';
  assert.deepEqual(
    { ...(await retainedAt(topic)), since: 0 },
    { status: 'online', role: 'active', group: null, since: 0 },
  );
  await publish('holdfast/gateways/s/somebody/status', '{"temperature":1}');
  await passThrough(gateway);
  assert.deepEqual(
    gateway.stored.filter(entry => entry.startsWith('holdfast')),
    [],
  );
  await gateway.close();
  assert.equal((await retainedAt(topic))?.status, 'offline');
});

test('somebody with its client id: said, and the messages come all the same', async t => {
  const gateway = await connected('double');
  t.after(() => gateway.close());
  const double = await mqtt.connectAsync(broker.url, {
    protocolVersion: 5,
    clientId: 'holdfast-s-double.presence',
  });
  t.after(() => double.endAsync(true));
  await until('it is said', 10_000, () =>
    /second gateway named double/.test(gateway.intake.broker.reason ?? ''),
  );
  await passThrough(gateway);
});

test('two gateways with one name: both say so, and do not throw each other out in turns for ever', async t => {
  const twins = await Promise.all(
    ['twin-a', 'twin-b'].map(name => startGateway(name, { gateway: gatewayId('twin') })),
  );
  t.after(() => Promise.all(twins.map(twin => twin.close())));
  const count = (line: string) => twins.map(({ said }) => said.filter(entry => entry.includes(line)).length);
  await until('both say so', 20_000, () => count('second gateway named twin').every(times => times > 0));
  let last = { connections: 0, at: performance.now() };
  await until('nobody is thrown out for four seconds', 40_000, () => {
    const connections = count('broker: connected').reduce((a, b) => a + b);
    if (connections !== last.connections) last = { connections, at: performance.now() };
    return performance.now() - last.at > 4000;
  });
  await publish('devices/d/telemetry', '{"of":"twins"}');
  await until('it comes to one of them', 10_000, () =>
    twins.some(({ stored }) => stored.includes('devices/d/telemetry={"of":"twins"}')),
  );
  console.log(`two gateways with one name: ${count('broker: connected').join(' and ')} connections`);
});

test('a broker that replaces client ids by user names: presence with a user of its own, or none', async t => {
  const named = await startMosquitto({
    binaries,
    directory: join(directory, 'named'),
    users: ['gateway', 'presence', 'device'].map(user => ({ user, password: 'secret' })),
    userIsClientId: true,
  });
  t.after(() => named.kill());
  const as = (user: string) => withUser(named.url, { user, password: 'secret' });
  const tool = await mqtt.connectAsync(as('device'), { protocolVersion: 5 });
  t.after(() => tool.endAsync(true));
  const through = async (gateway: Running, payload: string) => {
    await tool.publishAsync('devices/d/telemetry', payload, { qos: 1 });
    await until('it is stored', 10_000, () => gateway.stored.includes(`devices/d/telemetry=${payload}`));
  };

  const without = await startGateway('named-1', { mqttUrl: named.url });
  t.after(() => without.close());
  await until('presence is given up', 20_000, () => without.said.join('').includes('presence given up'));
  assert.match(without.said.join(''), /HOLDFAST_MQTT_PRESENCE_URL/);
  await until('the intake is there', 10_000, () => without.intake.broker.connected);
  await through(without, '1');
  await without.close();

  const own = await connected('named-2', { mqttUrl: named.url, presenceUrl: as('presence') });
  t.after(() => own.close());
  await through(own, '2');
  assert.equal(own.said.join('').includes('another client'), false);
});

test('a topic filter that is no longer configured is taken off the session', async () => {
  const before = await connected('filters', { topics: ['devices/#', 'old/#'] });
  await publish('old/x', '1');
  await until('it comes', 5000, () => before.stored.includes('old/x=1'));
  await before.close();
  const now = await connected('filters', { topics: ['devices/#'] });
  assert.match(now.said.join(''), /no longer subscribed/);
  await publish('old/x', '2');
  await passThrough(now);
  assert.ok(!now.stored.includes('old/x=2'));
  await now.close();
});

test('shared subscriptions: refused with Mosquitto, with the reason; and shared when somebody insists', async t => {
  const shareGroup = gatewayId('turns');
  const refused = await startGateway('share-0', { shareGroup });
  await until('it is refused', 10_000, () =>
    /Mosquitto does not give/.test(refused.intake.broker.reason ?? ''),
  );
  assert.equal(refused.intake.broker.connected, false);
  await publish('devices/shared/telemetry', '{"n":-1}');
  assert.deepEqual(refused.stored, []);
  await refused.close();

  const members = await Promise.all(
    ['share-1', 'share-2'].map(name => connected(name, { shareGroup, shareAnyway: true })),
  );
  t.after(() => Promise.all(members.map(member => member.close())));
  const sent = Array.from({ length: 400 }, (_, n) => `devices/shared/telemetry={"n":${n}}`);
  await Promise.all(
    sent.map(entry => publish('devices/shared/telemetry', entry.slice(entry.indexOf('=') + 1))),
  );
  await device.publishAsync('devices/asks/telemetry', '{"n":1}', {
    qos: 1,
    properties: { responseTopic: 'devices/asks/receipts' },
  });
  const asked = 'devices/asks/telemetry={"n":1}';
  const all = () => members.flatMap(member => member.stored.filter(entry => !entry.includes('/status')));
  await until('all is stored', 10_000, () => all().length >= sent.length + 1);
  assert.deepEqual(all().sort(), [...sent, asked].sort(), 'each once, and no receipt among them');
  for (const { stored } of members) assert.ok(stored.length > 0, 'both take some');
});

test('a planned change: the standby goes on where the active one stopped, with nothing twice', async () => {
  const group = { standbyGroup: gatewayId('hand-over'), takeOverAfterMs: 5000, topics: ['moving/#'] };
  const first = await connected('hand-1', group);
  await until('it is active', 10_000, () => first.intake.role === 'active' && first.intake.takeOvers === 1);
  const second = await connected('hand-2', group);
  assert.equal(second.intake.role, 'standby');
  const sent: string[] = [];
  let closing: Promise<void> | undefined;
  while (second.stored.length < 200) {
    const entry = `moving/x={"n":${sent.length}}`;
    sent.push(entry);
    await publish('moving/x', entry.slice('moving/x='.length));
    if (sent.length === 200) closing = first.close();
  }
  await closing;
  await until('all is stored', 5000, () => first.stored.length + second.stored.length >= sent.length);
  assert.deepEqual([...first.stored, ...second.stored], sent, 'each once, and in order');
  assert.equal(second.intake.role, 'active');
  await second.close();
});

test('a disk that takes its time: a gateway that leaves acknowledges what it has taken all the same', async () => {
  let syncTakesMs = 0;
  let synced = 0;
  const files: FileOperations = {
    ...nodeFiles,
    async create(path) {
      const file = await nodeFiles.create(path);
      return {
        ...file,
        async datasync() {
          await sleep(syncTakesMs);
          await file.datasync();
          synced++;
        },
      };
    },
  };
  const topics = { topics: ['slow/#', 'devices/last/#'] };
  const first = await connected('slow', topics, { files });
  await passThrough(first);
  await until('that is on disk', 5000, () => synced === 1);
  syncTakesMs = 1500;
  await publish('slow/x', '{"n":1}');
  await until('it is taken', 5000, () => first.stored.includes('slow/x={"n":1}'));
  await first.close();
  // Nobody knows the message but the broker: it comes again if that has no PUBACK for it.
  rmSync(join(directory, 'data', 'slow'), { recursive: true });
  const next = await connected('slow', topics);
  await passThrough(next);
  assert.equal(next.stored.length, 1, `${next.stored}`);
  await next.close();
});

test('a group that is named like the gateway that was alone goes on with its session', async () => {
  const alone = await connected('veteran', { topics: ['kept/#'] });
  await alone.close();
  await publish('kept/x', '1');
  const grouped = await connected('veteran', { topics: ['kept/#'], standbyGroup: gatewayId('veteran') });
  await until('what was queued comes', 10_000, () => grouped.stored.includes('kept/x=1'));
  await grouped.close();
});

test('a wall clock that jumps is said once, and nothing is lost', async () => {
  let wall = Date.now();
  const clock = { wallMs: () => wall, monotonicMs: () => performance.now() };
  const started = performance.now();
  const tick = setInterval(() => {
    wall = base + (performance.now() - started);
  }, 10);
  let base = Date.now();
  const gateway = await connected('clock', {}, { clock });
  const said = () => gateway.said.filter(line => line.includes('wall clock has jumped')).length;
  const jump = async (byMs: number, jumps: number) => {
    // The watch compares two moments: it has to have seen the time before.
    await until('the clock is watched', 5000, () => performance.now() - started > 1500);
    base += byMs;
    await until('the jump is seen', 5000, () => gateway.intake.clock.jumps === jumps);
    await passThrough(gateway);
  };
  await passThrough(gateway);
  await jump(-86_400_000, 1);
  assert.ok(Math.abs(gateway.intake.clock.lastJumpMs + 86_400_000) < 1000);
  await jump(365 * 86_400_000, 2);
  assert.equal(said(), 1);
  const [first, second, third] = gateway.messages.filter(({ topic }) => topic.includes('last'));
  assert.ok(second!.receivedAt < first!.receivedAt - 86_000_000, 'the frame says what the clock said');
  assert.ok(third!.monotonicMs > second!.monotonicMs && second!.monotonicMs > first!.monotonicMs);
  clearInterval(tick);
  await gateway.close();
});
