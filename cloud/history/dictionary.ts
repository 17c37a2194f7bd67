/**
 * Short numbers for the names that repeat in every row: logs, devices, shapes, metrics of summaries. Allocated once in Postgres, cached
 * here. Caches are bounded: one that is full starts anew, which costs look-ups, never rows (F).
 */
import { createHash } from 'node:crypto';
import type { Pool } from 'pg';
import type { MetricColumn } from '../../protocol/batch.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import { withoutNul } from './commit.ts';

export interface LogEntry {
  readonly id: number;
  /** The ledger as this owner knows it; the transaction checks it again (B). */
  settled: RangeSet;
}

/** Where each value of a row goes: numbers (booleans among them, as 0 and 1) and texts, in the shape's own order. */
export interface ShapeEntry {
  readonly id: number;
  /** Positions within the row's values that become `numbers`, in order. */
  readonly numbers: readonly number[];
  /** Positions within the row's values that become `texts`, in order. */
  readonly texts: readonly number[];
}

const ENTRIES_MAX = 500_000;

export interface Dictionary {
  log(site: string, gateway: string, logId: string): Promise<LogEntry>;
  /** History has settled the ranges. A log that the cache lacks by now is read anew when it is asked for. */
  noteSettled(site: string, gateway: string, logId: string, ranges: RangeSet): void;
  /** Reads the ledger again after it turned out to be different from what the cache said. */
  forgetLog(site: string, gateway: string, logId: string): void;
  /** Postgres was away, and may have come back as it was earlier: nothing that was read of it holds any more (R). */
  forgetAll(): void;
  /** When the PostgreSQL started that all of the cache was read of. Asked for before anything else. */
  serverStarted(): Promise<string>;
  devices(site: string, names: readonly string[]): Promise<number[]>;
  metrics(names: readonly string[]): Promise<number[]>;
  shapes(metrics: readonly MetricColumn[], shapes: readonly (readonly number[])[]): Promise<ShapeEntry[]>;
  ensureDays(days: Iterable<string>): Promise<void>;
}

