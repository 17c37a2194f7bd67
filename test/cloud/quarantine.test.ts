/**
 * Quarantined messages replayed, on a real cloud node, with a gateway that the test plays: rows appear once, with the times
 * they had, the ledger counts them as late, and a twin gets only what is newer.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { openDictionary } from '../../cloud/history/dictionary.ts';
import { mappingOf } from '../../cloud/quarantine/mapping.ts';
import { replayMessage } from '../../cloud/quarantine/replay.ts';
import { findEntry, selectEntries } from '../../cloud/quarantine/store.ts';
import { applyRegistry } from '../../cloud/registry/apply.ts';
import { keptMessageOf } from '../../cloud/registry/kept-message.ts';
import type { TwinView } from '../../cloud/twin-json.ts';
import { buildBatch } from '../../edge-gateway/batch-builder.ts';
import { decodeBatch } from '../../protocol/batch-codec.ts';
import { type LogId, newLogId } from '../../protocol/ids.ts';
import { ingestSubject, partitionOf } from '../../protocol/subjects.ts';
import { frame } from '../edge-gateway/frames.ts';
import { snapshot } from '../registry/snapshot.ts';
import { type CloudScene, EDGE, openCloudScene } from './gateway-player.ts';
import { compactEverything } from './history/compact-everything.ts';
import { counts, DAY_MS, marks, type Sent, SITE } from './history.ts';
import { openRegistryScene, type RegistryScene } from './registry-scene.ts';
import { atEnd, eventually } from './servers.ts';

const PARTITIONS = 4;
const T = Math.floor(Date.now() / 60_000) * 60_000 - 3_600_000;

let cloud: CloudScene;
let scene: RegistryScene;
let folder: string;
/** The stream takes nothing while it is set. */
let streamIsAway = false;

before(async () => {
  cloud = await openCloudScene();
  folder = await mkdtemp(join(tmpdir(), 'holdfast-test-mapping-'));
  atEnd(() => rm(folder, { recursive: true }));
  scene = await openRegistryScene({
    pool: cloud.postgres,
    partitions: PARTITIONS,
    async publish(subject, bytes) {
      if (streamIsAway) throw new Error('the stream is away');
      assert.equal(subject, ingestSubject(partitionOf(SITE, PARTITIONS), 'backfill', SITE, EDGE));
      const decoded = decodeBatch(bytes);
      assert.equal(decoded.outcome, 'batch');
      await cloud.publish(EDGE, 'backfill', decoded.batch);
    },
  });
});

/** Messages that arrived a second apart from T on. */
const messagesOf = (log: LogId, first: number, messages: readonly Sent[]) =>
  buildBatch(
    log,
    messages.map(([topic, payload], index) =>
      frame(first + index, topic, JSON.stringify(payload), { receivedAt: T + (first + index) * 1000 }),
    ),
  );

async function rowsOf(log: LogId) {
  const { rows } = await cloud.postgres.query<{ row: string }>(
    `select r.device || ' ' || r.metric || ' ' || r.value || ' ' || r.sequence || '.' || r.element || ' '
              || ((extract(epoch from r.time)::float8 * 1000 - $2) / 1000)::int as row
       from holdfast.reading r join holdfast.gateway_log l on l.id = r.log
      where l.log_id = $1 order by r.sequence, r.element, r.metric`,
    [log, T],
  );
  return rows.map(({ row }) => row);
}

const settledUpTo = (log: LogId, sequence: number) =>
  eventually(`history has ${sequence}`, async () => {
    const { rows } = await cloud.postgres.query(
      'select settled @> $2::bigint as has from holdfast.gateway_log where log_id = $1',
      [log, sequence],
    );
    return rows[0]?.has === true;
  });

const minutesOf = async (log: LogId) =>
  (
    await cloud.postgres.query(
      `select m.status, m.messages::int from holdfast.ledger_minute m join holdfast.gateway_log l on l.id = m.log
        where l.log_id = $1 order by m.minute, m.status`,
      [log],
    )
  ).rows;

const context = (registry = scene.registry.site) => ({
  pool: cloud.postgres,
  dictionary: openDictionary(cloud.postgres),
  registry,
  retentionMs: 90 * DAY_MS,
  now: Date.now,
});

const mapping = `mappings:
  - topic: plant/{device}/data
    device: "{device}"
    time: { field: when, unit: ms }
`;

