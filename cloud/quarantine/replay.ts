/**
 * Quarantined messages into history after all, once and with their original times.
 *
 *   read again ─▶ registry ─▶ one transaction [entry locked and marked, rows, ledger: quarantined → late] ─▶ twins
 *
 * The range is in the ledger since it was quarantined, so nothing but this writes its rows: the entry's own mark decides
 * who does, and a second replay finds it set (B). The twins learn of it by the stream: the same message as a batch in the backfill
 * lane, of which history takes nothing, for its sequence is settled, and each twin what is newer than what it has (C). What
 * they have yet to be told stands in the entry until the stream has it (R).
 */
import { pipeline } from 'node:stream/promises';
import { DatabaseError, type Pool, type PoolClient } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import type { Mapping } from '../../edge-gateway/mapping/route.ts';
import { kinds, type ReadingsBatch } from '../../protocol/batch.ts';
import { encodeBatchWithin } from '../../protocol/batch-codec.ts';
import { boundClock, correctedAt, forEachRow } from '../../protocol/batch-rows.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import { COPY_MESSAGES, type CopyRow, copyBuffer, LATEST_CLAIM_MS } from '../history/copy-rows.ts';
import type { Dictionary } from '../history/dictionary.ts';
import { committedWhenDone } from '../in-transaction.ts';
import { applyRegistry } from '../registry/apply.ts';
import type { SiteRegistry } from '../registry/model.ts';
import { type QuarantinedMessage, readEntry } from './entry.ts';

export interface ReplayContext {
  readonly pool: Pool;
  readonly dictionary: Pick<Dictionary, 'devices' | 'shapes' | 'ensureDays'>;
  readonly registry: (site: string) => SiteRegistry | null;
  readonly retentionMs: number;
  readonly now: () => number;
}

export type ReplayOutcome =
  /** `expired`: what of it was older than the retention time, and is not stored. */
  | { readonly outcome: 'replayed'; readonly rows: number; readonly expired: number }
  | { readonly outcome: 'already' }
  /** It stays in quarantine, and why. */
  | { readonly outcome: 'kept'; readonly reason: string };

const DAY_MS = 86_400_000;

/** Rejects while PostgreSQL does not answer: nothing of the message was changed then. */
export async function replayMessage(
  entry: QuarantinedMessage,
  mapping: Mapping,
  context: ReplayContext,
): Promise<ReplayOutcome> {
  if (entry.replayedAt !== null) return { outcome: 'already' };
  const read = readEntry(entry, mapping);
  if (!read.ok) return { outcome: 'kept', reason: read.reason };
  const { batch, isApplied } = read;
  boundClock(batch, context.now());
  const applied = isApplied ? batch : applyRegistry(batch, context.registry(entry.site));
  const refusal = applied.setAside[0];
  if (refusal) return { outcome: 'kept', reason: refusal.reason };
  try {
    const { rows, expired } = await rowsOf(entry, applied, context);
    const twinBatch = isApplied || applied.rows.length === 0 ? null : encodeBatchWithin(batch);
    return await commit(entry, applied, rows, expired, twinBatch, context.pool);
  } catch (error) {
    // Classes 22 and 23: PostgreSQL does not take these values, now as then.
    if (!(error instanceof DatabaseError) || !/^2[23]/.test(error.code ?? '')) throw error;
    return { outcome: 'kept', reason: `refused by PostgreSQL: ${error.message}` };
  }
}

async function rowsOf(
  entry: QuarantinedMessage,
  batch: ReadingsBatch,
  { dictionary, retentionMs, now }: ReplayContext,
): Promise<{ rows: CopyRow[]; expired: number }> {
  const devices = await dictionary.devices(entry.site, batch.devices);
  const shapes = await dictionary.shapes(batch.metrics, batch.shapes);
  const oldest = now() - retentionMs;
  const days = new Set<string>();
  const rows: CopyRow[] = [];
  let expired = 0;
  const columns = batch.rows;
  forEachRow(batch, ({ row, values }) => {
    const claimed = columns.at[row]!;
    const at = correctedAt(claimed, columns.receivedAt[row]!);
    if (!(at >= oldest)) {
      expired++;
      return;
    }
    days.add(new Date(Math.floor(at / DAY_MS) * DAY_MS).toISOString().slice(0, 10));
    const shape = shapes[columns.shape[row]!]!;
    rows.push({
      at,
      claimedAt: claimed === at ? null : Math.min(claimed, LATEST_CLAIM_MS),
      sequence: batch.firstSequence + columns.sequenceOffset[row]!,
      log: entry.log!,
      device: devices[columns.device[row]!]!,
      shape: shape.id,
      element: columns.element[row]!,
      kind: Math.min(columns.kind[row]!, kinds.length - 1),
      values,
      numbers: shape.numbers,
      texts: shape.texts,
    });
  });
  await dictionary.ensureDays(days);
  return { rows, expired };
}

