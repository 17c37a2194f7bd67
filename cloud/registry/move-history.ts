/**
 * What history still holds under an alias goes to the device it stands for: rows of hardware from before it took another
 * one's place, what was under way while a name changed, and stored twins. Work by the day, in transactions of its own; doing it
 * again changes nothing.
 */
import type { Pool } from 'pg';
import type { TwinState } from '../actors/twin.ts';
import { JOIN_AGGREGATES } from '../history/chunks/store-chunks.ts';
import { committedWhenDone } from '../in-transaction.ts';
import { restoreTwin, storeTwin } from '../twin-json.ts';
import { moveTwins } from './move-twins.ts';

/** After this, nothing that was under way when the alias was made can still come. */
const LOOKED_AFTER_DAYS = 7;
const DAY_MS = 86_400_000;

interface AliasInHistory {
  readonly site: string;
  readonly alias: string;
  readonly device: string;
  /** Their numbers in the rows. */
  readonly fromId: number;
  readonly toId: number;
}

/** @param only the site to look at; all of them without it */
export async function moveHistory(pool: Pool, only?: string): Promise<void> {
  await pool.query(
    `insert into holdfast.device (site, name)
     select a.site, a.device from holdfast.device_alias a join holdfast.device f on (f.site, f.name) = (a.site, a.alias)
      where ($1::text is null or a.site = $1) and a.changed_at > now() - make_interval(days => $2)
     on conflict do nothing`,
    [only ?? null, LOOKED_AFTER_DAYS],
  );
  const { rows } = await pool.query<AliasInHistory>(
    `select a.site, a.alias, a.device, f.id as "fromId", t.id as "toId"
       from holdfast.device_alias a
       join holdfast.device f on (f.site, f.name) = (a.site, a.alias)
       join holdfast.device t on (t.site, t.name) = (a.site, a.device)
      where ($1::text is null or a.site = $1) and a.changed_at > now() - make_interval(days => $2)`,
    [only ?? null, LOOKED_AFTER_DAYS],
  );
  for (const found of rows) {
    await moveMinutes(pool, found);
    await moveMessages(pool, found);
    await moveSummaries(pool, found);
    await moveAggregates(pool, found);
  }
  await moveStoredTwins(pool, only);
}

/**
 * Of an hour that both have something of, neither is whole any more: its minutes follow from the readings again, or are part of
 * the hour. Before the chunks move, which say what there is.
 */
async function moveMinutes(pool: Pool, { fromId, toId }: AliasInHistory): Promise<void> {
  await pool.query(
    `with shared as (
       select m.device, m.metric, m.at from holdfast.minutes m
        where m.device in ($1, $2) and (
              exists (select from holdfast.chunk c
                       where c.device = $1 + $2 - m.device and c.at < m.at + interval '1 hour' and c.until >= m.at
                         and c.at >= date_trunc('day', m.at, 'UTC'))
              or exists (select from holdfast.minutes o
                          where o.device = $1 + $2 - m.device and o.metric = m.metric and o.at = m.at))
     ), gone as (
       delete from holdfast.minutes m using shared s where (m.device, m.metric, m.at) = (s.device, s.metric, s.at)
     )
     update holdfast.minutes m set device = $2
      where m.device = $1 and not exists (
            select from shared s where (m.device, m.metric, m.at) = (s.device, s.metric, s.at))`,
    [fromId, toId],
  );
}

async function moveMessages(pool: Pool, { fromId, toId }: AliasInHistory): Promise<void> {
  const { rows } = await pool.query<{ first: number | null; last: number | null }>(
    `select extract(epoch from min(at))::float8 * 1000 as first, extract(epoch from max(at))::float8 * 1000 as last
       from (select at from holdfast.message where device = $1 union all
             select at from holdfast.chunk where device = $1) as held`,
    [fromId],
  );
  const { first, last } = rows[0]!;
  if (first === null || last === null) return;
  for (let day = Math.floor(first / DAY_MS); day * DAY_MS <= last; day++) {
    for (const table of ['message', 'chunk']) {
      await pool.query(
        `update holdfast.${table} set device = $2
          where device = $1 and at >= to_timestamp($3::float8 / 1000) and at < to_timestamp($4::float8 / 1000)`,
        [fromId, toId, day * DAY_MS, (day + 1) * DAY_MS],
      );
    }
  }
}

/** Of one run both may have a summary of the same interval: they are of different readings, and become one. */
async function moveSummaries(pool: Pool, { fromId, toId }: AliasInHistory): Promise<void> {
  await pool.query(
    `with gone as (delete from holdfast.summary where device = $1 returning *)
     insert into holdfast.summary as s (at, sequence, log, device, metric, interval_ms, minimum, maximum, mean, count)
     select at, sequence, log, $2, metric, interval_ms, minimum, maximum, mean, count from gone
     on conflict (device, metric, at, interval_ms, log, sequence) do update
        set minimum = least(s.minimum, excluded.minimum), maximum = greatest(s.maximum, excluded.maximum),
            mean = holdfast.as_float8((s.mean::numeric * s.count + excluded.mean::numeric * excluded.count) / (s.count + excluded.count)),
            count = s.count + excluded.count`,
    [fromId, toId],
  );
}

/** Of an hour both may have an aggregate: they are of different readings. */
async function moveAggregates(pool: Pool, { fromId, toId }: AliasInHistory): Promise<void> {
  const columns = 'metric, seconds, at, count, minimum, maximum, mean, first, first_at, last, last_at';
  await pool.query(
    `with gone as (delete from holdfast.aggregate where device = $1 returning *)
     insert into holdfast.aggregate as a (device, ${columns}) select $2, ${columns} from gone ${JOIN_AGGREGATES}`,
    [fromId, toId],
  );
}

/** The site's actor does the same with its twins in memory; both come to the same state. */
async function moveStoredTwins(pool: Pool, only?: string): Promise<void> {
  const { rows } = await pool.query<{ site: string; alias: string; device: string }>(
    `select a.site, a.alias, a.device from holdfast.device_alias a
       join holdfast.twin t on (t.site, t.device) = (a.site, a.alias) where $1::text is null or a.site = $1`,
    [only ?? null],
  );
  for (const { site, alias, device } of rows) {
    await committedWhenDone(pool, async client => {
      const { rows: stored } = await client.query<{ device: string; state: string }>(
        'select device, state from holdfast.twin where site = $1 and device = any ($2) order by device for update',
        [site, [alias, device]],
      );
      const twins = new Map<string, TwinState>();
      for (const row of stored) {
        const twin = restoreTwin(site, row.device, row.state);
        if (twin) twins.set(row.device, twin);
      }
      for (const twin of moveTwins(twins, new Map([[alias, device]])).twins) {
        await client.query(
          `insert into holdfast.twin (site, device, version, state) values ($1, $2, $3, $4)
           on conflict (site, device) do update set version = excluded.version, state = excluded.state`,
          [site, twin.device, twin.version, storeTwin(twin, 0)],
        );
      }
      await client.query('delete from holdfast.twin where site = $1 and device = $2', [site, alias]);
      return { outcome: 'done' };
    });
  }
}
