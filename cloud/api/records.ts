/** Quarantined messages, newest first. */
import type { Pool } from 'pg';

/** Those that were not replayed; the first bytes of each payload as text; what is not UTF-8 shows as U+FFFD. */
export async function quarantined(
  pool: Pool,
  query: { site?: string | undefined; limit: number; before?: number | undefined },
): Promise<unknown> {
  const { rows } = await pool.query<{ payload: Buffer; total: string } & Record<string, unknown>>(
    `select id::float8 as id, site, gateway, sequence::float8, extract(epoch from received_at)::float8 * 1000 as "receivedAt",
            reason, topic, payload_bytes as "payloadBytes", substring(payload for 1024) as payload
       from holdfast.quarantine
      where replayed_at is null and ($1::text is null or site = $1) and ($3::bigint is null or id < $3)
      order by id desc limit $2`,
    [query.site ?? null, query.limit, query.before ?? null],
  );
  const count = await pool.query<{ total: number }>(
    'select count(*)::int as total from holdfast.quarantine where replayed_at is null and ($1::text is null or site = $1)',
    [query.site ?? null],
  );
  return {
    quarantined: rows.map(row => ({ ...row, payload: row.payload.toString('utf8') })),
    total: count.rows[0]!.total,
  };
}
