/**
 * A site's new owner while it catches up, with a real Redis and PostgreSQL: what it folds again is older than what people
 * have seen, so neither Redis nor dashboards get it before all of it is folded (C, R).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Redis } from 'ioredis';
import type { IncidentTransition } from '../../cloud/actors/incident.ts';
import { type LiveState, openLiveState } from '../../cloud/live-state.ts';
import { activateSite, type TwinUpdates } from '../../cloud/site-actor.ts';
import { buildBatch } from '../../edge-gateway/batch-builder.ts';
import { siteId } from '../../protocol/ids.ts';
import { frame, LOG_ID, RECEIVED_AT } from '../edge-gateway/frames.ts';
import {
  atEnd,
  eventually,
  freshDatabase,
  silentLogger,
  startTestPostgres,
  startTestRedis,
} from './servers.ts';
import { book, tooHot } from './twins.ts';

const redis = await startTestRedis();
const pool = await freshDatabase(await startTestPostgres());
const rules = book(tooHot);

async function openLive(confirmLease: () => Promise<void>): Promise<LiveState> {
  const live = await openLiveState({
    url: redis.url,
    twinTtlSeconds: 3600,
    logger: silentLogger,
    confirmLease,
    onWritable: () => {},
    isKnown: async () => true,
  });
  atEnd(() => live.close());
  return live;
}

async function emptyRedis(): Promise<void> {
  const client = new Redis(redis.url);
  await client.flushall();
  await client.quit();
}

/** @param confirmLease rejects while Redis may not be written to */
async function newOwner(site: string, epoch: number, confirmLease = async () => {}) {
  const live = await openLive(confirmLease);
  const caughtUp = Promise.withResolvers<void>();
  const published: TwinUpdates[] = [];
  const incidents: IncidentTransition[] = [];
  const actor = await activateSite({
    site: siteId(site),
    epoch,
    pool,
    live,
    publish: updates => published.push(updates),
    onIncidents: transitions => incidents.push(...transitions),
    onAhead: () => {},
    confirmLease: async () => true,
    onStaleEpoch: () => assert.fail('it is the owner'),
    caughtUp: caughtUp.promise,
  });
  const receive = (sequence: number, temperature: number) =>
    actor.receive(
      {
        batch: buildBatch(LOG_ID, [
          frame(sequence, 'devices/pump/telemetry', JSON.stringify({ temperature }), {
            receivedAt: RECEIVED_AT + sequence * 1000,
          }),
        ]),
        gateway: 'gw-1',
        lane: 'live',
      },
      rules,
    );
  return { actor, live, published, incidents, receive, caughtUp: caughtUp.resolve };
}

