/**
 * A measured cloud node on servers of its own, fed with ready-made batches straight into the stream, as gateways would: what
 * is measured is the node, not brokers and gateways.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type JetStreamClient, jetstream } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import pg from 'pg';
import { cloudProcess } from '../../deploy/local/cloud-process.ts';
import type { NodeProcess } from '../../deploy/local/node-process.ts';
import { freePort, startNats, startPostgres, startRedis } from '../../deploy/local/servers.ts';
import { buildBatch } from '../../edge-gateway/batch-builder.ts';
import type { Frame } from '../../edge-gateway/log/frame.ts';
import { encodeBatch } from '../../protocol/batch-codec.ts';
import { gatewayId, type LogId, logId, siteId } from '../../protocol/ids.ts';
import { natsAddress } from '../../protocol/nats-address.ts';
import { ingestSubject, PARTITIONS_DEFAULT, partitionOf } from '../../protocol/subjects.ts';
import type { BenchmarkOptions } from './benchmark.ts';
import type { Measured, Question } from './measured-node.ts';
import { standardFleet } from './standard-fleet.ts';

export const SITES = 10;
export const siteName = (index: number): string => `site-${index}`;

/** Messages per batch: as many as one site's devices publish while a gateway gathers, each of another device. */
const BATCH_MESSAGES = 100;
const METRICS = 4;
/** Batches not yet acknowledged by the stream. */
const WINDOW = 32;
const POLL_MS = 20;
const SETTLE_MS = 120_000;

export interface Fed {
  readonly readings: number;
  /** Of the node, from the first batch until history has settled the last. */
  readonly cpuMs: number;
  readonly seconds: number;
}

export interface TwinSubject {
  readonly node: NodeProcess;
  readonly url: string;
  readonly redisUrl: string;
  measure(collect: boolean): Promise<Measured>;
  ask(question: Question): void;
  /** Publishes that many messages of the fleet at its rate, or as fast as it goes. Resolves when all are settled. */
  feed(messages: number, pace: 'steady' | 'fast'): Promise<Fed>;
  /** One message of a device of its own, at every site. */
  probe(n: number): Promise<void>;
}

