/**
 * What gateways really publish, heard beside the stream on core NATS: bytes and messages in all, and those of them that
 * had been published before.
 */
import { connect } from '@nats-io/transport-node';
import { natsAddress } from '../../protocol/nats-address.ts';
import { RangeSet } from '../../protocol/range-set.ts';

export interface IngestTotals {
  readonly bytes: number;
  readonly messages: number;
  /** Of batches whose sequences had all been published before, and their share of the others. */
  readonly resentBytes: number;
}

export interface IngestTap {
  readonly totals: IngestTotals;
  close(): Promise<void>;
}

/** Where a batch's header names its run: protocol/batch-codec.ts. */
const At = { logId: 7, firstSequence: 23, count: 29 } as const;

/** @param natsUrl of a user who may hear everything */
export async function openIngestTap(natsUrl: string): Promise<IngestTap> {
  const nats = await connect({ ...natsAddress(natsUrl), name: 'ingest tap', maxReconnectAttempts: -1 });
  const seen = new Map<string, RangeSet>();
  const totals = { bytes: 0, messages: 0, resentBytes: 0 };
  nats.subscribe('ingest.>', {
    callback(error, message) {
      if (error) return;
      const bytes = Buffer.from(message.data.buffer, message.data.byteOffset, message.data.byteLength);
      const log = `${message.subject.split('.').slice(3).join('.')} ${bytes.toString('hex', At.logId, At.firstSequence)}`;
      const from = bytes.readUIntLE(At.firstSequence, 6);
      const run = RangeSet.of(from, from + bytes.readUInt32LE(At.count));
      // A heartbeat: it has no sequences.
      if (run.size === 0) return;
      const known = seen.get(log) ?? RangeSet.empty;
      const fresh = run.difference(known);
      seen.set(log, known.union(run));
      totals.bytes += bytes.length;
      totals.messages += fresh.size;
      totals.resentBytes += bytes.length * (1 - fresh.size / run.size);
    },
  });
  await nats.flush();
  return { totals, close: () => nats.close() };
}
