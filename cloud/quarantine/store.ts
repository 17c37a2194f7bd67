/** Quarantined messages in PostgreSQL: one operation per function. */
import type { Pool } from 'pg';
import type { QuarantinedMessage } from './entry.ts';

/** Which entries; with neither, all of them. */
export interface Selection {
  readonly ids?: readonly number[] | undefined;
  readonly site?: string | undefined;
}

/** The oldest of the selection that were not replayed and have a larger id than `after`. Ids that are not there are left out. */
export async function selectEntries(
  pool: Pool,
  { ids, site }: Selection,
  page: { readonly after: number; readonly limit: number },
): Promise<QuarantinedMessage[]> {
  const { rows } = await pool.query<QuarantinedMessage>(
    `${SELECT} where q.replayed_at is null and q.id > $1 and ($2::bigint[] is null or q.id = any ($2))
        and ($3::text is null or q.site = $3)
      order by q.id limit $4`,
    [page.after, ids ?? null, site ?? null, page.limit],
  );
  return rows;
}

export async function findEntry(pool: Pool, id: number): Promise<QuarantinedMessage | null> {
  const { rows } = await pool.query<QuarantinedMessage>(`${SELECT} where q.id = $1`, [id]);
  return rows[0] ?? null;
}

/** Forgets what was kept of them; the ledger goes on saying that they were quarantined. @returns how many */
export async function discardEntries(pool: Pool, { ids, site }: Selection): Promise<number> {
  const { rowCount } = await pool.query(
    `delete from holdfast.quarantine
      where replayed_at is null and ($1::bigint[] is null or id = any ($1)) and ($2::text is null or site = $2)`,
    [ids ?? null, site ?? null],
  );
  return rowCount ?? 0;
}

const SELECT = `select q.id::float8 as id, q.site, q.gateway, q.log, l.log_id as "logId", q.sequence::float8 as sequence,
       extract(epoch from q.received_at)::float8 * 1000 as "receivedAt", q.reason, q.topic,
       q.payload_bytes as "payloadBytes", q.payload, extract(epoch from q.replayed_at)::float8 * 1000 as "replayedAt"
  from holdfast.quarantine q left join holdfast.gateway_log l on l.id = q.log`;
