/**
 * Two gateways at one site, active and standby, with the whole stack behind them: one is killed for good in mid-stream,
 * one is frozen and wakes up, both start at once, the broker goes away under both. What was acknowledged is counted
 * message by message, and how often the session changed hands (A, R).
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import mqtt from 'mqtt';
import type { NodeProcess } from '../../deploy/local/node-process.ts';
import { checkLedger, checkTwins, countHistory } from './checker.ts';
import { startPublisher } from './publisher.ts';
import { gatewayEntries, lastWords, openScene, type Scene, until } from './scene.ts';

const SITE = 'pair';
const GROUP = { HOLDFAST_STANDBY_GROUP: 'boxes', HOLDFAST_TAKE_OVER_AFTER_MS: '3000' };
let scene: Scene;
/** The gateways of the stack, and those that take their place. */
const boxes = new Map<string, NodeProcess>();

before(async () => {
  scene = await openScene({ sites: { [SITE]: ['gw-1', 'gw-2'] }, gatewayEnv: GROUP });
  for (const name of ['gw-1', 'gw-2']) boxes.set(name, scene.stack.gateways.get(`${SITE}/${name}`)!);
});
after(() => scene?.close());
afterEach(context => {
  if (!(context as { passed?: boolean }).passed) console.log(lastWords(scene));
});

const takeOvers = (name: string): number =>
  boxes
    .get(name)!
    .output()
    .match(/standby group: now active/g)?.length ?? 0;
const allTakeOvers = () => takeOvers('gw-1') + takeOvers('gw-2');
const countLines = (name: string, line: string): number => boxes.get(name)!.output().split(line).length - 1;

/** The one that is active, as both have last said in their logs. */
function active(): string | undefined {
  const of = (name: string) =>
    boxes
      .get(name)!
      .output()
      .match(/standby group: now (active|standby)|broker: standby/g)
      ?.at(-1)
      ?.endsWith('active');
  const found = ['gw-1', 'gw-2'].filter(name => boxes.get(name)!.pid() !== undefined && of(name));
  return found.length === 1 ? found[0] : undefined;
}

const other = (name: string) => (name === 'gw-1' ? 'gw-2' : 'gw-1');
const device = (messagesPerSecond: number, prefix: string) =>
  startPublisher({
    url: scene.stack.brokers.get(SITE)!.deviceUrl,
    prefix,
    devices: 4,
    messagesPerSecond,
  });

test('both started at once: one is active, the other stands by, and /sites says which', async () => {
  await Promise.all([...boxes.values()].map(box => box.kill()));
  const before = allTakeOvers();
  await Promise.all([...boxes.values()].map(box => box.start()));
  await until('one is active, and the cloud knows', 20_000, async () => {
    const name = active();
    if (name === undefined) return false;
    const entries = (await gatewayEntries(scene)).filter(({ site }) => site === SITE);
    const roles = Object.fromEntries(entries.map(({ gateway, role }) => [gateway, role]));
    return roles[name] === 'active' && roles[other(name)] === 'standby';
  });
  const taken = allTakeOvers() - before;
  assert.ok(taken === 1 || taken === 2, `${taken} take-overs`);
});

test('the active one is frozen and wakes up: the other takes over, and it does not fight', async t => {
  const frozen = await until('one is active', 10_000, active);
  const publisher = await device(300, 'frost');
  t.after(() => publisher.stop());
  await publisher.reached(300);
  const before = allTakeOvers();
  const connectedBefore = countLines(other(frozen), 'broker: connected');
  process.kill(boxes.get(frozen)!.pid()!, 'SIGSTOP');
  await until('the other one takes over', 20_000, () => {
    return countLines(other(frozen), 'broker: connected') > connectedBefore;
  });
  await publisher.reached(publisher.acknowledged + 300);
  process.kill(boxes.get(frozen)!.pid()!, 'SIGCONT');
  await until('the frozen one finds itself thrown out', 10_000, () => active() === other(frozen));
  await publisher.reached(publisher.acknowledged + 600);
  assert.equal(active(), other(frozen), 'and stays it');
  assert.equal(allTakeOvers() - before, 1, 'the session changed hands once');
  await publisher.finish();
  const count = await until('all is stored', 30_000, async () => {
    const now = await countHistory(scene, SITE, publisher.journal);
    return now.missing === 0 && now;
  });
  console.log('frozen:', JSON.stringify(count));
  assert.equal(count.phantoms, 0);
  // Twice is what it had in hand at that moment; not the second's worth of messages that lay in its socket.
  assert.ok(count.duplicates < 100, `${count.duplicates} duplicates`);
  await checkTwins(scene, SITE, publisher.journal);
});

