/** Live state against a real Redis. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { Redis } from 'ioredis';
import type { IncidentTransition } from '../../cloud/actors/incident.ts';
import type { TwinState } from '../../cloud/actors/twin.ts';
import { type LiveState, openLiveState } from '../../cloud/live-state.ts';
import { storeTwin } from '../../cloud/twin-json.ts';
import type { Server } from '../../deploy/local/servers.ts';
import { atEnd, eventually, silentLogger, startTestRedis } from './servers.ts';
import { fold, reading, T0, tooHot } from './twins.ts';

let server: Server;
let redis: Redis;

before(async () => {
  server = await startTestRedis();
  redis = new Redis(server.url, { retryStrategy: () => 50 });
  redis.on('error', () => {});
  atEnd(async () => redis.disconnect());
});

async function open(
  hooks: {
    confirmLease?: () => Promise<void>;
    onWritable?: () => unknown;
    isKnown?: (site: string) => Promise<boolean>;
  } = {},
): Promise<LiveState> {
  const live = await openLiveState({
    url: server.url,
    twinTtlSeconds: 3600,
    logger: silentLogger,
    confirmLease: hooks.confirmLease ?? (() => Promise.resolve()),
    onWritable: hooks.onWritable ?? (() => {}),
    isKnown: hooks.isKnown ?? (async () => false),
  });
  atEnd(() => live.close());
  return live;
}

/** As an owner does before it writes. */
async function fence(live: LiveState, site: string, epoch: number): Promise<void> {
  assert.equal(await live.fenceSite(site, epoch), 'fenced');
}

const twin = (device: string, temperature: number, at = T0): TwinState => ({
  ...fold([reading({ temperature }, { at })], [tooHot]),
  device,
});
const transition = (id: string): IncidentTransition => ({
  id,
  rule: tooHot.id,
  kind: 'threshold',
  severity: 'warning',
  site: 's',
  device: 'a',
  metric: 'temperature',
  summary: 'temperature 35 is above 30',
  threshold: 30,
  openedAt: T0,
  openedValue: 35,
  clearedAt: null,
  clearedValue: null,
  late: false,
});

test('what is written is read: twins, index, outbox, time to live', async () => {
  const live = await open();
  await fence(live, 's1', 7);
  assert.equal(await live.writeTwins('s1', 7, [twin('a', 20), twin('b', 35)], [transition('i1')]), 'written');
  await live.markWhole('s1');
  assert.deepEqual((await live.devices('s1')).sort(), ['a', 'b']);
  const writtenAt = Number(await redis.zscore('{s1}:twins', 'a'));
  assert.ok(Math.abs(Date.now() - writtenAt) < 60_000, `${writtenAt}`);

  // A twin whose key has expired since is no longer listed.
  await redis.zadd('{s1}:twins', Date.now() - 3_601_000, 'gone');
  assert.equal(await live.writeTwins('s1', 7, [twin('b', 35)], []), 'written');
  assert.deepEqual((await live.devices('s1')).sort(), ['a', 'b']);
  const ttl = await redis.ttl('{s1}:twin:a');
  assert.ok(ttl > 3500 && ttl <= 3600, `${ttl}`);
  assert.equal(await redis.ttl('{s1}:fence'), -1, 'the fence never expires');

  const view = await live.twin('s1', 'b');
  assert.equal(view?.epoch, 7);
  assert.equal(view?.metrics.temperature?.value, 35);
  assert.equal(await live.twin('s1', 'nobody'), null);
  assert.deepEqual(
    (await live.twins('s1', ['a', 'nobody', 'b'])).map(({ device }) => device),
    ['a', 'b'],
  );

  const stored = await live.loadSite('s1');
  const a = stored?.twins.find(({ device }) => device === 'a');
  assert.equal(storeTwin(a!, 7), storeTwin(twin('a', 20), 7));
  assert.deepEqual(stored?.outbox, [transition('i1')]);
  const unknown = await live.loadSite('s1', (device, text) => device === 'a' && text.includes('"epoch":7'));
  assert.deepEqual(
    unknown?.twins.map(({ device }) => device),
    ['b'],
  );
  await live.forgetOutbox('s1', [transition('i1'), transition('unknown')]);
  assert.deepEqual(await live.told('s1'), [transition('i1')]);
  assert.deepEqual((await live.loadSite('s1'))?.outbox, []);
  assert.deepEqual(await live.loadSite('empty'), { twins: [], outbox: [] });
});

