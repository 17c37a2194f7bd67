/** Channels in PostgreSQL as an operator changes them: one operation per function. */
import type { Pool } from 'pg';
import { CHANNELS_MAX, type Channel, type ChannelChange, newSecret } from './channel.ts';

export async function findChannel(pool: Pool, id: string): Promise<Channel | null> {
  const { rows } = await pool.query<Channel>(
    `select id, kind, target, secret, sites, severity_min as "severityMin", enabled
       from holdfast.channel where id = $1`,
    [id],
  );
  return rows[0] ?? null;
}

/** @returns the channel and whether its secret is new; 'too-many' when there is no room for another one */
export async function putChannel(
  pool: Pool,
  id: string,
  change: ChannelChange,
): Promise<{ channel: Channel; secretIsNew: boolean } | 'too-many'> {
  const secret = change.kind === 'webhook' ? (change.secret ?? null) : null;
  const fresh = change.kind === 'webhook' ? newSecret() : null;
  const { rows } = await pool.query<Channel>(
    `insert into holdfast.channel as c (id, kind, target, secret, sites, severity_min, enabled)
     select $1, $2, $3, coalesce($4, $5), $6::text[], $7, $8
      where exists (select from holdfast.channel where id = $1) or (select count(*) from holdfast.channel) < $9
     on conflict (id) do update
        set kind = excluded.kind, target = excluded.target,
            secret = case when excluded.kind = 'webhook' then coalesce($4, c.secret, $5) end,
            sites = excluded.sites, severity_min = excluded.severity_min, enabled = excluded.enabled, changed_at = now()
     returning id, kind, target, secret, sites, severity_min as "severityMin", enabled`,
    [
      id,
      change.kind,
      change.target,
      secret,
      fresh,
      change.sites,
      change.severityMin,
      change.enabled,
      CHANNELS_MAX,
    ],
  );
  const channel = rows[0];
  return channel ? { channel, secretIsNew: fresh !== null && channel.secret === fresh } : 'too-many';
}

/** With what it has yet to be told. @returns whether it was there */
export async function deleteChannel(pool: Pool, id: string): Promise<boolean> {
  const { rowCount } = await pool.query(
    `with gone as (delete from holdfast.channel where id = $1 returning id),
          pages as (delete from holdfast.delivery d using gone where d.channel = gone.id)
     select id from gone`,
    [id],
  );
  return rowCount === 1;
}

/** Pages per channel that are pending or were given up: `{channel: {pending, failed}}`. */
export async function countPages(pool: Pool): Promise<Map<string, { pending: number; failed: number }>> {
  const { rows } = await pool.query<{ channel: string; pending: number; failed: number }>(
    `select channel, count(*) filter (where state = 'pending')::int as pending,
            count(*) filter (where state = 'failed')::int as failed
       from holdfast.delivery where state <> 'delivered' group by channel`,
  );
  return new Map(rows.map(({ channel, pending, failed }) => [channel, { pending, failed }]));
}
