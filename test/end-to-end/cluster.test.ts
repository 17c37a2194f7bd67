/**
 * Three cloud nodes share the partitions of four sites: they join, drain, die, freeze past their lease and find Redis emptied,
 * under load. Every acknowledged reading is in history once, no dashboard sees a value go back, and every process that
 * was not killed goes on (A, B, C, D, R).
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { NodeProcess } from '../../deploy/local/node-process.ts';
import { checkAll } from './checker.ts';
import { type Publisher, startPublisher } from './publisher.ts';
import { lastWords, openScene, type Scene, until } from './scene.ts';
import { openWatcher, type Watcher } from './watcher.ts';

const SITES = ['north', 'south', 'east', 'west'];
const DEVICES = 10;
const MESSAGES_PER_SECOND = 100;

let scene: Scene;
let watcher: Watcher;
const nodes: NodeProcess[] = [];

before(async () => {
  scene = await openScene({ sites: Object.fromEntries(SITES.map(site => [site, ['gw-1']])) });
  watcher = await openWatcher({ url: scene.stack.url, sites: SITES });
  nodes.push(scene.stack.cloud, scene.cloudNode('cloud-2'), scene.cloudNode('cloud-3'));
});
after(async () => {
  watcher?.close();
  await scene?.close();
});

/** Partitions by the name of the node that owns them, those of the dead and of nobody left out. */
async function owners(): Promise<Map<string, number>> {
  const { rows } = await scene.postgres.query<{ name: string; count: number }>(
    `select n.name, count(*)::int as count from holdfast.partition p
       join holdfast.live_nodes(2000) n on n.id = p.owner group by n.name order by n.name`,
  );
  return new Map(rows.map(({ name, count }) => [name, count]));
}

const ownedBy = (names: readonly string[]) =>
  until(`all partitions belong to ${names.join(', ')}`, 20_000, async () => {
    const owned = await owners();
    const total = [...owned.values()].reduce((sum, count) => sum + count, 0);
    return total === 64 && [...owned.keys()].join() === names.join();
  });

/** Publishes at every site throughout, lets `fault` happen, counts when all is well, and tells the longest silence. */
async function throughFault(prefix: string, fault: () => Promise<void>): Promise<void> {
  const publishers: Publisher[] = [];
  const reached = (count: number) => Promise.all(publishers.map(publisher => publisher.reached(count)));
  try {
    for (const site of SITES) {
      const url = scene.stack.brokers.get(site)!.deviceUrl;
      publishers.push(
        await startPublisher({ url, prefix, devices: DEVICES, messagesPerSecond: MESSAGES_PER_SECOND }),
      );
    }
    await reached(200);
    const silence = watchSilence(prefix);
    await fault();
    await reached(Math.max(...publishers.map(publisher => publisher.acknowledged)) + 200);
    await Promise.all(publishers.map(publisher => publisher.finish()));
    console.log(`  ${prefix}: no site without an update for longer than ${silence.end()} ms`);
    for (const [index, site] of SITES.entries()) {
      await checkAll(scene, site, publishers[index]!.journal, `${prefix} at ${site}`);
    }
    assert.deepEqual(watcher.breaches, []);
  } catch (error) {
    console.log(lastWords(scene));
    for (const node of nodes) console.log(`--- ${node.name}\n${node.output().slice(-3000)}`);
    throw error;
  } finally {
    await Promise.all(publishers.map(publisher => publisher.stop()));
  }
}

/** The longest time that some site's newest value on the dashboard stood still. */
function watchSilence(prefix: string): { end: () => number } {
  const newest = new Map(SITES.map(site => [site, { at: 0, since: performance.now() }]));
  let longest = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    for (const [site, last] of newest) {
      let at = 0;
      for (let index = 0; index < DEVICES; index++) {
        at = Math.max(at, watcher.twins.get(`${site}/${prefix}-${index}`)?.metrics.n?.at ?? 0);
      }
      if (at > last.at) newest.set(site, { at, since: now });
      else if (last.at > 0) longest = Math.max(longest, now - last.since);
    }
  }, 20);
  return {
    end() {
      clearInterval(timer);
      return Math.round(longest);
    },
  };
}

test('nodes join one after the other, and each gets its share', () =>
  throughFault('join', async () => {
    await ownedBy(['cloud-1']);
    await nodes[1]!.start();
    await ownedBy(['cloud-1', 'cloud-2']);
    await nodes[2]!.start();
    await ownedBy(['cloud-1', 'cloud-2', 'cloud-3']);
    // A third each, by chance.
    await until('each has a share', 10_000, async () => [...(await owners()).values()].every(n => n >= 8));
  }));

test('a rolling restart: each node drains, and hands over', () =>
  throughFault('rolling', async () => {
    for (const node of [nodes[1]!, nodes[2]!]) {
      await node.stop();
      assert.match(node.output(), /draining/);
      await node.start();
      await ownedBy(['cloud-1', 'cloud-2', 'cloud-3']);
    }
  }));

test('a node is killed: the others take over what it had', () =>
  throughFault('killed', async () => {
    await nodes[1]!.kill();
    await ownedBy(['cloud-1', 'cloud-3']);
    await nodes[1]!.start();
    await ownedBy(['cloud-1', 'cloud-2', 'cloud-3']);
  }));

test('a node freezes past its lease: it is fenced, and goes on with what becomes its own', () =>
  throughFault('frozen', async () => {
    const pid = nodes[2]!.pid()!;
    process.kill(pid, 'SIGSTOP');
    try {
      await ownedBy(['cloud-1', 'cloud-2']);
      // Readings flow meanwhile.
      await new Promise(resolve => setTimeout(resolve, 1000));
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await ownedBy(['cloud-1', 'cloud-2', 'cloud-3']);
    assert.equal(nodes[2]!.pid(), pid, 'the process has not ended');
    assert.match(nodes[2]!.output(), /fenced, the partition has another owner/);
  }));

test('Redis is emptied under living connections: every site is whole again, silent ones too', () =>
  throughFault('emptied', async () => {
    const before = await scene.get<{ total: number }>('/twins?limit=1');
    await scene.redis.flushall();
    await until('every twin is back', 10_000, async () => {
      try {
        return (await scene.get<{ total: number }>('/twins?limit=1')).total === before.total;
      } catch {
        // Half a fleet is not shown.
        return false;
      }
    });
  }));
