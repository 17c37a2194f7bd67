/** Incidents and quarantined messages, newest first. */
import type { Pool } from 'pg';

export async function incidents(
  pool: Pool,
  query: { site?: string | undefined; device?: string | undefined; limit: number },
): Promise<unknown> {
  const { rows } = await pool.query(
    `select id, rule, severity, site, device, metric, threshold,
            extract(epoch from opened_at)::float8 * 1000 as "openedAt", opened_value as "openedValue",
            extract(epoch from cleared_at)::float8 * 1000 as "clearedAt", cleared_value as "clearedValue"
       from holdfast.incident
      where ($1::text is null or site = $1) and ($2::text is null or device = $2)
      order by opened_at desc, id limit $3`,
    [query.site ?? null, query.device ?? null, query.limit],
  );
  return { incidents: rows };
}

/** The first bytes of each payload as text; what is not UTF-8 shows as U+FFFD. */
export async function quarantined(
  pool: Pool,
  query: { site?: string | undefined; limit: number },
): Promise<unknown> {
  const { rows } = await pool.query<{ payload: Buffer; total: string } & Record<string, unknown>>(
    `select site, gateway, sequence::float8, extract(epoch from received_at)::float8 * 1000 as "receivedAt",
            reason, topic, payload_bytes as "payloadBytes", substring(payload for 1024) as payload
       from holdfast.quarantine
      where $1::text is null or site = $1
      order by id desc limit $2`,
    [query.site ?? null, query.limit],
  );
  const count = await pool.query<{ total: number }>(
    'select count(*)::int as total from holdfast.quarantine where $1::text is null or site = $1',
    [query.site ?? null],
  );
  return {
    quarantined: rows.map(row => ({ ...row, payload: row.payload.toString('utf8') })),
    total: count.rows[0]!.total,
  };
}