test('B, C: mend the mapping, replay: rows appear once with their times, and twins never go back', async () => {
  const log = newLogId(T);
  await cloud.publish(
    EDGE,
    'live',
    messagesOf(log, 1, [
      ['plant/a/data', { v: 1, old: 7 }],
      ['devices/a/telemetry', { v: 2 }],
      ['plant/b/data', [{ v: 3, when: T - 5000 }, { v: 4 }]],
      ['nobody/knows', { v: 5 }],
    ]),
  );
  await settledUpTo(log, 4);
  assert.deepEqual(await rowsOf(log), ['a v 2 2.0 2']);
  assert.deepEqual(await counts(cloud.postgres, log), { quarantined: 3 });
  const listed = await scene.command('quarantine', 'list', '--site', SITE, '--json');
  const { quarantined, total } = JSON.parse(listed.stdout);
  assert.equal(total, 3);
  const [unknown, b, a] = quarantined.map(({ id }: { id: number }) => String(id));
  assert.match((await scene.command('quarantine', 'show', a)).stdout, /plant\/a\/data[\s\S]*"old":7/);

  const unmended = await scene.command('quarantine', 'replay', '--site', SITE);
  assert.equal(unmended.code, 1);
  assert.match(
    unmended.stdout,
    /still set aside: [\s\S]*Replayed: 0 messages, 0 rows. Still in quarantine: 3/,
  );

  const file = join(folder, 'mended.yaml');
  await writeFile(file, mapping);
  streamIsAway = true;
  const mended = await scene.command('quarantine', 'replay', '--all', '--mapping', file, '--json');
  assert.equal(mended.code, 1, 'one is still there');
  const result = JSON.parse(mended.stdout);
  assert.deepEqual([result.replayed, result.rows, result.twinsTold], [2, 3, false]);
  assert.deepEqual(
    result.kept.map(({ id }: { id: number }) => String(id)),
    [unknown],
  );
  const expected = ['a old 7 1.0 1', 'a v 1 1.0 1', 'a v 2 2.0 2', 'b v 3 3.0 -5', 'b v 4 3.1 3'];
  assert.deepEqual(await rowsOf(log), expected);
  assert.deepEqual(await counts(cloud.postgres, log), { late: 2, quarantined: 1 });
  assert.deepEqual(
    (await marks(cloud.postgres)).map(({ range }) => range),
    ['[4,5)'],
  );
  const perMinute = await minutesOf(log);
  assert.deepEqual(perMinute, [
    { status: 'late', messages: 2 },
    { status: 'quarantined', messages: 1 },
  ]);

  // The twins learn of it when the stream is back.
  streamIsAway = false;
  await scene.api.housekeeping();
  await eventually(
    'the twins know it',
    async () => (await cloud.get<TwinView>(`/twins/${SITE}/b`)).metrics.v?.value === 4,
  );
  const twin = await cloud.get<TwinView>(`/twins/${SITE}/a`);
  assert.deepEqual([twin.metrics.v?.value, twin.metrics.old?.value], [2, 7]);

  // Twice changes nothing, whether by command or by somebody who still holds the entry as it was.
  const again = await scene.command('quarantine', 'replay', a, b, '--mapping', file, '--json');
  assert.deepEqual([again.code, JSON.parse(again.stdout).replayed], [0, 0]);
  const entry = (await findEntry(cloud.postgres, Number(a)))!;
  assert.ok(entry.replayedAt);
  const compiled = mappingOf({
    profiles: [],
    mappings: [{ topic: 'plant/{device}/data', device: '{device}' }],
  });
  assert.ok(compiled.ok);
  const held = await replayMessage({ ...entry, replayedAt: null }, compiled.mapping, context());
  assert.deepEqual(held, { outcome: 'already' });
  assert.deepEqual(await rowsOf(log), expected);
  assert.deepEqual(await counts(cloud.postgres, log), { late: 2, quarantined: 1 });
  assert.equal(JSON.parse((await scene.command('quarantine', 'list', '--json')).stdout).total, 1);

  const discarded = await scene.command('quarantine', 'discard', unknown);
  assert.equal(discarded.stdout, 'Discarded: 1.\n');
  assert.equal((await scene.command('quarantine', 'show', unknown)).code, 1);
  assert.deepEqual(
    await counts(cloud.postgres, log),
    { late: 2, quarantined: 1 },
    'the ledger does not forget',
  );
});

