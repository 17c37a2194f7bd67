/**
 * History against what devices were promised, by the devices' own counters and never by Holdfast's sequences (invariants
 * A, B). The lab, chaos, the demo and the end-to-end tests all count with this.
 */
import type pg from 'pg';

/** How many rows history has of one message of a device. */
export interface StoredCounter {
  readonly device: string;
  readonly n: number;
  readonly times: number;
}

/** @param of.metric the one that carries the counter */
export async function storedCounters(
  database: Pick<pg.Pool, 'query'> | Pick<pg.Client, 'query'>,
  of: {
    readonly site: string;
    readonly devices: readonly string[];
    readonly metric: string;
    /** Only what devices say they measured since then: earlier runs used the same counters. */
    readonly sinceMs?: number;
  },
): Promise<StoredCounter[]> {
  const { rows } = await database.query<StoredCounter>(
    `select device, value as n, count(*)::int as times from holdfast.reading
      where device_id in (select id from holdfast.device where site = $1 and name = any ($2))
        and metric = $3 and time >= to_timestamp($4 / 1000.0)
      group by 1, 2`,
    [of.site, of.devices, of.metric, of.sinceMs ?? 0],
  );
  return rows;
}

export interface Promised {
  /** Counters from 1 to this were published; null when nobody knows. */
  readonly published: number | null;
  readonly acknowledged: Iterable<number>;
}

export interface Comparison {
  readonly acknowledged: number;
  /** Of the acknowledged: in history. */
  readonly kept: number;
  /** Different messages in history, acknowledged or not. */
  readonly stored: number;
  /** Acknowledged and not in history. */
  readonly missing: readonly { readonly device: string; readonly n: number }[];
  /** More than once in history. Stored without the device having seen its PUBACK is fine once, not twice. */
  readonly repeated: readonly StoredCounter[];
  /** Rows beyond the first of a message. */
  readonly duplicates: number;
  /** In history and never published. */
  readonly phantoms: number;
}

export function compareCounters(
  promised: ReadonlyMap<string, Promised>,
  stored: readonly StoredCounter[],
): Comparison {
  const found = new Map<string, Set<number>>([...promised.keys()].map(device => [device, new Set()]));
  let duplicates = 0;
  let phantoms = 0;
  for (const { device, n, times } of stored) {
    const of = promised.get(device);
    const published = of?.published ?? Number.POSITIVE_INFINITY;
    found.get(device)?.add(n);
    duplicates += times - 1;
    if (!of || !Number.isInteger(n) || n < 1 || n > published) phantoms++;
  }
  const missing: { device: string; n: number }[] = [];
  let acknowledged = 0;
  for (const [device, { acknowledged: numbers }] of promised) {
    for (const n of numbers) {
      acknowledged++;
      if (!found.get(device)!.has(n)) missing.push({ device, n });
    }
  }
  return {
    acknowledged,
    kept: acknowledged - missing.length,
    stored: stored.length,
    missing,
    repeated: stored.filter(({ times }) => times > 1),
    duplicates,
    phantoms,
  };
}
