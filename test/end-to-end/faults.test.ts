/**
 * Every part is killed with -9 in mid-stream, and every acknowledged reading is in history once (A, B, R). One stack
 * for all of them, and one dashboard that watches throughout and must never see a value go back (C, D).
 */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { assertExact, checkAll, checkLedger, countHistory, report } from './checker.ts';
import { type Journal, type Publisher, startPublisher } from './publisher.ts';
import { lastWords, openScene, type Scene, until } from './scene.ts';
import { openWatcher, type Watcher } from './watcher.ts';

const SITE = 'demo';
const DEVICES = 20;
const MESSAGES_PER_SECOND = 500;
/** Acknowledged messages before the fault, and in all. */
const BEFORE = 700;
const TOTAL = 2200;

let scene: Scene;
let watcher: Watcher;
const journals: { name: string; journal: Journal }[] = [];

before(async () => {
  scene = await openScene({ sites: { [SITE]: ['gw-1'] } });
  watcher = await openWatcher({ url: scene.stack.url, sites: [SITE] });
});
after(async () => {
  watcher?.close();
  await scene?.close();
});

/** Publishes throughout, lets `fault` happen in the middle, and counts when all is well again. */
async function throughFault(
  name: string,
  prefix: string,
  fault: (publisher: Publisher) => Promise<void>,
): Promise<void> {
  const publisher = await startPublisher({
    url: scene.stack.brokers.get(SITE)!.deviceUrl,
    prefix,
    devices: DEVICES,
    messagesPerSecond: MESSAGES_PER_SECOND,
  });
  try {
    await publisher.reached(BEFORE);
    await fault(publisher);
    await publisher.reached(TOTAL);
    await publisher.finish();
    journals.push({ name, journal: publisher.journal });
    await checkAll(scene, SITE, publisher.journal, name);
  } catch (error) {
    console.log(lastWords(scene));
    throw error;
  } finally {
    await publisher.stop();
  }
}

test('the gateway is killed', () =>
  throughFault('gateway killed', 'gateway', async publisher => {
    const gateway = scene.stack.gateways.get(`${SITE}/gw-1`)!;
    await gateway.kill();
    await publisher.reached(publisher.acknowledged + 250);
    await gateway.start();
  }));

test('the gateway is killed again and again', () =>
  throughFault('gateway killed five times', 'gateway-often', async publisher => {
    const gateway = scene.stack.gateways.get(`${SITE}/gw-1`)!;
    for (let round = 0; round < 5; round++) {
      await gateway.kill();
      await gateway.start();
      await publisher.reached(publisher.acknowledged + 50);
    }
  }));

test('the cloud node is killed', () =>
  throughFault('cloud node killed', 'cloud', async publisher => {
    await scene.stack.cloud.kill();
    await publisher.reached(publisher.acknowledged + 250);
    await scene.stack.startCloud();
  }));

test('nats-server is killed', () =>
  throughFault('nats-server killed', 'nats', async publisher => {
    await scene.stack.nats.kill();
    await publisher.reached(publisher.acknowledged + 250);
    await scene.stack.nats.start();
  }));

test('Redis is killed and comes back empty', () =>
  throughFault('Redis killed', 'redis', async publisher => {
    await scene.stack.redis.kill();
    await publisher.reached(publisher.acknowledged + 250);
    await scene.stack.redis.start();
  }));

test('PostgreSQL is killed', () =>
  throughFault('PostgreSQL killed', 'postgres', async publisher => {
    await scene.stack.postgres.kill();
    await publisher.reached(publisher.acknowledged + 500);
    await scene.stack.postgres.start();
  }));

test('the JetStream store is deleted under a running cloud node', () =>
  throughFault('stream deleted', 'stream', async publisher => {
    await deleteStream();
    await publisher.reached(publisher.acknowledged + 100);
    await scene.stack.nats.start();
  }));

test('the JetStream store is deleted with the cursor kept and batches in it that history lacks', () =>
  throughFault('stream deleted with unsettled batches', 'unsettled', async publisher => {
    // History stops first; the stream takes on what it cannot.
    await scene.stack.postgres.kill();
    const { totals } = await scene.get<{ totals: { messages: number } }>('/health');
    await until('500 messages have come through the stream without history', 20_000, async () => {
      const now = await scene.get<{ totals: { messages: number } }>('/health');
      return now.totals.messages >= totals.messages + 500;
    });
    // With the node goes what it still held in memory, with the store the only other copy but the gateway's.
    await scene.stack.cloud.kill();
    await deleteStream();
    await scene.stack.postgres.start();
    const acknowledged = publisher.acknowledged;
    const { stored } = await countHistory(scene, SITE, publisher.journal);
    console.log(`  in the deleted store or behind it: ${acknowledged - stored} of ${acknowledged}`);
    assert.ok(acknowledged - stored >= 500, 'the deleted store held batches that history lacks');
    await scene.stack.nats.start();
    await scene.stack.startCloud();
  }));