test('an older epoch writes nothing, not even its outbox; other sites are untouched (D)', async () => {
  const [old, young] = [await open(), await open()];
  // As they are in production: microseconds since 1970.
  const epoch = 1_768_478_400_000_000;
  await fence(old, 's2', epoch);
  assert.equal(await old.writeTwins('s2', epoch, [twin('a', 20)], []), 'written');
  await fence(young, 's2', epoch + 1);
  assert.equal(await old.fenceSite('s2', epoch), 'stale-epoch');
  assert.equal(
    await old.writeTwins('s2', epoch, [twin('a', 99), twin('b', 99)], [transition('i')]),
    'stale-epoch',
  );
  const stored = await young.loadSite('s2');
  assert.deepEqual(
    stored?.twins.map(({ metrics }) => metrics.get('temperature')?.value),
    [20],
  );
  assert.deepEqual(stored?.outbox, []);
  assert.equal(await redis.get('{s2}:fence'), String(epoch + 1));
  assert.equal(await young.writeTwins('s2', epoch + 1, [twin('a', 21)], []), 'written');
  await fence(old, 's3', epoch);
  assert.equal(await old.writeTwins('s3', epoch, [twin('a', 20)], []), 'written');
});

test('a big site is written in pieces, all of it, and read in pieces', async () => {
  const live = await open();
  const twins = Array.from({ length: 1203 }, (_, index) => twin(`d${index}`, index));
  await fence(live, 'big', 1);
  assert.equal(await live.writeTwins('big', 1, twins, [transition('i1'), transition('i2')]), 'written');
  const stored = await live.loadSite('big');
  assert.equal(stored?.twins.length, 1203);
  assert.equal(stored?.outbox.length, 2);
  const values = new Set(stored?.twins.map(({ metrics }) => metrics.get('temperature')?.value));
  assert.equal(values.size, 1203);
  assert.equal(await live.writeTwins('big', 0, twins, []), 'stale-epoch');
});

test('a Redis that dies is unavailable, without harm; it comes back empty and is written again (R)', async () => {
  const events: string[] = [];
  const live = await open({
    confirmLease: async () => void events.push('lease'),
    onWritable: () => events.push('writable'),
  });
  assert.deepEqual(events, ['lease', 'writable']);
  await fence(live, 's4', 5);
  assert.equal(await live.writeTwins('s4', 5, [twin('a', 20)], []), 'written');
  await server.kill();
  await eventually('it notices', () => !live.connected);
  assert.equal(await live.writeTwins('s4', 5, [twin('a', 21)], []), 'unavailable');
  assert.equal(await live.loadSite('s4'), null);
  await live.forgetOutbox('s4', [transition('i')]);
  await assert.rejects(live.twin('s4', 'a'));
  assert.deepEqual(events, ['lease', 'writable']);

  await server.start();
  await eventually('it writes again', () => live.connected);
  assert.deepEqual(events, ['lease', 'writable', 'lease', 'writable']);
  await fence(live, 's4', 5);
  assert.equal(await live.writeTwins('s4', 5, [twin('a', 22)], []), 'written');
  await eventually('it reads again', async () => (await live.loadSite('s4'))?.twins.length === 1);
});

test('what is written again can be merged with what Redis has: reading goes as soon as writing does (C)', async () => {
  const merged: (number | undefined)[] = [];
  let restored: LiveState | undefined;
  const live = await open({
    onWritable: async () => {
      const stored = await restored?.loadSite('s7');
      if (restored) merged.push(stored?.twins.length);
    },
  });
  restored = live;
  // The two connections come back in any order: three times, to see both.
  for (let times = 1; times <= 3; times++) {
    await server.kill();
    await eventually('it notices', () => !live.connected);
    await server.start();
    await eventually('it is told', () => merged.length === times);
  }
  assert.deepEqual(merged, [0, 0, 0]);
});

test('a Redis that is down at the start is no reason not to start', async () => {
  await server.stop();
  let writable = 0;
  const live = await open({ onWritable: () => writable++ });
  assert.equal(live.connected, false);
  assert.equal(await live.writeTwins('s5', 5, [twin('a', 20)], []), 'unavailable');
  await server.start();
  await eventually('it writes', () => live.connected);
  assert.equal(writable, 1);
  await fence(live, 's5', 5);
  assert.equal(await live.writeTwins('s5', 5, [twin('a', 20)], []), 'written');
});

