/**
 * What gateways said last, kept in PostgreSQL: their report, and where each of their logs ends. So what is missing stays
 * visible, with the time its gateway was last heard, when the box is dead or the cloud node is a new one (R).
 *
 *   hello ─▶ heard (memory, bounded) ─▶ flush, every few seconds, for all gateways at once
 *                 ▲                       │ PostgreSQL refuses a value: one by one, and who is to blame is left out (H)
 *                 └── unless newer came ──┘ PostgreSQL is away: again the next time
 *
 * A node that dies loses a few seconds of it: the next hello says the same again.
 */
import type { Pool } from 'pg';
import { GatewayReport } from '../protocol/handshake.ts';
import { type GatewayId, isGatewayId, isSiteId, type SiteId } from '../protocol/ids.ts';
import { outcomeOf } from './history/commit.ts';

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
  /** Rejects when PostgreSQL is away; what it did not take waits for the next time. */
  flush(): Promise<void>;
}

interface Entry {
  readonly presence: GatewayPresence;
  readonly ends: Readonly<Record<string, number>>;
}

/** Gateways and logs that wait for the next flush; further ones wait for their gateway's next hello (F). */
const WAITING_MAX = 100_000;

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

/** @param onRefused PostgreSQL takes nothing of this gateway's last word: it is dropped */
export function openGatewayMemory(
  pool: Pool,
  onRefused: (presence: GatewayPresence, reason: string) => void = () => {},
): GatewayMemory {
  let waiting = new Map<string, Entry>();
  let weightWaiting = 0;

  async function write(entries: readonly Entry[]): Promise<void> {
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

  /** @throws what PostgreSQL says when it is not this gateway's fault */
  async function writeAlone(entry: Entry): Promise<void> {
    try {
      await write([entry]);
    } catch (error) {
      const outcome = outcomeOf(error as Error);
      if (outcome.outcome !== 'refused') throw error;
      onRefused(entry.presence, outcome.reason);
    }
  }

  function put(entry: Entry): void {
    const key = keyOf(entry);
    const before = waiting.get(key);
    const weight = weightOf(entry) - (before ? weightOf(before) : 0);
    if (weightWaiting + weight > WAITING_MAX) return;
    weightWaiting += weight;
    waiting.set(key, entry);
  }

  return {
    heard: (presence, ends) => put({ presence, ends }),
    async flush() {
      if (waiting.size === 0) return;
      const left = [...waiting.values()];
      waiting = new Map();
      weightWaiting = 0;
      try {
        try {
          await write(left);
        } catch (error) {
          if (outcomeOf(error as Error).outcome !== 'refused') throw error;
          for (; left.length > 0; left.shift()) await writeAlone(left[0]!);
        }
      } catch (error) {
        for (const entry of left) if (!waiting.has(keyOf(entry))) put(entry);
        throw error;
      }
    },
  };
}

const keyOf = ({ presence }: Entry): string => `${presence.site}/${presence.gateway}`;
const weightOf = ({ ends }: Entry): number => 1 + Object.keys(ends).length;
