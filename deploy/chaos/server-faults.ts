/** What goes wrong with NATS, Redis and PostgreSQL. */
import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { Redis } from 'ioredis';
import { natsAddress } from '../../protocol/nats-address.ts';
import { INGEST_STREAM } from '../../protocol/subjects.ts';
import type { Server } from '../local/server.ts';
import { inSeconds, type Stage } from './conductor.ts';
import { imageOfPostgres, removeFolder } from './disk-images.ts';
import type { Fault } from './plan.ts';

/** Longer than a lease, so that somebody else owns what the sleeping node wakes up to. */
const SLEEP_MS = 3000;

/** @returns whether it happened */
export async function serverFault(fault: Fault, stage: Stage): Promise<boolean> {
  const { cluster, recovery, sampler, say, pause } = stage;
  const { nats, redis, postgres, directory } = cluster;
  const { kind, forMs } = fault;
  const back = `back in ${inSeconds(forMs)}`;

  async function down(server: Server, change: () => void = () => {}): Promise<void> {
    const over = recovery.troubled();
    await server.kill();
    change();
    await pause(forMs);
    await server.start();
    over();
  }

  if (kind === 'nats-kill') {
    say(`nats-server killed, ${back}`);
    await down(nats);
  } else if (kind === 'nats-emptied') {
    say(`nats-server killed and its store deleted, ${back}`);
    await down(nats, () => removeFolder(join(directory, 'nats', 'jetstream')));
  } else if (kind === 'stream-deleted') {
    say('stream deleted');
    const over = recovery.troubled();
    await deleteStream(nats.url);
    over();
  } else if (kind === 'redis-emptied') {
    say(`Redis killed, ${back} and empty`);
    await down(redis, sampler.forgetRedis);
    sampler.forgetRedis();
  } else if (kind === 'redis-flushed') {
    say('Redis flushed');
    const over = recovery.troubled();
    sampler.forgetRedis();
    await onRedis(redis.url, client => client.flushall());
    sampler.forgetRedis();
    over();
  } else if (kind === 'redis-stale') return staleRedis();
  else if (kind === 'postgres-kill' || kind === 'postgres-stop') {
    say(`PostgreSQL killed, ${back}`);
    await down(postgres);
  } else {
    const image = imageOfPostgres(postgres, directory);
    await pause(forMs);
    say(`PostgreSQL put back to how it was ${inSeconds(forMs)} ago`);
    const over = recovery.troubled();
    await postgres.kill();
    image.putBack();
    sampler.forgetPostgres();
    await postgres.start();
    sampler.forgetPostgres();
    over();
  }
  return true;

  /** A copy of some seconds ago takes the place of Redis while a node sleeps, which wakes up to it. */
  async function staleRedis(): Promise<boolean> {
    const node = cluster.nodes[fault.target]!;
    const dump = join(directory, 'redis', 'dump.rdb');
    const copy = join(directory, 'redis', 'stale.rdb');
    await onRedis(redis.url, client => client.save());
    renameSync(dump, copy);
    await pause(forMs);
    const pid = node.pid();
    say(`Redis replaced by its copy of ${inSeconds(forMs)} ago while ${node.name} sleeps`);
    const over = recovery.troubled();
    if (pid !== undefined) process.kill(pid, 'SIGSTOP');
    try {
      await redis.kill();
      renameSync(copy, dump);
      sampler.forgetRedis();
      await redis.start();
      rmSync(dump);
      sampler.forgetRedis();
      await pause(SLEEP_MS);
    } finally {
      if (pid !== undefined) process.kill(pid, 'SIGCONT');
    }
    over();
    return true;
  }
}

async function onRedis(url: string, work: (client: Redis) => Promise<unknown>): Promise<void> {
  const client = new Redis(url);
  client.on('error', () => {});
  try {
    await work(client);
  } finally {
    client.disconnect();
  }
}

async function deleteStream(url: string): Promise<void> {
  const nats = await connect(natsAddress(url));
  try {
    await (await jetstreamManager(nats, { checkAPI: false })).streams.delete(INGEST_STREAM).catch(error => {
      // Deleted before, and nobody has made it again yet.
      if (!/not found/.test(String(error))) throw error;
    });
  } finally {
    await nats.close();
  }
}
