/**
 * The cloud's side of the wire on a real nats-server, for tests of a gateway's link alone: it answers hellos, takes every
 * batch from the stream, remembers which sequences came, and says that they are settled.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import { ensureStream } from '../../cloud/stream.ts';
import { defaultCacheDirectory, findBinaries } from '../../deploy/local/find-servers.ts';
import { type Link, openLink } from '../../deploy/local/link.ts';
import { startNats } from '../../deploy/local/servers.ts';
import { decodeBatch } from '../../protocol/batch-codec.ts';
import type { GatewayReport } from '../../protocol/handshake.ts';
import { natsAddress } from '../../protocol/nats-address.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import {
  HELLO_FILTER,
  parseHelloSubject,
  parseIngestSubject,
  settledSubject,
} from '../../protocol/subjects.ts';

export interface SmallCloud {
  /** For the gateway: through the link. */
  readonly natsUrl: string;
  readonly link: Link;
  /** By log id. */
  readonly settled: ReadonlyMap<string, RangeSet>;
  readonly batches: readonly { readonly lane: string; readonly count: number; readonly bytes: number }[];
  readonly reports: readonly GatewayReport[];
  close(): Promise<void>;
}

export async function startSmallCloud(): Promise<SmallCloud> {
  const binaries = await findBinaries({
    cacheDirectory: defaultCacheDirectory,
    report: line => process.stderr.write(`${line}\n`),
    need: ['nats'],
  });
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-small-cloud-'));
  const server = await startNats({ binaries, directory, users: [{ user: 'test', password: 'test' }] });
  const nats = await connect(natsAddress(server.url));
  const manager = await jetstreamManager(nats);
  const { created } = await ensureStream(manager, { bytesMax: 64 * 1024 * 1024, replicas: 1 });
  const link = await openLink({ host: '127.0.0.1', port: server.port });

  const settled = new Map<string, RangeSet>();
  const batches: SmallCloud['batches'][number][] = [];
  const reports: GatewayReport[] = [];
  const handled = { live: 0, backfill: 0 };
  const position = () => ({ created, ...handled });

  nats.subscribe(HELLO_FILTER, {
    callback(error, message) {
      if (error || !parseHelloSubject(message.subject)) return;
      const hello = message.json<{ logs: string[]; report: GatewayReport }>();
      reports.push(hello.report);
      const known = hello.logs.flatMap(logId => {
        const ranges = settled.get(logId);
        return ranges ? [[logId, ranges.toString()]] : [];
      });
      const welcome = { outcome: 'welcome', historyId: 'small', partitions: 1, stream: position() };
      message.respond(JSON.stringify({ ...welcome, settled: Object.fromEntries(known) }));
    },
  });
  const consumer = await jetstream(nats).consumers.get('ingest');
  const messages = await consumer.consume({
    callback(message) {
      const address = parseIngestSubject(message.subject);
      const decoded = decodeBatch(message.data);
      if (address && decoded.outcome === 'heartbeat') {
        handled[address.lane] = message.seq;
        return;
      }
      if (!address || decoded.outcome !== 'batch') throw new Error(`not a batch: ${message.subject}`);
      const { logId, firstSequence, count } = decoded.batch;
      const ranges = RangeSet.of(firstSequence, firstSequence + count);
      settled.set(logId, (settled.get(logId) ?? RangeSet.empty).union(ranges));
      batches.push({ lane: address.lane, count, bytes: message.data.length });
      handled[address.lane] = message.seq;
      const notice = { stream: position(), settled: { [logId]: ranges.toString() } };
      nats.publish(settledSubject(address.site, address.gateway), JSON.stringify(notice));
    },
  });

  return {
    natsUrl: `nats://test:test@127.0.0.1:${link.port}`,
    link,
    settled,
    batches,
    reports,
    async close() {
      messages.stop();
      await nats.close();
      await server.kill();
      await link.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Asks until the answer is yes. @throws Error that names `what` after 30 s */
export async function eventually(what: string, isSo: () => boolean): Promise<void> {
  const until = performance.now() + 30_000;
  while (!isSo()) {
    if (performance.now() > until) throw new Error(`not within 30 s: ${what}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}