export function openDictionary(pool: Pool): Dictionary {
  const logs = new Map<string, LogEntry>();
  const devices = new Map<string, number>();
  const shapes = new Map<string, number>();
  const metrics = new Map<string, number>();
  const days = new Set<string>();
  let started: string | undefined;

  /** Known before anything is remembered: what is remembered is of this start, or it is refused with the commit. */
  async function serverStarted(): Promise<string> {
    if (started !== undefined) return started;
    const { rows } = await pool.query<{ started: string }>('select holdfast.server_started() as started');
    started ??= rows[0]!.started;
    return started;
  }

  async function log(site: string, gateway: string, logId: string): Promise<LogEntry> {
    const key = `${site}/${gateway}/${logId}`;
    const known = logs.get(key);
    if (known) return known;
    await serverStarted();
    await pool.query(
      'insert into holdfast.gateway_log (site, gateway, log_id) values ($1, $2, $3) on conflict do nothing',
      [site, gateway, logId],
    );
    const { rows } = await pool.query<{ id: number; settled: string }>(
      'select id, settled::text from holdfast.gateway_log where site = $1 and gateway = $2 and log_id = $3',
      [site, gateway, logId],
    );
    const entry = { id: rows[0]!.id, settled: RangeSet.parse(rows[0]!.settled) };
    remember(logs, key, entry);
    return entry;
  }

  async function deviceIds(site: string, names: readonly string[]): Promise<number[]> {
    const missing = names.filter(name => !devices.has(`${site}/${name}`));
    if (missing.length > 0) {
      await serverStarted();
      const { rows } = await pool.query<{ id: number; name: string }>(
        `with wanted as (select distinct name from unnest($2::text[]) as w (name)),
              added as (insert into holdfast.device (site, name)
                        select $1, name from wanted
                         where not exists (select 1 from holdfast.device d where d.site = $1 and d.name = wanted.name)
                        on conflict do nothing returning id, name)
         select id, name from added
         union select d.id, d.name from holdfast.device d join wanted w using (name) where d.site = $1`,
        [site, missing],
      );
      for (const row of rows) remember(devices, `${site}/${row.name}`, row.id);
    }
    const ids = names.map(name => devices.get(`${site}/${name}`));
    // Another writer may have added the name between the two halves of the statement, or the cache was emptied.
    return ids.includes(undefined) ? deviceIds(site, names) : (ids as number[]);
  }

  async function metricIds(wanted: readonly string[]): Promise<number[]> {
    const names = wanted.map(withoutNul);
    const missing = names.filter(name => !metrics.has(name));
    if (missing.length > 0) {
      await serverStarted();
      const { rows } = await pool.query<{ id: number; name: string }>(
        `with wanted as (select distinct name from unnest($1::text[]) as w (name)),
              added as (insert into holdfast.metric (name)
                        select name from wanted
                         where not exists (select 1 from holdfast.metric m where m.name = wanted.name)
                        on conflict do nothing returning id, name)
         select id, name from added
         union select m.id, m.name from holdfast.metric m join wanted w using (name)`,
        [missing],
      );
      for (const row of rows) remember(metrics, row.name, row.id);
    }
    const ids = names.map(name => metrics.get(name));
    // As with devices: another writer was first, or the cache was emptied.
    return ids.includes(undefined) ? metricIds(wanted) : (ids as number[]);
  }

  async function shapeOf(columns: readonly MetricColumn[]): Promise<ShapeEntry> {
    const positions = columns.map((_, position) => position);
    const byName = (a: number, b: number) => (columns[a]!.name < columns[b]!.name ? -1 : 1);
    const ofType = (type: MetricColumn['type']) =>
      positions.filter(position => columns[position]!.type === type).sort(byName);
    const [numeric, truths, texts] = [ofType('number'), ofType('boolean'), ofType('string')];
    const numbers = [...numeric, ...truths];
    const names = (list: number[]) => list.map(position => withoutNul(columns[position]!.name));
    const signature = JSON.stringify([names(numeric), names(truths), names(texts)]);
    // The order of the columns is this batch's own; only the number is common to all.
    const known = shapes.get(signature);
    if (known !== undefined) return { id: known, numbers, texts };

    await serverStarted();
    const { rows } = await pool.query<{ id: number }>(
      `with shape as (insert into holdfast.shape (signature) values ($1)
                      on conflict (signature) do update set signature = excluded.signature returning id),
            metrics as (insert into holdfast.shape_metric (shape, name, type, position)
                        select shape.id, name, type::"char", position
                          from shape, unnest($2::text[], $3::text[], $4::int[]) as m (name, type, position)
                        on conflict do nothing)
       select id from shape`,
      [
        // Hundreds of long names are more than an index takes.
        createHash('sha256').update(signature).digest('hex'),
        [...names(numbers), ...names(texts)],
        [...numeric.map(() => 'n'), ...truths.map(() => 'b'), ...texts.map(() => 's')],
        [...numbers.map((_, index) => index + 1), ...texts.map((_, index) => index + 1)],
      ],
    );
    remember(shapes, signature, rows[0]!.id);
    return { id: rows[0]!.id, numbers, texts };
  }

  return {
    log,
    noteSettled(site, gateway, logId, ranges) {
      const entry = logs.get(`${site}/${gateway}/${logId}`);
      if (entry) entry.settled = entry.settled.union(ranges);
    },
    forgetLog: (site, gateway, logId) => void logs.delete(`${site}/${gateway}/${logId}`),
    forgetAll() {
      started = undefined;
      for (const cache of [logs, devices, shapes, metrics, days]) cache.clear();
    },
    serverStarted,
    devices: deviceIds,
    metrics: metricIds,
    shapes: async (metrics, wanted) => {
      const entries: ShapeEntry[] = [];
      for (const shape of wanted) entries.push(await shapeOf(shape.map(column => metrics[column]!)));
      return entries;
    },
    async ensureDays(wanted) {
      for (const day of wanted) {
        if (days.has(day)) continue;
        await pool.query('select holdfast.ensure_day($1::date)', [day]);
        if (days.size >= ENTRIES_MAX) days.clear();
        days.add(day);
      }
    },
  };
}

function remember<T>(cache: Map<string, T>, key: string, entry: T): void {
  if (cache.size >= ENTRIES_MAX) cache.clear();
  cache.set(key, entry);
}