test('Redis and the cloud node are both gone: the twins of silent devices are back without a new message', async () => {
  await scene.stack.cloud.kill();
  await scene.stack.redis.kill();
  await scene.stack.redis.start();
  await scene.stack.startCloud();
  const { total } = await scene.get<{ total: number }>(`/twins?site=${SITE}&limit=1`);
  assert.equal(total, journals.length * DEVICES, 'from the first answer on');
  for (const { name, journal } of journals) await checkAll(scene, SITE, journal, `${name}, afterwards`);
});

test('what only Redis had when the cloud node died is in the checkpoint too (C)', async () => {
  const publisher = await startPublisher({
    url: scene.stack.brokers.get(SITE)!.deviceUrl,
    prefix: 'ahead',
    devices: DEVICES,
    messagesPerSecond: MESSAGES_PER_SECOND,
  });
  try {
    await publisher.reached(300);
    await scene.stack.postgres.kill();
    await publisher.reached(publisher.acknowledged + 500);
    await publisher.finish();
    await until('Redis has what history cannot have yet', 10_000, async () => {
      const { twins } = await scene.get<{ twins: { device: string; metrics: { n: { value: number } } }[] }>(
        `/twins?site=${SITE}&search=ahead&limit=1000`,
      );
      const live = new Map(twins.map(({ device, metrics }) => [device, metrics.n.value]));
      return [...publisher.journal.values()].every(({ device, published }) => live.get(device) === published);
    });
    await scene.stack.cloud.kill();
    await scene.stack.postgres.start();
    await scene.stack.startCloud();
    journals.push({ name: 'Redis ahead', journal: publisher.journal });
    await checkAll(scene, SITE, publisher.journal, 'Redis ahead of history');
    await scene.stack.cloud.stop();
    await scene.stack.redis.kill();
    await scene.stack.redis.start();
    await scene.stack.startCloud();
    await checkAll(scene, SITE, publisher.journal, 'Redis ahead, then empty');
  } catch (error) {
    console.log(lastWords(scene));
    throw error;
  } finally {
    await publisher.stop();
  }
});

test('in the end nothing is unsettled and every count still holds', async () => {
  await checkLedger(scene, SITE);
  for (const { name, journal } of journals) {
    const count = await countHistory(scene, SITE, journal);
    report(`${name}, at the end`, count);
    assertExact(count, name);
  }
});

test('the dashboard saw no gap and nothing go back, and holds the newest of every twin', async () => {
  const { twins, total } = await scene.get<{
    twins: { site: string; device: string; metrics: unknown }[];
    total: number;
  }>(`/twins?site=${SITE}&limit=1000`);
  assert.equal(total, journals.length * DEVICES);
  const expected = new Map(twins.map(({ site, device, metrics }) => [`${site}/${device}`, metrics]));
  const seen = () => new Map([...watcher.twins].map(([name, { metrics }]) => [name, metrics]));
  const ordered = (map: Map<string, unknown>) => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
  await until('the dashboard is up to date', 5000, () => {
    return JSON.stringify(ordered(seen())) === JSON.stringify(ordered(expected));
  }).catch(() => {});
  console.log(
    `dashboard: ${watcher.updates} updates over ${watcher.connections} connections, ${watcher.snapshots.length} snapshot parts, ${watcher.breaches.length} breaches`,
  );
  assert.deepEqual(watcher.breaches, []);
  assert.equal(differences(seen(), expected), '');
});

async function deleteStream(): Promise<void> {
  await scene.stack.nats.kill();
  rmSync(join(scene.directory, 'nats', 'jetstream'), { recursive: true });
}

/** The names whose values differ, with both values; short enough to read. */
function differences(seen: ReadonlyMap<string, unknown>, expected: ReadonlyMap<string, unknown>): string {
  const names = new Set([...seen.keys(), ...expected.keys()]);
  return [...names]
    .filter(name => JSON.stringify(seen.get(name)) !== JSON.stringify(expected.get(name)))
    .slice(0, 10)
    .map(name => `${name}: saw ${JSON.stringify(seen.get(name))}, is ${JSON.stringify(expected.get(name))}`)
    .join('\n');
}
