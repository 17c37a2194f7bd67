/** A cloud node of its own in this process, on real servers, and gateways that the test plays by hand. */
import { jetstream } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import pg from 'pg';
import { readCloudConfig } from '../../cloud/config.ts';
import { type CloudNode, startCloudNode } from '../../cloud/node.ts';
import type { Server } from '../../deploy/local/servers.ts';
import type { Batch } from '../../protocol/batch.ts';
import { encodeBatch } from '../../protocol/batch-codec.ts';
import { type GatewayReport, HelloReply } from '../../protocol/handshake.ts';
import { type GatewayId, gatewayId, type SiteId } from '../../protocol/ids.ts';
import { natsAddress } from '../../protocol/nats-address.ts';
import { helloSubject, ingestSubject, type Lane, partitionOf } from '../../protocol/subjects.ts';
import { SITE } from './history.ts';
import { reportOf } from './reports.ts';
import { atEnd, silentLogger, startTestNats, startTestPostgres, startTestRedis } from './servers.ts';

const PARTITIONS = 4;

export interface CloudScene {
  readonly postgres: pg.Pool;
  /** `http://…` of the node that runs now. */
  url(): string;
  get<T>(path: string): Promise<T>;
  /** Stops the node and starts another one on the same servers. */
  restartNode(): Promise<void>;
  hello(
    gateway: GatewayId,
    ends: Readonly<Record<string, number>>,
    report?: Partial<GatewayReport>,
  ): Promise<HelloReply>;
  publish(gateway: GatewayId, lane: Lane, batch: Batch): Promise<void>;
}

export const EDGE = gatewayId('edge-1');

/** @param startDatabase what history is kept in, if not in a PostgreSQL like that of all other tests */
export async function openCloudScene(
  site: SiteId = SITE,
  startDatabase: () => Promise<Server> = startTestPostgres,
): Promise<CloudScene> {
  const [nats, redis, postgres]: Server[] = await Promise.all([
    startTestNats(),
    startTestRedis(),
    startDatabase(),
  ]);
  const read = readCloudConfig({
    HOLDFAST_NATS_URL: nats!.url,
    HOLDFAST_REDIS_URL: redis!.url,
    HOLDFAST_POSTGRES_URL: postgres!.url,
    HOLDFAST_HTTP_PORT: '0',
    HOLDFAST_PARTITIONS: String(PARTITIONS),
  });
  if (!read.ok) throw new Error(read.problems.join('; '));
  const { config } = read;
  const start = async (): Promise<CloudNode> => {
    const started = await startCloudNode(config, silentLogger, () => {});
    if (started.outcome === 'refused') throw new Error(started.reason);
    return started.node;
  };
  let node = await start();
  atEnd(() => node.close());
  const pool = new pg.Pool({ connectionString: postgres!.url, max: 2 });
  pool.on('error', () => {});
  atEnd(() => pool.end());
  const connection = await connect(natsAddress(nats!.url));
  atEnd(() => connection.close());
  const stream = jetstream(connection);
  const url = () => `http://127.0.0.1:${node.port}`;
  return {
    postgres: pool,
    url,
    async get<T>(path: string): Promise<T> {
      const response = await fetch(url() + path, { signal: AbortSignal.timeout(5000) });
      if (response.status !== 200) throw new Error(`${path}: ${response.status} ${await response.text()}`);
      return (await response.json()) as T;
    },
    async restartNode() {
      await node.close();
      node = await start();
    },
    async hello(gateway, ends, report = {}) {
      const message = { wireVersions: [1], logs: Object.keys(ends), ends, report: reportOf(report) };
      const answer = await connection.request(helloSubject(site, gateway), JSON.stringify(message), {
        timeout: 5000,
      });
      return HelloReply.parse(answer.json());
    },
    async publish(gateway, lane, batch) {
      await stream.publish(
        ingestSubject(partitionOf(site, PARTITIONS), lane, site, gateway),
        encodeBatch(batch),
      );
    },
  };
}