test('the broker goes away under both and comes back: nobody changes', async t => {
  const name = await until('one is active', 10_000, active);
  const before = allTakeOvers();
  const publisher = await device(200, 'restart');
  t.after(() => publisher.stop());
  await publisher.reached(200);
  const { server } = scene.stack.brokers.get(SITE)!;
  const connectedBefore = countLines(name, 'broker: connected');
  await server.stop();
  await server.start();
  await until(
    'the active one is back',
    15_000,
    () => countLines(name, 'broker: connected') > connectedBefore,
  );
  await publisher.reached(publisher.acknowledged + 800);
  assert.equal(active(), name);
  assert.equal(allTakeOvers(), before, 'the session changed hands never');
  await publisher.finish();
  const count = await until('all is stored', 30_000, async () => {
    const now = await countHistory(scene, SITE, publisher.journal);
    return now.missing === 0 && now;
  });
  console.log('broker restart:', JSON.stringify(count));
  assert.equal(count.phantoms, 0);
});

test('the active one is killed for good: one twin per device, and every acknowledged reading is accounted for', async t => {
  const dead = await until('one is active', 10_000, active);
  const left = other(dead);
  const publisher = await device(500, 'kill');
  t.after(() => publisher.stop());
  await publisher.reached(1000);
  // What it has on disk cannot leave any more: the cloud is not there for the last second of its life.
  await scene.stack.nats.stop();
  await publisher.reached(publisher.acknowledged + 500);
  const before = allTakeOvers();
  await boxes.get(dead)!.kill();
  const killedAt = performance.now();
  await until('the other one takes over', 10_000, () => allTakeOvers() > before);
  const tookMs = Math.round(performance.now() - killedAt);
  await scene.stack.nats.start();
  await publisher.reached(publisher.acknowledged + 1000);
  await publisher.finish();
  await until('the one that is left has sent all it has', 30_000, async () => {
    const entry = (await gatewayEntries(scene)).find(({ gateway }) => gateway === left);
    return entry !== undefined && entry.lastHelloAt > Date.now() - 3000 && entry.unsettledMessages === 0;
  });
  const without = await countHistory(scene, SITE, publisher.journal);
  console.log('killed, without its disk:', JSON.stringify({ ...without, tookMs }));
  assert.ok(without.missing > 0, 'something was on its disk alone, or this test shows nothing');
  assert.equal(without.phantoms, 0);

  // Its disk is put into another box, which drains it while it stands by.
  const heir = scene.gateway(SITE, dead, {
    ...GROUP,
    HOLDFAST_DATA_DIR: `${scene.directory}/gateways/${SITE}/${dead}`,
  });
  boxes.set(dead, heir);
  await heir.start();
  const whole = await until('its disk is drained', 30_000, async () => {
    const now = await countHistory(scene, SITE, publisher.journal);
    return now.missing === 0 && now;
  });
  console.log('killed, with its disk:', JSON.stringify(whole));
  assert.equal(whole.stored, whole.published);
  assert.equal(whole.phantoms, 0);
  assert.equal(active(), left, 'the heir stands by');
  await checkTwins(scene, SITE, publisher.journal);
  await checkLedger(scene, SITE);
  const { twins } = await scene.get<{ twins: { device: string }[] }>(`/twins?site=${SITE}&limit=1000`);
  const own = twins.filter(({ device: name }) => name.startsWith('kill-')).map(({ device: name }) => name);
  assert.deepEqual(own.sort(), [...publisher.journal.keys()].sort(), 'one twin per device');
});

test('a device that dies: its will is offline in the cloud; a gateway that dies: its will is at the broker', async t => {
  const { deviceUrl } = scene.stack.brokers.get(SITE)!;
  const doomed = await mqtt.connectAsync(deviceUrl, {
    protocolVersion: 5,
    clientId: 'doomed',
    reconnectPeriod: 0,
    will: { topic: 'devices/doomed/status', payload: Buffer.from('offline'), qos: 1, retain: true },
  });
  await doomed.publishAsync('devices/doomed/status', 'online', { qos: 1, retain: true });
  const statusIs = (expected: string) =>
    until(`the twin says ${expected}`, 10_000, async () => {
      const twin = await scene.get<{ metrics: { status?: { value: string } } }>(`/twins/${SITE}/doomed`);
      return twin.metrics.status?.value === expected;
    });
  await statusIs('online');
  doomed.stream.destroy();
  await statusIs('offline');

  const seen = new Map<string, { status: string; role?: string }>();
  const tool = await mqtt.connectAsync(deviceUrl, { protocolVersion: 5 });
  t.after(() => tool.endAsync(true));
  tool.on('message', (topic, payload) => seen.set(topic, JSON.parse(payload.toString())));
  await tool.subscribeAsync(`holdfast/gateways/${SITE}/+/status`);
  const statusOf = (name: string) => seen.get(`holdfast/gateways/${SITE}/${name}/status`);
  const name = (await until('one is active', 10_000, active))!;
  await until('both are online', 10_000, () => {
    return statusOf(name)?.role === 'active' && statusOf(other(name))?.role === 'standby';
  });
  await boxes.get(name)!.kill();
  await until('its will', 10_000, () => statusOf(name)?.status === 'offline');
  await until('the other one says so', 10_000, () => statusOf(other(name))?.role === 'active');
  const { rows } = await scene.postgres.query(
    `select count(*)::int as count from holdfast.quarantine where topic like 'holdfast/%'`,
  );
  assert.deepEqual(rows, [{ count: 0 }], 'no status of a gateway comes back as a message');
});
