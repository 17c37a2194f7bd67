import assert from 'node:assert/strict';
import { test } from 'node:test';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { ensureStream } from '../../cloud/stream.ts';
import { purgeHandled } from '../../cloud/stream-purge.ts';
import { gatewayId, siteId } from '../../protocol/ids.ts';
import { natsAddress } from '../../protocol/nats-address.ts';
import { ingestSubject, partitionOf } from '../../protocol/subjects.ts';
import { atEnd, freshDatabase, startTestNats, startTestPostgres } from './servers.ts';

const [server, postgres] = await Promise.all([startTestNats(), startTestPostgres()]);
const nats = await connect(natsAddress(server.url));
atEnd(() => nats.close());
const manager = await jetstreamManager(nats);
const stream = jetstream(nats);
const pool = await freshDatabase(postgres);

const PARTITIONS = 64;
const site = { busy: siteId('demo'), quiet: siteId('plant'), behind: siteId('north') };
const partition = {
  busy: partitionOf(site.busy, PARTITIONS),
  quiet: partitionOf(site.quiet, PARTITIONS),
  behind: partitionOf(site.behind, PARTITIONS),
};
const gateway = gatewayId('gw');
const BUSY = ingestSubject(partition.busy, 'live', site.busy, gateway);
const QUIET = ingestSubject(partition.quiet, 'live', site.quiet, gateway);
const BEHIND = ingestSubject(partition.behind, 'backfill', site.behind, gateway);

async function publish(subject: string, count: number): Promise<void> {
  await Promise.all(Array.from({ length: count }, () => stream.publish(subject, 'x')));
}

async function handled(of: number, lane: string, sequence: number, created: string): Promise<void> {
  await pool.query('insert into holdfast.partition (id) values ($1) on conflict do nothing', [of]);
  await pool.query(
    `insert into holdfast.stream_cursor (partition, lane, stream_created, stream_sequence) values ($1, $2, $3, $4)
     on conflict (partition, lane) do update set stream_created = $3, stream_sequence = $4`,
    [of, lane, created, sequence],
  );
}

const firstSequence = async () => (await manager.streams.info('ingest')).state.first_seq;

test('space is given back behind what every lane has handled, and only that (A, R)', async () => {
  const { created } = await ensureStream(manager, { bytesMax: 64 * 1024 * 1024, replicas: 1 });
  // A gateway may publish to any partition; what nobody reads holds nobody back (H).
  await publish(`ingest.999.live.${site.busy}.gw`, 1);
  await publish(ingestSubject(partition.quiet, 'live', site.busy, gateway), 1);
  await publish(QUIET, 8);
  await publish(BUSY, 4000);
  assert.equal(await purgeHandled(manager, pool, PARTITIONS), null, 'nothing is handled yet');

  await handled(partition.busy, 'live', 4010, 'another stream');
  await handled(partition.quiet, 'live', 10, 'another stream');
  assert.equal(
    await purgeHandled(manager, pool, PARTITIONS),
    null,
    "another stream's cursors say nothing of this one",
  );

  await handled(partition.busy, 'live', 4010, created);
  await handled(partition.quiet, 'live', 9, created);
  assert.equal(
    await purgeHandled(manager, pool, PARTITIONS),
    null,
    'one message of the quiet lane is still needed',
  );

  await handled(partition.quiet, 'live', 10, created);
  // 4010 are handled; the newest 1000 stay.
  assert.equal(await purgeHandled(manager, pool, PARTITIONS), 3011);
  assert.equal(await firstSequence(), 3011);
  assert.equal(await purgeHandled(manager, pool, PARTITIONS), null, 'not again for a few');
});

test('a lane that is behind keeps its messages, whatever the others do', async () => {
  const { created } = await ensureStream(manager, { bytesMax: 64 * 1024 * 1024, replicas: 1 });
  await publish(BEHIND, 1500);
  await publish(BUSY, 3000);
  const { lastSequence } = await ensureStream(manager, { bytesMax: 64 * 1024 * 1024, replicas: 1 });
  await handled(partition.busy, 'live', lastSequence, created);
  await handled(partition.behind, 'backfill', 5300, created);
  assert.equal(await purgeHandled(manager, pool, PARTITIONS), 4301);
  assert.equal(await firstSequence(), 4301);
});
