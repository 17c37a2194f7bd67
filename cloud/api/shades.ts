/**
 * Where a chart of a site's data must not be read as if all had come live and whole: stretches of time in which messages
 * came late, are thinned or lost (`holdfast.ledger_minute`), or are missing, because a gateway still holds them.
 */
import type { Pool } from 'pg';
import type { GatewayPresence } from '../gateway-memory.ts';

export interface Shade {
  /** Milliseconds since 1970; `to` is one past the end. */
  readonly from: number;
  readonly to: number;
  readonly what: 'late' | 'thinned' | 'lost' | 'missing';
}

/** Newest of them, when a chart has more (F). */
export const SHADES_MAX = 2000;
/** What is on its way is not missing. */
const ON_ITS_WAY_MS = 10_000;

export interface HeardGateway extends GatewayPresence {
  /** When it was last heard, if it is silent; null while it is up. */
  readonly silentSince: number | null;
}

/**
 * What the site's gateways still hold, pure: of each from its oldest unsettled message to its last hello, and from the
 * last hello of the site on, when no gateway that takes messages is heard any more.
 * @returns stretches within [from, to), ascending and apart
 */
export function missingShades(
  gateways: readonly HeardGateway[],
  range: { readonly from: number; readonly to: number },
  nowMs: number,
): Shade[] {
  const stretches: { from: number; to: number }[] = [];
  for (const { report, lastHelloAt } of gateways) {
    const oldest = report.oldestUnsettledAt;
    if (oldest !== null && lastHelloAt - oldest > ON_ITS_WAY_MS)
      stretches.push({ from: oldest, to: lastHelloAt });
  }
  const taking = gateways.filter(({ report }) => report.role === 'active');
  if (taking.length > 0 && taking.every(({ silentSince }) => silentSince !== null)) {
    stretches.push({ from: Math.max(...taking.map(({ lastHelloAt }) => lastHelloAt)), to: nowMs });
  }
  const clipped = stretches
    .map(({ from, to }) => ({ from: Math.max(from, range.from), to: Math.min(to, range.to) }))
    .filter(({ from, to }) => from < to)
    .sort((a, b) => a.from - b.from);
  const apart: { from: number; to: number; what: 'missing' }[] = [];
  for (const { from, to } of clipped) {
    const last = apart.at(-1);
    if (last && from <= last.to) last.to = Math.max(last.to, to);
    else apart.push({ from, to, what: 'missing' });
  }
  return apart;
}

/** Late, thinned and lost minutes of the site that touch the range, those that follow one another joined. */
export async function ledgerShades(
  pool: Pool,
  site: string,
  range: { readonly from: number; readonly to: number },
): Promise<Shade[]> {
  const { rows } = await pool.query<Shade>(
    `with minutes as (
       select distinct m.status, m.minute
         from holdfast.gateway_log l join holdfast.ledger_minute m on m.log = l.id
        where l.site = $1 and m.status in ('late', 'thinned', 'lost')
          and m.minute > to_timestamp($2 / 1000.0) - interval '1 minute' and m.minute < to_timestamp($3 / 1000.0)),
     islands as (
       select status, minute,
              minute - row_number() over (partition by status order by minute) * interval '1 minute' as island
         from minutes)
     select extract(epoch from min(minute))::float8 * 1000 as "from",
            extract(epoch from max(minute))::float8 * 1000 + 60000 as "to", status as what
       from islands group by status, island
      order by "from" desc, what limit $4`,
    [site, range.from, range.to, SHADES_MAX],
  );
  return rows.reverse();
}