test('what the policy refused comes in once its device has an entry, beside what its message had already', async () => {
  const log = newLogId(T);
  // One message of two devices, as a Sparkplug node sends them.
  const both = buildBatch(log, [frame(1, 'x', '{}', { receivedAt: T + 1000 })], () => ({
    ok: true,
    readings: (['known', 'stranger'] as const).map(device => ({
      device: device as never,
      kind: 'telemetry',
      elements: [{ at: null, names: ['v'], values: [50] }],
    })),
  }));
  const before = snapshot({ unknownDevices: 'quarantine', devices: { known: {} } });
  await cloud.publish(EDGE, 'live', applyRegistry(both, before));
  await settledUpTo(log, 1);
  assert.deepEqual(await rowsOf(log), ['known v 50 1.0 1']);
  assert.deepEqual(await counts(cloud.postgres, log), { quarantined: 1 });

  const [entry] = await selectEntries(cloud.postgres, { site: SITE }, { after: 0, limit: 10 });
  const mappingOfNone = mappingOf(undefined);
  assert.ok(mappingOfNone.ok);
  const refused = await replayMessage(
    entry!,
    mappingOfNone.mapping,
    context(() => before),
  );
  assert.equal(refused.outcome, 'kept');
  assert.match(refused.outcome === 'kept' ? refused.reason : '', /stranger: not in the registry/);

  await scene.ask('PUT', '/registry/types/f', { metrics: { v: { unit: '°C', reported: '°F' } } });
  await scene.ask('PATCH', `/registry/devices/${SITE}/stranger`, { type: 'f' });
  // What history has of the message may be in a chunk by now.
  await compactEverything(cloud.postgres);
  const replayed = await scene.ask('POST', '/quarantine/replay', { ids: [entry!.id] });
  assert.deepEqual([replayed.body.replayed, replayed.body.rows], [1, 1]);
  assert.deepEqual(
    await rowsOf(log),
    ['known v 50 1.0 1', 'stranger v 10 1.1 1'],
    'with the unit of its type',
  );
  assert.deepEqual(await counts(cloud.postgres, log), { late: 1 });
});

test('what PostgreSQL refused once is taken as it was; what it refuses again stays', async () => {
  const log = newLogId(T);
  const batch = messagesOf(log, 1, [
    ['devices/p/telemetry', { v: 1 }],
    ['devices/p/telemetry', { v: 2 }],
  ]);
  await cloud.publish(EDGE, 'live', {
    settlement: 'lost',
    logId: log,
    firstSequence: 1,
    count: 2,
    reason: 'x',
  });
  await settledUpTo(log, 2);
  // As the history writer leaves it when PostgreSQL refuses the second one alone.
  const { rows } = await cloud.postgres.query<{ id: number; entry: number }>(
    `with log as (update holdfast.gateway_log set lost = 1, quarantined = 1 where log_id = $1 returning id),
          gone as (delete from holdfast.ledger_mark where log = (select id from log)),
          mark as (insert into holdfast.ledger_mark (log, range, status, messages, reason)
                   select id, '[2,3)', 'quarantined', 1, 'refused' from log)
     insert into holdfast.quarantine (site, gateway, log, sequence, received_at, reason, topic, payload_bytes, payload)
     select $2, $3, id, 2, now(), 'refused by PostgreSQL: x', '', $4, $5 from log returning id::int as entry`,
    [log, SITE, EDGE, keptMessageOf(batch, 2).length, Buffer.from(keptMessageOf(batch, 2))],
  );
  const replayed = await scene.ask('POST', '/quarantine/replay', { ids: [rows[0]!.entry] });
  assert.deepEqual([replayed.body.replayed, replayed.body.rows], [1, 1], JSON.stringify(replayed.body));
  assert.deepEqual(await rowsOf(log), ['p v 2 2.0 2']);
  assert.deepEqual(await counts(cloud.postgres, log), { lost: 1, late: 1 });
});

test('what was not kept whole says so, and a mapping that is none is refused', async () => {
  const log = newLogId(T);
  const long = buildBatch(log, [frame(1, 'no/where', JSON.stringify('x'.repeat(5000)), { receivedAt: T })]);
  await cloud.publish(EDGE, 'live', long);
  await settledUpTo(log, 1);
  const answer = await scene.ask('POST', '/quarantine/replay', { all: true });
  assert.deepEqual(answer.body.replayed, 0);
  assert.match(answer.body.kept[0].reason, /of its 5002 bytes only the first 4096 were kept/);
  for (const wrong of ['x', { profiles: [], mappings: [{ topic: 'a/#/b' }] }, { profiles: ['nonesuch'] }]) {
    const refused = await scene.ask('POST', '/quarantine/replay', { all: true, mapping: wrong });
    assert.equal(refused.status, 400, JSON.stringify(refused.body));
    assert.match(refused.body.detail, /mapping/);
  }
  assert.deepEqual(
    scene.failures.filter(failure => !failure.includes('the stream is away')),
    [],
  );
});