test('a lease that cannot be confirmed: nothing is written, and it is asked again (D)', async () => {
  let asked = 0;
  const live = await open({
    confirmLease: () => (++asked < 3 ? Promise.reject(new Error('Postgres is away')) : Promise.resolve()),
  });
  await eventually('the lease is confirmed', () => live.connected);
  assert.equal(asked, 3);
});

test('a lease that was read for an earlier connection does not let a later one write (D)', async () => {
  const asked: { confirm: () => void }[] = [];
  const opening = open({
    confirmLease: () => new Promise<void>(resolve => asked.push({ confirm: resolve })),
  });
  await eventually('the first connection asks', () => asked.length === 1);
  await server.kill();
  await server.start();
  await eventually('the second connection asks', () => asked.length === 2);
  asked[0]!.confirm();
  const live = await opening;
  assert.equal(live.connected, false);
  assert.equal(await live.writeTwins('s6', 5, [twin('a', 20)], []), 'unavailable');
  asked[1]!.confirm();
  await eventually('it writes', () => live.connected);
  await fence(live, 's6', 5);
  assert.equal(await live.writeTwins('s6', 5, [twin('a', 20)], []), 'written');
});

test('emptied under a living connection: the next write, and whoever looks, notices; half a site is not shown (D, R)', async () => {
  const live = await open({ isKnown: async site => site === 's8' });
  assert.equal(await live.fenceSite('s8', 5), 'fenced');
  await assert.rejects(live.devices('s8'), /being filled/);
  assert.equal(await live.writeTwins('s8', 5, [twin('a', 20)], []), 'written');
  await live.markWhole('s8');
  assert.deepEqual(await live.devices('s8'), ['a']);
  assert.deepEqual(await live.unfenced(new Map([['s8', 5]])), []);

  await redis.flushall();
  assert.deepEqual(
    await live.unfenced(
      new Map([
        ['s8', 5],
        ['s9', 5],
      ]),
    ),
    ['s8', 's9'],
  );
  assert.equal(await live.writeTwins('s8', 5, [twin('a', 21)], []), 'unfenced');
  assert.equal(await redis.exists('{s8}:twin:a'), 0);
  await assert.rejects(live.twins('s8', ['a']), /being filled/);
  assert.equal(await live.twin('nowhere', 'a'), null);

  await fence(live, 's8', 5);
  assert.equal(await live.writeTwins('s8', 5, [twin('a', 21)], []), 'written');
  await live.markWhole('s8');
  assert.equal((await live.twin('s8', 'a'))?.metrics.temperature?.value, 21);
  // A take-over of a site that is there shows it all along.
  await fence(live, 's8', 6);
  assert.deepEqual(await live.devices('s8'), ['a']);
});

test('a copy that has taken the place of the server is not shown before its owner has written to it', async () => {
  const live = await open({ isKnown: async () => true });
  await fence(live, 'copied', 3);
  assert.equal(await live.writeTwins('copied', 3, [twin('a', 20)], []), 'written');
  await live.markWhole('copied');
  assert.equal((await live.twins('copied', ['a'])).length, 1);
  // As the copy has it that an earlier run of the server left behind.
  await redis.set('{copied}:whole', 'f'.repeat(40));
  await assert.rejects(live.twins('copied', ['a']), /being filled/);
  await live.markWhole('copied');
  assert.equal((await live.twins('copied', ['a'])).length, 1);
});

test('an incident that was cleared while its opening was settled stays in the outbox', async () => {
  const live = await open();
  await fence(live, 's5', 5);
  const cleared = { ...transition('i'), clearedAt: T0 + 1000, clearedValue: 20 };
  assert.equal(await live.writeTwins('s5', 5, [], [transition('i')]), 'written');
  assert.equal(await live.writeTwins('s5', 5, [], [cleared]), 'written');
  await live.forgetOutbox('s5', [transition('i')]);
  assert.deepEqual((await live.loadSite('s5'))?.outbox, [cleared]);
  await live.forgetOutbox('s5', [cleared]);
  assert.deepEqual((await live.loadSite('s5'))?.outbox, []);
});
