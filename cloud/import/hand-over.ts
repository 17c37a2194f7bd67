/**
 * Hands the batches of one file to history, and stays until history has them.
 *
 *   missing ──publish──▶ pending ──in the ledger──▶ done
 *      ▲                    │ history has passed it unsettled, or the stream is another one
 *      └────────────────────┘
 *
 * They travel in the backfill lane, as from their gateway, so live data never waits for them. What history has is not
 * sent; what gets there twice all the same is dropped by the ledger (B). Bytes that history has not decided on are
 * bounded (F).
 */
import type { LogId } from '../../protocol/ids.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import { ingestSubject, partitionOf } from '../../protocol/subjects.ts';
import type { Ingest } from './ingest.ts';
import type { Ledger } from './ledger.ts';
import type { ImportBatch, OpenedExport } from './open-export.ts';
import { ImportStopped, type Patience } from './patience.ts';

export interface HandedOver {
  readonly messages: number;
  /** Of them, what history did not have when the import began. */
  readonly fresh: number;
  readonly already: number;
}

interface Pending {
  readonly batch: ImportBatch;
  /** The stream it was published to, as far as was known before. */
  readonly created: string;
  readonly sequence: number;
}

type Settled = ReadonlyMap<LogId, RangeSet>;

const PENDING_BYTES_MAX = 8 * 1024 * 1024;
/** Rounds in which history has read everything and settled nothing. */
const VAIN_ROUNDS_MAX = 3;

/** Rejects with {@link ImportStopped}. */
export async function handOver(
  opened: OpenedExport,
  o: { ledger: Ledger; ingest: Ingest; partitions: number; patience: Patience },
): Promise<HandedOver> {
  const { site, gateway, batches, ranges } = opened;
  const { ledger, ingest, patience } = o;
  const logs = [...ranges.keys()];
  const partition = partitionOf(site, o.partitions);
  const subject = ingestSubject(partition, 'backfill', site, gateway);
  let settled: Settled = await askSettled();
  let pending: Pending[] = [];

  const messages = sizeOf(ranges);
  const already = sizeOf(new Map(logs.map(log => [log, ranges.get(log)!.intersection(of(settled, log))])));

  let missing = batches.filter(isMissing);
  for (let vainRounds = 0; missing.length > 0; missing = batches.filter(isMissing)) {
    const before = missing.length;
    for (const batch of missing) {
      await publish(batch);
      while (pendingBytes() > PENDING_BYTES_MAX) await poll();
    }
    while (pending.length > 0) await poll();
    vainRounds = batches.filter(isMissing).length < before ? 0 : vainRounds + 1;
    if (vainRounds === VAIN_ROUNDS_MAX) {
      throw new ImportStopped(
        `history reads the batches of ${site}/${gateway} and does not take ${before} of them; the cloud node's log says why`,
      );
    }
  }
  return { messages, fresh: messages - already, already };

  function isMissing({ logId, from, to }: ImportBatch): boolean {
    return !of(settled, logId).covers(from, to);
  }

  function askSettled(): Promise<Settled> {
    return patience.insist('PostgreSQL', () => ledger.settled(site, gateway, logs));
  }

  function pendingBytes(): number {
    return pending.reduce((sum, { batch }) => sum + batch.bytes.length, 0);
  }

  async function publish(batch: ImportBatch): Promise<void> {
    const created = await patience.insist('NATS', ingest.created);
    const sequence = await patience.insist('NATS', () => ingest.publish(subject, batch.bytes));
    pending.push({ batch, created, sequence });
    patience.news();
  }

  /** Looks what has become of the pending ones; waits a little when nothing has. */
  async function poll(): Promise<void> {
    // In this order: what the cursor has passed is in the ledger by then, or will never be.
    const handled = await patience.insist('PostgreSQL', () => ledger.handled(partition));
    settled = await askSettled();
    const created = await patience.insist('NATS', ingest.created);
    const left = pending.filter(
      entry =>
        isMissing(entry.batch) &&
        entry.created === created &&
        !(handled?.created === created && handled.sequence >= entry.sequence),
    );
    if (left.length < pending.length) patience.news();
    else await patience.idle(`history has not settled ${left.length} batches of ${site}/${gateway} yet`);
    pending = left;
  }
}

const of = (settled: Settled, log: LogId): RangeSet => settled.get(log) ?? RangeSet.empty;

const sizeOf = (sets: ReadonlyMap<LogId, RangeSet>): number =>
  [...sets.values()].reduce((sum, set) => sum + set.size, 0);
