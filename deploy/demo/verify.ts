/**
 * Counts what history holds of what devices were promised: by the devices' own counters and times, never by our
 * sequences (invariants A, B).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { compareCounters, storedCounters } from '../faults/stored-counters.ts';
import type { FleetJournal } from './fleet.ts';

export interface Count {
  readonly acknowledged: number;
  /** Of the acknowledged: found in history. */
  readonly stored: number;
  readonly duplicates: number;
  readonly missing: number;
}

export interface VerifyOptions {
  readonly postgresUrl: string;
  readonly journal: FleetJournal;
  /** Only what the devices say they measured since then: earlier runs used the same counters. */
  readonly since: number;
  readonly replay: { readonly site: string; readonly device: string; readonly metric: string } | null;
  /** History may run behind: how long to wait for it. */
  readonly patienceMs: number;
}

export async function verifyStored(options: VerifyOptions): Promise<Count> {
  const client = new pg.Client({ connectionString: options.postgresUrl });
  // A connection that breaks rejects the query below; the event alone must not end the process.
  client.on('error', () => undefined);
  try {
    await client.connect();
    const deadline = performance.now() + options.patienceMs;
    for (;;) {
      const count = await countOnce(client, options);
      if (count.missing === 0 || performance.now() > deadline) return count;
      await sleep(250);
    }
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function countOnce(client: pg.Client, { journal, since, replay }: VerifyOptions): Promise<Count> {
  const total = { acknowledged: 0, stored: 0, duplicates: 0, missing: 0 };
  const ofSites = Map.groupBy(Object.entries(journal.acknowledged), ([twin]) => twin.split('/')[0]!);
  for (const [site, entries] of ofSites) {
    const promised = new Map(
      entries.map(([twin, acknowledged]) => [twin.split('/')[1]!, { published: null, acknowledged }]),
    );
    const devices = [...promised.keys()];
    const rows = await storedCounters(client, { site, devices, metric: 'counter', sinceMs: since });
    const compared = compareCounters(promised, rows);
    total.acknowledged += compared.acknowledged;
    total.stored += compared.kept;
    total.duplicates += compared.duplicates;
    total.missing += compared.missing.length;
  }
  if (replay && journal.replayed.length > 0) {
    const { rows } = await client.query<{ key: number; times: number }>(
      `select extract(epoch from r.time)::float8 * 1000 as key, count(*)::int as times from holdfast.reading r
        where r.device_id = (select id from holdfast.device where site = $1 and name = $2)
          and r.metric = $3 and r.time between to_timestamp($4 / 1000.0) and to_timestamp($5 / 1000.0)
        group by r.time`,
      [
        replay.site,
        replay.device,
        replay.metric,
        Math.min(...journal.replayed),
        Math.max(...journal.replayed),
      ],
    );
    const found = new Map(rows.map(row => [Math.round(row.key), row.times]));
    total.acknowledged += journal.replayed.length;
    // A recording may have two readings of one time.
    for (const [key, { length }] of Map.groupBy(journal.replayed, key => key)) {
      const times = found.get(key) ?? 0;
      found.delete(key);
      total.stored += Math.min(times, length);
      total.missing += Math.max(0, length - times);
      total.duplicates += Math.max(0, times - length);
    }
    // Stored without the device having seen its PUBACK: fine once, not twice.
    for (const times of found.values()) total.duplicates += times - 1;
  }
  return total;
}
