/**
 * Who owns which partition. A claim raises the epoch; whoever held the partition before is fenced from then on, in
 * Postgres by `settle`, in Redis by the script (D). One node owns all partitions: the last one started.
 */
import type { Pool } from 'pg';
import type { SiteId } from '../protocol/ids.ts';
import { type Lane, partitionOf } from '../protocol/subjects.ts';
import type { StreamCursor } from './partition.ts';

export interface Claim {
  readonly id: number;
  readonly epoch: number;
  readonly cursors: ReadonlyMap<string, StreamCursor>;
  /** Sites of the partition that have twins. */
  readonly sites: readonly SiteId[];
}

export async function claimPartitions(pool: Pool, node: string, partitions: number): Promise<Claim[]> {
  const ids = Array.from({ length: partitions }, (_, id) => id);
  await pool.query('insert into holdfast.partition (id) select unnest($1::int[]) on conflict do nothing', [
    ids,
  ]);
  const claimed = await pool.query<{ partition: number; epoch: string }>(
    'select partition, epoch from holdfast.claim($1, $2::int[])',
    [node, ids],
  );
  // After the claim: an earlier owner can no longer move a cursor.
  const stored = await pool.query<{ partition: number; lane: Lane; created: string; sequence: string }>(
    `select partition, lane, stream_created as created, stream_sequence as sequence
       from holdfast.stream_cursor where partition = any ($1)`,
    [ids],
  );
  const known = await pool.query<{ site: SiteId }>('select distinct site from holdfast.twin');
  const sites = Map.groupBy(known.rows, row => partitionOf(row.site, partitions));
  const cursors = Map.groupBy(stored.rows, row => row.partition);
  return claimed.rows.map(({ partition, epoch }) => ({
    id: partition,
    epoch: Number(epoch),
    cursors: new Map(
      (cursors.get(partition) ?? []).map(row => [
        row.lane,
        { created: row.created, sequence: Number(row.sequence) },
      ]),
    ),
    sites: (sites.get(partition) ?? []).map(row => row.site),
  }));
}

/** @returns a partition that is not ours any more, or null when every claim still holds. */
export async function lostPartition(pool: Pool, claims: readonly Claim[]): Promise<number | null> {
  const { rows } = await pool.query<{ id: number }>(
    `select p.id from holdfast.partition p
       join unnest($1::int[], $2::bigint[]) as mine (id, epoch) on mine.id = p.id
      where p.epoch <> mine.epoch limit 1`,
    [claims.map(claim => claim.id), claims.map(claim => claim.epoch)],
  );
  return rows[0]?.id ?? null;
}