async function commit(
  entry: QuarantinedMessage,
  batch: ReadingsBatch,
  rows: readonly CopyRow[],
  expired: number,
  twinBatch: Uint8Array | null,
  pool: Pool,
): Promise<ReplayOutcome> {
  const committed = await committedWhenDone(pool, async client => {
    const { rowCount } = await client.query(
      `update holdfast.quarantine set replayed_at = now(), twin_batch = $2 where id = $1 and replayed_at is null`,
      [entry.id, twinBatch],
    );
    if (rowCount !== 1) return { outcome: 'already' as const };
    const quarantined = await takeMarks(client, entry, batch);
    const fresh = await withoutStored(
      client,
      rows.filter(row => row.sequence === entry.sequence || quarantined.contains(row.sequence)),
    );
    if (fresh.length > 0) await copyIn(client, fresh);
    await moveCounts(client, entry, batch, quarantined.size, expired > 0 ? 'expired' : 'late');
    return { outcome: 'done' as const, rows: fresh.length };
  });
  return committed.outcome === 'already' ? committed : { outcome: 'replayed', rows: committed.rows, expired };
}

/** @returns the sequences of the batch that the ledger had as quarantined, and has no more */
async function takeMarks(
  client: PoolClient,
  { log }: QuarantinedMessage,
  { firstSequence, count }: ReadingsBatch,
): Promise<RangeSet> {
  const { rows } = await client.query<{ first: number; past: number }>(
    `delete from holdfast.ledger_mark
      where log = $1 and status = 'quarantined' and range <@ int8range($2, $3)
     returning lower(range)::float8 as first, upper(range)::float8 as past`,
    [log, firstSequence, firstSequence + count],
  );
  return rows.reduce((set, { first, past }) => set.add(first, past), RangeSet.empty);
}

/** Of a message with several devices those that were not refused are in history already. */
async function withoutStored(client: PoolClient, rows: readonly CopyRow[]): Promise<CopyRow[]> {
  if (rows.length === 0) return [];
  const { rows: stored } = await client.query<{ place: number }>(
    `select w.place::int from unnest($1::int[], $2::float8[], $3::int[], $4::bigint[], $5::int[])
                                with ordinality as w (device, at, log, sequence, element, place)
      where exists (select from holdfast.message m
                     where m.device = w.device and m.log = w.log and m.sequence = w.sequence and m.element = w.element
                       and m.at between to_timestamp((w.at - 1) / 1000) and to_timestamp((w.at + 1) / 1000))
         or exists (select from holdfast.chunk c, holdfast.chunk_messages(c) m
                     where c.device = w.device and c.log = w.log and m.sequence = w.sequence and m.element = w.element
                       and c.at between date_trunc('day', to_timestamp((w.at - 1) / 1000), 'UTC') and to_timestamp((w.at + 1) / 1000)
                       and c.until >= to_timestamp((w.at - 1) / 1000))`,
    [
      rows.map(row => row.device),
      rows.map(row => row.at),
      rows.map(row => row.log),
      rows.map(row => row.sequence),
      rows.map(row => row.element),
    ],
  );
  const there = new Set(stored.map(({ place }) => place - 1));
  return rows.filter((_, index) => !there.has(index));
}

async function copyIn(client: PoolClient, rows: readonly CopyRow[]): Promise<void> {
  const buffer = copyBuffer(1024);
  for (const row of rows) buffer.add(row);
  const copy = client.query(copyFrom(COPY_MESSAGES));
  copy.on('error', () => {});
  await pipeline([buffer.finish()], copy);
}

/** A message counts once, by what became of it: these came late, after all. */
async function moveCounts(
  client: PoolClient,
  { log, receivedAt }: QuarantinedMessage,
  batch: ReadingsBatch,
  messages: number,
  to: 'late' | 'expired',
): Promise<void> {
  if (messages === 0) return;
  await client.query(
    `update holdfast.gateway_log set quarantined = quarantined - $2, ${to} = ${to} + $2 where id = $1`,
    [log, messages],
  );
  const minute = Math.floor((batch.rows.receivedAt[0] ?? receivedAt) / 60_000);
  const { rowCount } = await client.query(
    `update holdfast.ledger_minute set messages = messages - $3
      where log = $1 and minute = to_timestamp($2 * 60.0) and status = 'quarantined' and messages >= $3`,
    [log, minute, messages],
  );
  if (rowCount !== 1) return;
  await client.query(
    `insert into holdfast.ledger_minute as m (log, minute, status, messages) values ($1, to_timestamp($2 * 60.0), $3, $4)
     on conflict (log, minute, status) do update set messages = m.messages + excluded.messages`,
    [log, minute, to, messages],
  );
  await client.query(
    `delete from holdfast.ledger_minute
      where log = $1 and minute = to_timestamp($2 * 60.0) and status = 'quarantined' and messages = 0`,
    [log, minute],
  );
}
