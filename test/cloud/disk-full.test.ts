/** PostgreSQL's disk is full, really: live values go on, gateways keep what is theirs, health says why, and history catches up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Health } from '../../cloud/health.ts';
import { buildBatch } from '../../edge-gateway/batch-builder.ts';
import { frame, LOG_ID } from '../edge-gateway/frames.ts';
import { EDGE, openCloudScene } from './gateway-player.ts';
import { range, SITE } from './history.ts';
import { eventually } from './servers.ts';
import { startPostgresOnSmallDisk } from './small-disk.ts';

const MIB = 1024 * 1024;
const BATCH = 500;

test("PostgreSQL's disk is full, and has room again", { timeout: 110_000 }, async t => {
  const database = await startPostgresOnSmallDisk(48 * MIB);
  if (typeof database === 'string') return t.skip(database);
  const scene = await openCloudScene(SITE, async () => database);
  const publish = (first: number, count: number) => {
    const frames = range(first, first + count).map(n =>
      frame(n, 'devices/pump/telemetry', JSON.stringify({ n, text: `${n}`.repeat(40) }), {
        receivedAt: Date.now(),
      }),
    );
    return scene.publish(EDGE, 'live', buildBatch(LOG_ID, frames));
  };
  const settled = async (): Promise<number> => {
    const reply = await scene.hello(EDGE, { [LOG_ID]: 1_000_000 });
    assert.equal(reply.outcome, 'welcome');
    return (reply.outcome === 'welcome' && reply.settled[LOG_ID]?.size) || 0;
  };
  const liveValue = async (): Promise<unknown> => {
    const twin = await scene.get<{ metrics: { n: { value: number } } }>(`/twins/${SITE}/pump`);
    return twin.metrics.n.value;
  };
  const health = () => scene.get<Health>('/health');

  await publish(1, 10);
  await eventually('history has the first ones', async () => (await settled()) === 10);
  assert.deepEqual((await health()).reasons, []);

  // Until not even the smallest goes in. Vacuum would give back what the inserts that failed have taken.
  await scene.postgres.query(
    'create table holdfast.filler (bytes text) with (autovacuum_enabled = off, toast.autovacuum_enabled = off)',
  );
  await scene.postgres.query('alter table holdfast.filler alter column bytes set storage external');
  for (const bytes of [MIB, 4000]) {
    for (let isFull = false; !isFull; ) {
      await scene.postgres
        .query(`insert into holdfast.filler values (repeat('x', ${bytes}))`)
        .catch(error => {
          assert.equal((error as { code?: string }).code, '53100', String(error));
          isFull = true;
        });
    }
  }

  // Pages that are there already take some more.
  let published = 10;
  let reason: string | undefined;
  await eventually('health says why', async () => {
    await publish(published + 1, BATCH);
    published += BATCH;
    reason = (await health()).reasons.find(one => one.startsWith('history'));
    return reason !== undefined && (await settled()) < published;
  });
  assert.match(reason!, /^history: PostgreSQL takes no rows: its disk is full: .*No space left on device/);
  await publish(published + 1, BATCH);
  published += BATCH;
  await eventually('live values go on', async () => (await liveValue()) === published);
  t.diagnostic(reason!);
  const { status, servers, historyQueue } = await health();
  assert.equal(status, 'degraded');
  assert.ok(servers.postgres.ok, 'it answers');
  assert.ok(historyQueue.batches > 0 && historyQueue.bytes <= historyQueue.bytesMax);
  assert.ok((await settled()) < published, 'the gateway is not told of what history does not have (A)');

  await scene.postgres.query('drop table holdfast.filler');
  await eventually('history has caught up', async () => (await settled()) === published);
  const { rows } = await scene.postgres.query(
    `select count(*)::int as rows, count(distinct value)::int as different from holdfast.reading where metric = 'n'`,
  );
  assert.deepEqual(rows, [{ rows: published, different: published }]);
  await eventually('all is well', async () => (await health()).reasons.length === 0);
});
