/**
 * The ledger of one site, as numbers of messages: what of each log is settled and how, and what is missing. A log whose
 * gateway has not been heard for years is in it too: what its box still held stays visible as missing.
 */
import type { Pool } from 'pg';
import { RangeSet } from '../../protocol/range-set.ts';
import type { GatewayPresence } from '../gateway-memory.ts';

/** All in messages. settled = live + late + thinned + lost + quarantined + expired. */
export interface LedgerCounts {
  readonly settled: number;
  readonly live: number;
  readonly late: number;
  readonly thinned: number;
  readonly lost: number;
  readonly quarantined: number;
  readonly expired: number;
  /** On the gateway's disk, as far as it has said, and not settled. */
  readonly missing: number;
}

export interface LogCompleteness extends LedgerCounts {
  readonly logId: string;
  /** One past the newest message known of. */
  readonly ends: number;
  /** When its gateway last named it, milliseconds since 1970; null when it never has. */
  readonly lastSeenAt: number | null;
  /** The first of the missing ranges, such as `[5,9),[12,13)`; ends in `…` when there are more. */
  readonly missingRanges: string;
}

export interface GatewayCompleteness {
  readonly gateway: string;
  /** Milliseconds since 1970; null when no hello is known. */
  readonly lastHelloAt: number | null;
  /** Newest first. */
  readonly logs: readonly LogCompleteness[];
  /** Over all logs, whether they are listed or not. */
  readonly totals: LedgerCounts;
}

export interface SiteCompleteness {
  readonly site: string;
  readonly gateways: readonly GatewayCompleteness[];
  /** There are more logs than are listed; the totals have them all. */
  readonly truncated: boolean;
}

export const MISSING_RANGES_SHOWN = 20;

/** Ranges as text, the first of them. */
export function rangesText(set: RangeSet, shown = MISSING_RANGES_SHOWN): string {
  const text = set.ranges
    .slice(0, shown)
    .map(({ from, to }) => `[${from},${to})`)
    .join(',');
  return set.ranges.length > shown ? `${text}…` : text;
}

interface Row extends LedgerCounts {
  gateway: string;
  logId: string;
  ends: number;
  lastSeenAt: number | null;
  missingSet: string;
  listed: boolean;
}

/** @returns null when neither history nor anybody else knows the site */
export async function siteCompleteness(
  pool: Pool,
  site: string,
  present: readonly GatewayPresence[],
  logsMax: number,
): Promise<SiteCompleteness | null> {
  // The multirange of a log that is listed only in the totals stays in PostgreSQL.
  const { rows } = await pool.query<Row>(
    `with ledger as (
       select l.*, row_number() over (order by log_id collate "C" desc, id desc) <= $2 as listed,
              greatest(coalesce(ends, 1), coalesce(upper(settled), 1)) as known_end,
              (select coalesce(sum(upper(r) - lower(r)), 0) from unnest(settled) r) as size
         from holdfast.gateway_log l where site = $1),
     measured as (
       select *, int8multirange(int8range(1, known_end)) - settled as gaps from ledger)
     select gateway, log_id as "logId", known_end::float8 as ends, listed,
            extract(epoch from seen_at)::float8 * 1000 as "lastSeenAt",
            size::float8 as settled, (size - late - thinned - lost - quarantined - expired)::float8 as live,
            late::float8, thinned::float8, lost::float8, quarantined::float8, expired::float8,
            (select coalesce(sum(upper(r) - lower(r)), 0) from unnest(gaps) r)::float8 as missing,
            case when listed then gaps::text else '{}' end as "missingSet"
       from measured order by log_id collate "C" desc, id desc`,
    [site, logsMax],
  );
  const ofSite = present.filter(presence => presence.site === site);
  if (rows.length === 0 && ofSite.length === 0) return null;

  const byGateway = Map.groupBy(rows, row => row.gateway);
  for (const { gateway } of ofSite) if (!byGateway.has(gateway)) byGateway.set(gateway, []);
  return {
    site,
    gateways: [...byGateway]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([gateway, logs]) => ({
        gateway,
        lastHelloAt: lastHelloAt(
          ofSite.find(presence => presence.gateway === gateway),
          logs,
        ),
        logs: logs.filter(({ listed }) => listed).map(logOf),
        totals: totalOf(logs),
      })),
    truncated: rows.some(({ listed }) => !listed),
  };
}

function lastHelloAt(presence: GatewayPresence | undefined, logs: readonly Row[]): number | null {
  const times = logs.flatMap(({ lastSeenAt }) => lastSeenAt ?? []);
  if (presence) times.push(presence.lastHelloAt);
  return times.length > 0 ? Math.max(...times) : null;
}

const logOf = ({ gateway: _, listed: __, missingSet, ...log }: Row): LogCompleteness => ({
  ...log,
  missingRanges: rangesText(RangeSet.parse(missingSet)),
});

function totalOf(logs: readonly LedgerCounts[]): LedgerCounts {
  const sum = (field: keyof LedgerCounts) => logs.reduce((total, log) => total + log[field], 0);
  return {
    settled: sum('settled'),
    live: sum('live'),
    late: sum('late'),
    thinned: sum('thinned'),
    lost: sum('lost'),
    quarantined: sum('quarantined'),
    expired: sum('expired'),
    missing: sum('missing'),
  };
}