export async function openTwinSubject(
  { binaries, releases }: BenchmarkOptions,
  options: { readonly directory: string; readonly devices: number; readonly messagesPerSecond: number },
): Promise<TwinSubject> {
  const { directory, devices, messagesPerSecond } = options;
  const user = { user: 'bench', password: 'bench' };
  const nats = await startNats({ binaries, directory: join(directory, 'nats'), users: [user] });
  releases.add(() => nats.stop());
  const redis = await startRedis({ binaries, directory: join(directory, 'redis') });
  releases.add(() => redis.stop());
  const postgres = await startPostgres({ binaries, directory: join(directory, 'postgres') });
  releases.add(() => postgres.stop());
  const port = await freePort();
  const node = cloudProcess({
    name: `node of ${devices}`,
    entry: new URL('measured-node.ts', import.meta.url),
    env: {
      HOLDFAST_NATS_URL: nats.url,
      HOLDFAST_REDIS_URL: redis.url,
      HOLDFAST_POSTGRES_URL: postgres.url,
      HOLDFAST_NODE: 'cloud-1',
      HOLDFAST_HTTP_PORT: String(port),
    },
  });
  await node.start();
  releases.add(() => node.stop());
  const pool = new pg.Pool({ connectionString: postgres.url, max: 1 });
  pool.on('error', () => {});
  releases.add(() => pool.end());
  const connection = await connect(natsAddress(nats.url));
  releases.add(() => connection.close());
  const stream = jetstream(connection);

  const intervalMs = (devices * 1000) / messagesPerSecond;
  const startMs = Date.now() - 3_600_000;
  const fleet = standardFleet({ devices, sites: SITES, startMs, intervalMs });
  const logs = Array.from({ length: SITES }, (_, index) => newLog(stream, index, 'a'));
  const probes = Array.from({ length: SITES }, (_, index) => newLog(stream, index, 'b'));
  let settledBefore = 0;

  /** Whole batches only: what is left over goes with the next ones. */
  function prepare(messages: number): { site: number; bytes: Uint8Array }[] {
    const batches: { site: number; bytes: Uint8Array }[] = [];
    for (let i = 0; i < messages; i++) {
      const { site, topic, ts, payload } = fleet.next().value;
      const bytes = logs[site]!.add(topic, ts, payload);
      if (bytes) batches.push({ site, bytes });
    }
    return batches;
  }

  async function measure(collect: boolean): Promise<Measured> {
    const answer = new Promise<Measured>(resolve => {
      const release = node.onMessage(message => {
        if (message.type !== 'measured') return;
        release();
        resolve(message as unknown as Measured);
      });
    });
    ask({ type: 'measure', collect });
    return answer;
  }
  const ask = (question: Question) => node.send(question);

  async function settled(): Promise<number> {
    const { rows } = await pool.query<{ settled: string }>(
      `select coalesce(sum(upper(range) - lower(range)), 0) as settled
         from holdfast.gateway_log, unnest(settled) as range where log_id like 'a%'`,
    );
    return Number(rows[0]!.settled);
  }

  return {
    node,
    url: `http://127.0.0.1:${port}`,
    redisUrl: redis.url,
    measure,
    ask,
    async feed(messages, pace) {
      const batches = prepare(messages);
      const count = batches.length * BATCH_MESSAGES;
      const before = await measure(false);
      const startedAt = performance.now();
      const underWay = new Set<Promise<unknown>>();
      for (const [index, { site, bytes }] of batches.entries()) {
        const dueAt = startedAt + (index * BATCH_MESSAGES * 1000) / messagesPerSecond;
        if (pace === 'steady') await sleep(Math.max(0, dueAt - performance.now()));
        if (underWay.size >= WINDOW) await Promise.race(underWay);
        const published = logs[site]!.publish(bytes).finally(() => underWay.delete(published));
        underWay.add(published);
      }
      await Promise.all(underWay);
      settledBefore += count;
      const deadline = performance.now() + SETTLE_MS;
      while ((await settled()) < settledBefore) {
        if (performance.now() > deadline) throw new Error(`settled ${await settled()} of ${settledBefore}`);
        await sleep(POLL_MS);
      }
      const seconds = (performance.now() - startedAt) / 1000;
      const after = await measure(false);
      return { readings: count * METRICS, cpuMs: after.cpuMs - before.cpuMs, seconds };
    },
    async probe(n) {
      await Promise.all(
        probes.map(log =>
          log.publish(log.encode([log.frame('devices/probe/telemetry', Date.now(), `{"n":${n}}`)])),
        ),
      );
    },
  };
}

interface GatewayLog {
  frame(topic: string, receivedAt: number, payload: string): Frame;
  encode(frames: readonly Frame[]): Uint8Array;
  /** @returns the encoded batch, when this message makes it whole */
  add(topic: string, receivedAt: number, payload: string): Uint8Array | null;
  publish(bytes: Uint8Array): Promise<unknown>;
}

function newLog(stream: JetStreamClient, index: number, kind: 'a' | 'b'): GatewayLog {
  const site = siteId(siteName(index));
  const id: LogId = logId(`${kind}${String(index).padStart(31, '0')}`);
  const subject = ingestSubject(partitionOf(site, PARTITIONS_DEFAULT), 'live', site, gatewayId('gw-1'));
  let sequence = 1;
  let frames: Frame[] = [];
  const log: GatewayLog = {
    frame(topic, receivedAt, payload) {
      const bytes = Buffer.from(payload);
      const transport = { qos: 1, retain: false, duplicate: false, packetId: 1 } as const;
      const content = { topic, payload: bytes, payloadBytes: bytes.length };
      return { sequence: sequence++, receivedAt, monotonicMs: receivedAt, ...transport, ...content };
    },
    encode: of => encodeBatch(buildBatch(id, of)),
    add(topic, receivedAt, payload) {
      frames.push(log.frame(topic, receivedAt, payload));
      if (frames.length < BATCH_MESSAGES) return null;
      const whole = frames;
      frames = [];
      return log.encode(whole);
    },
    publish: bytes => stream.publish(subject, bytes),
  };
  return log;
}