test('what is folded again shows nowhere until all of it is folded, and then at once', async () => {
  const first = await newOwner('mill', 1);
  first.caughtUp();
  await first.actor.live;
  await first.receive(5, 25);
  await eventually('Redis has it', async () => (await first.live.twin('mill', 'pump'))?.version === 1);
  first.actor.close();

  const second = await newOwner('mill', 2);
  // The history that it starts from has nothing yet.
  for (const sequence of [1, 2, 3, 4]) await second.receive(sequence, 20 + sequence);
  assert.equal(second.published.length, 0);
  assert.equal((await second.live.twin('mill', 'pump'))?.metrics.temperature?.value, 25);
  await second.receive(5, 25);
  await second.receive(6, 26);
  second.caughtUp();
  await second.actor.live;
  assert.deepEqual(
    second.published.map(({ devices }) => devices),
    [[], ['pump']],
  );
  assert.match(second.published[1]!.fragments[0]!, /"temperature":\{"value":26/);
  await eventually('Redis has it', async () => (await second.live.twin('mill', 'pump'))?.epoch === 2);
  assert.equal((await second.live.twin('mill', 'pump'))?.metrics.temperature?.value, 26);
  await second.receive(7, 27);
  await eventually('changes go on', () => second.published.length === 3);
});

test('an empty Redis is not filled with what is old, and readers are told so', async () => {
  const owner = await newOwner('barn', 1);
  await owner.receive(1, 21);
  await assert.rejects(owner.live.twin('barn', 'pump'), /being filled/);
  owner.caughtUp();
  await owner.actor.live;
  assert.equal((await owner.live.twin('barn', 'pump'))?.metrics.temperature?.value, 21);
});

test('people are told of an incident while the owner still catches up', async () => {
  const owner = await newOwner('shed', 1);
  await owner.receive(1, 35);
  await eventually('somebody is told', () => owner.incidents.length === 1);
  assert.deepEqual(owner.published, []);
});

test('what history had while Redis was away is remembered there once it is back, for a history from a backup (R)', async () => {
  const owner = await newOwner('dock', 1);
  owner.caughtUp();
  await owner.actor.live;
  await owner.receive(1, 35);
  await eventually('somebody is told', () => owner.incidents.length === 1);
  await emptyRedis();
  owner.actor.settled(owner.incidents);
  await owner.live.forgetOutbox('dock', owner.incidents);
  assert.deepEqual(await owner.live.told('dock'), []);
  for (const _ of ['once', 'and again']) {
    await owner.actor.recover();
    assert.deepEqual(await owner.live.told('dock'), owner.incidents);
  }
});

test('the end of an incident that Redis missed comes with the next twin, and not after it (D, R)', async () => {
  const owner = await newOwner('quay', 1);
  owner.caughtUp();
  await owner.actor.live;
  await owner.receive(1, 35);
  await eventually('somebody is told', () => owner.incidents.length === 1);
  const other = new Redis(redis.url);
  await other.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
  await other.quit();
  await eventually('it is away', () => !owner.live.connected);
  await owner.receive(2, 20);
  await eventually('it is back', () => owner.live.connected);
  await owner.receive(3, 19);
  const stored = async () => (await owner.live.loadSite('quay', () => false))!;
  await eventually('Redis has the twin', async () => (await stored()).twins[0]?.version === 3);
  assert.equal((await stored()).outbox[0]?.clearedValue, 20);
});

test('what is over for history is not open again because Redis was away when it ended (R)', async () => {
  const first = await newOwner('pier', 1);
  first.caughtUp();
  await first.actor.live;
  await first.receive(1, 35);
  await eventually('somebody is told', () => first.incidents.length === 1);
  const opened = first.incidents[0]!;
  first.actor.settled([opened]);
  await first.live.forgetOutbox('pier', [opened]);
  first.actor.close();

  let isConfirmed = false;
  const second = await newOwner('pier', 2, async () => {
    if (!isConfirmed) throw new Error('PostgreSQL does not say');
  });
  second.caughtUp();
  second.actor.settled([{ ...opened, clearedAt: opened.openedAt + 1000, clearedValue: 20 }]);
  isConfirmed = true;
  await eventually('Redis remembers its end', async () => {
    await second.actor.recover();
    return (await second.live.told('pier'))[0]?.clearedValue === 20;
  });
});

test('a dead link follows from no message: people hear of it when history has it, or does not take it for long', async () => {
  const owner = await newOwner('lock', 1);
  owner.caughtUp();
  await owner.actor.live;
  const link = (gateway: string): IncidentTransition => ({
    ...{ id: `link:lock/${gateway}:1`, rule: 'link', kind: 'link', severity: 'critical', site: 'lock' },
    ...{ device: null, metric: null, summary: 'no link', threshold: null, late: false },
    ...{ openedAt: 1, openedValue: null, clearedAt: null, clearedValue: null },
  });
  const [first, second] = [link('gw-1'), link('gw-2')];
  owner.actor.tell(first);
  owner.actor.tell(second);
  await eventually(
    'Redis has both',
    async () => (await owner.live.loadSite('lock', () => false))?.outbox.length === 2,
  );
  assert.deepEqual(owner.incidents, []);
  owner.actor.settled([first]);
  assert.deepEqual(owner.incidents, [first]);
  await eventually('the other is told all the same', () => owner.incidents.length === 2);
  assert.deepEqual(owner.incidents, [first, second]);
});
