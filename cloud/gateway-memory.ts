/**
 * What gateways said last, kept in PostgreSQL: their report, and where each of their logs ends. So what is missing stays
 * visible, with the time its gateway was last heard, when the box is dead or the cloud node is a new one (R).
 *
 *   hello ─▶ heard (memory, bounded) ─▶ flush, every few seconds, one transaction for all gateways
 *
 * A flush that fails or a node that dies loses a few seconds of it: the next hello says the same again.
 */
import type { Pool } from 'pg';
import { GatewayReport } from '../protocol/handshake.ts';
import { type GatewayId, isGatewayId, isSiteId, type SiteId } from '../protocol/ids.ts';

export interface GatewayPresence {
  readonly site: SiteId;
  readonly gateway: GatewayId;
  /** Milliseconds since 1970, by this side's clock. */
  readonly lastHelloAt: number;
  readonly report: GatewayReport;
}

export interface GatewayMemory {
  /** @param ends one past the newest message, per log */
  heard(presence: GatewayPresence, ends: Readonly<Record<string, number>>): void;
  flush(): Promise<void>;
}

/** Logs that wait for the next flush; further ones wait for their gateway's next hello (F). */
const LOGS_WAITING_MAX = 100_000;

/** The gateways that were heard last, oldest first. A report that an earlier version wrote otherwise is left out. */
export async function loadGateways(pool: Pool, limit: number): Promise<GatewayPresence[]> {
  const { rows } = await pool.query<{ site: string; name: string; at: number; report: unknown }>(
    `select site, name, extract(epoch from last_hello_at)::float8 * 1000 as at, report
       from holdfast.gateway order by last_hello_at desc limit $1`,
    [limit],
  );
  return rows.reverse().flatMap(({ site, name, at, report }) => {
    const parsed = GatewayReport.safeParse(report);
    if (!parsed.success || !isSiteId(site) || !isGatewayId(name)) return [];
    return [{ site, gateway: name, lastHelloAt: Math.round(at), report: parsed.data }];
  });
}

export function openGatewayMemory(pool: Pool): GatewayMemory {
  let waiting = new Map<string, { presence: GatewayPresence; ends: Readonly<Record<string, number>> }>();
  let logsWaiting = 0;

  async function write(entries: readonly { presence: GatewayPresence; ends: object }[]): Promise<void> {
    const presences = entries.map(({ presence }) => presence);
    await pool.query(
      `insert into holdfast.gateway as g (site, name, last_hello_at, report)
       select site, name, to_timestamp(at / 1000.0), report::jsonb
         from unnest($1::text[], $2::text[], $3::float8[], $4::text[]) as r (site, name, at, report)
        order by site, name
       on conflict (site, name) do update set last_hello_at = excluded.last_hello_at, report = excluded.report
        where g.last_hello_at < excluded.last_hello_at`,
      [
        presences.map(({ site }) => site),
        presences.map(({ gateway }) => gateway),
        presences.map(({ lastHelloAt }) => lastHelloAt),
        presences.map(({ report }) => JSON.stringify(report)),
      ],
    );
    // A log in which nothing is misses nothing; every start of a gateway makes one.
    const logs = entries.flatMap(({ presence, ends }) =>
      Object.entries(ends)
        .filter(([, end]) => end > 1)
        .map(([logId, end]) => ({ ...presence, logId, end })),
    );
    if (logs.length === 0) return;
    const columns = [
      logs.map(({ site }) => site),
      logs.map(({ gateway }) => gateway),
      logs.map(({ logId }) => logId),
    ];
    await pool.query(
      `insert into holdfast.gateway_log (site, gateway, log_id)
       select site, gateway, log_id from unnest($1::text[], $2::text[], $3::text[]) as r (site, gateway, log_id)
        where not exists (select from holdfast.gateway_log l
                           where (l.site, l.gateway, l.log_id) = (r.site, r.gateway, r.log_id))
       on conflict do nothing`,
      columns,
    );
    // An end never goes back: what a card that was restored from an earlier copy has no more stays visible as missing.
    // A row that history is settling right now is left for the next time: neither ever waits for the other.
    await pool.query(
      `with heard as (
         select l.id, r.ends, r.at
           from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::float8[]) as r (site, gateway, log_id, ends, at)
           join holdfast.gateway_log l using (site, gateway, log_id)
            for update of l skip locked)
       update holdfast.gateway_log l set ends = greatest(l.ends, heard.ends), seen_at = to_timestamp(heard.at / 1000.0)
         from heard where l.id = heard.id`,
      [...columns, logs.map(({ end }) => end), logs.map(({ lastHelloAt }) => lastHelloAt)],
    );
  }

  return {
    heard(presence, ends) {
      const key = `${presence.site}/${presence.gateway}`;
      const before = waiting.get(key);
      const logs = Object.keys(ends).length - Object.keys(before?.ends ?? {}).length;
      if (logsWaiting + logs > LOGS_WAITING_MAX) return;
      logsWaiting += logs;
      waiting.set(key, { presence, ends });
    },
    async flush() {
      if (waiting.size === 0) return;
      const entries = [...waiting.values()];
      waiting = new Map();
      logsWaiting = 0;
      await write(entries);
    },
  };
}
