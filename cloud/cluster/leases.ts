/**
 * Leases and epochs in Postgres. A heartbeat keeps a node's lease; a claim raises the epoch of a partition, and whoever held
 * it before is fenced from then on: in Postgres by `settle`, in Redis by the fence, on dashboards by the epoch (D).
 *
 * Leases only decide when somebody else may try; what keeps two writers apart are the epochs.
 */
import type { Pool } from 'pg';
import type { SiteId } from '../../protocol/ids.ts';
import { type Lane, partitionOf } from '../../protocol/subjects.ts';
import type { StreamCursor } from '../partition.ts';
import type { ClusterView } from './plan.ts';

export interface Claim {
  readonly id: number;
  readonly epoch: number;
  readonly cursors: ReadonlyMap<string, StreamCursor>;
  /** Sites of the partition that history knows. */
  readonly sites: readonly SiteId[];
}

export interface LeaseHolder {
  /** Of this run of the node. */
  readonly id: string;
  readonly name: string;
  readonly actors: boolean;
}

/** A node without a heartbeat for that long is dead, by the clock of Postgres. */
export const LEASE_MS = 2000;

/** Keeps the lease for another while. @returns who else is there, and who owns what */
export async function beat(pool: Pool, holder: LeaseHolder, draining: boolean): Promise<ClusterView> {
  const { rows } = await pool.query<{ view: ClusterView }>(
    'select holdfast.beat($1, $2, $3, $4, $5) as view',
    [holder.id, holder.name, holder.actors, draining, LEASE_MS],
  );
  return rows[0]!.view;
}

/** Takes those of `ids` that are free. */
export async function claimPartitions(
  pool: Pool,
  holder: string,
  ids: readonly number[],
  partitions: number,
): Promise<Claim[]> {
  if (ids.length === 0) return [];
  const claimed = await pool.query<{ partition: number; epoch: string }>(
    'select partition, epoch from holdfast.claim($1, $2::int[], $3)',
    [holder, ids, LEASE_MS],
  );
  // After the claim: an earlier owner can no longer move a cursor.
  const stored = await pool.query<{ partition: number; lane: Lane; created: string; sequence: string }>(
    `select partition, lane, stream_created as created, stream_sequence as sequence
       from holdfast.stream_cursor where partition = any ($1)`,
    [ids],
  );
  const known = await pool.query<{ site: SiteId }>('select distinct site from holdfast.gateway_log');
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

/** Gives a partition back, so that its next owner need not wait for the lease to end. */
export async function releasePartition(pool: Pool, id: number, epoch: number): Promise<void> {
  await pool.query('update holdfast.partition set owner = null where id = $1 and epoch = $2', [id, epoch]);
}

/** @returns those of the held partitions that are somebody else's by now */
export async function lostPartitions(pool: Pool, held: ReadonlyMap<number, number>): Promise<number[]> {
  const { rows } = await pool.query<{ id: number }>(
    `select mine.id from unnest($1::int[], $2::bigint[]) as mine (id, epoch)
       left join holdfast.partition p on p.id = mine.id
      where p.epoch is distinct from mine.epoch`,
    [[...held.keys()], [...held.values()]],
  );
  return rows.map(row => row.id);
}

export async function leave(pool: Pool, holder: string): Promise<void> {
  await pool.query('delete from holdfast.node where id = $1', [holder]);
}
