/**
 * What leaves history, and when. Each level has its own time, for everybody or for a type of device; nothing is counted twice on the
 * way, because every step takes away what it adds up, in one statement (B, C).
 *
 *   readings ──raw──▶ gone          summaries ──raw──▶ hours or days
 *   minutes ──minutely──▶ gone      hours ──hourly──▶ days ──daily──▶ gone
 */
import type { Pool } from 'pg';
import { inTransaction } from '../in-transaction.ts';
import { beginOfDay } from './chunks/due.ts';
import { JOIN_AGGREGATES } from './chunks/store-chunks.ts';
import { type DayTables, dayTables } from './day-tables.ts';
import { DAY_US, millisOf } from './query/micros.ts';

/** Days. */
export interface Retention {
  readonly raw: number;
  readonly minutely: number;
  readonly hourly: number;
  readonly daily: number;
}

type Level = keyof Retention;

/** Readers and writers queue behind who waits for the lock of a table. */
const LOCK_TIMEOUT_MS = 1000;
const DAY_MS = 86_400_000;
/** Hours that become days in one statement. */
const HOURS_AT_ONCE = 50_000;

/** Of device `d`, how many days, as SQL. @param usual a parameter: for everybody */
const keptDays = (level: Level, usual: string): string =>
  `(select coalesce(max((t.retention->>'${level}')::int), ${usual}::int)
      from holdfast.registry_device r join holdfast.device_type t on t.id = r.type
     where r.site = d.site and r.device = d.name)`;

/** Does what is due. Done again it changes nothing. */
export async function expireHistory(pool: Pool, retention: Retention, nowMs: number): Promise<void> {
  const { least, most } = await rangeOf(pool, 'raw', retention.raw);
  await foldSummaries(pool, retention.raw, nowMs);
  for (const tables of await dayTables(pool)) {
    const endMs = millisOf(beginOfDay(tables.day) + DAY_US);
    if (endMs <= nowMs - most * DAY_MS) await dropDay(pool, tables);
    else if (endMs <= nowMs - least * DAY_MS) await deleteOfTypes(pool, tables, retention.raw, nowMs);
  }
  await deleteMinutes(pool, retention.minutely, nowMs);
  const hourly = { usual: retention.hourly, least: (await rangeOf(pool, 'hourly', retention.hourly)).least };
  while ((await foldHours(pool, hourly, nowMs)) > 0);
  await deleteDays(pool, retention.daily, nowMs);
}

/** The shortest and the longest time of any type. */
async function rangeOf(pool: Pool, level: Level, usual: number): Promise<{ least: number; most: number }> {
  const { rows } = await pool.query<{ least: number; most: number }>(
    `select least(min((retention->>$1)::int), $2::int) as least, greatest(max((retention->>$1)::int), $2::int) as most
       from holdfast.device_type`,
    [level, usual],
  );
  return rows[0]!;
}

/** Nobody writes into it any more: what is older than the longest time is not stored. */
async function dropDay(pool: Pool, { message, chunk }: DayTables): Promise<void> {
  await inTransaction(pool, async client => {
    await client.query(`set local lock_timeout = ${LOCK_TIMEOUT_MS}`);
    const tables = [message, chunk].filter(table => table !== null);
    await client.query(`drop table if exists ${tables.join()}`);
  });
}

async function deleteOfTypes(
  pool: Pool,
  { message, chunk }: DayTables,
  usual: number,
  nowMs: number,
): Promise<void> {
  for (const [table, last] of [
    [message, 'at'],
    [chunk, 'until'],
  ]) {
    if (table === null) continue;
    await pool.query(
      `delete from ${table} m using holdfast.device d
        where d.id = m.device
          and m.${last} < to_timestamp($2 / 1000.0) - make_interval(days => ${keptDays('raw', '$1')})`,
      [usual, nowMs],
    );
  }
}

/**
 * What a gateway thinned is all there is of its time: it lives on in the hours, or in the days where its interval is longer. The
 * minutes of these hours would lack it.
 */
async function foldSummaries(pool: Pool, usual: number, nowMs: number): Promise<void> {
  await pool.query(
    `with gone as (
       delete from holdfast.summary s using holdfast.device d
        where d.id = s.device
          and s.at < to_timestamp($2 / 1000.0) - make_interval(days => ${keptDays('raw', '$1')})
       returning s.*),
     lacking as (
       delete from holdfast.minutes m using gone g
        where m.device = g.device and m.metric = g.metric
          and m.at >= date_trunc('hour', g.at, 'UTC') and m.at < g.at + g.interval_ms * interval '1 millisecond')
     insert into holdfast.aggregate as a (device, metric, seconds, at, count, minimum, maximum, mean)
     select device, metric, seconds, date_trunc(case seconds when 3600 then 'hour' else 'day' end, at, 'UTC'),
            sum(count), min(minimum), max(maximum), holdfast.as_float8(sum(mean::numeric * count) / sum(count))
       from gone, lateral (select case when interval_ms <= 3600000 then 3600 else 86400 end as seconds) as level
      group by 1, 2, 3, 4
     ${JOIN_AGGREGATES}`,
    [usual, nowMs],
  );
}

async function deleteMinutes(pool: Pool, usual: number, nowMs: number): Promise<void> {
  const { least } = await rangeOf(pool, 'minutely', usual);
  await pool.query(
    `delete from holdfast.minutes m using holdfast.device d
      where d.id = m.device and m.at < to_timestamp($2 / 1000.0) - make_interval(days => $3)
        and m.at < to_timestamp($2 / 1000.0) - make_interval(days => ${keptDays('minutely', '$1')})`,
    [usual, nowMs, least],
  );
}

/** @returns how many hours became days */
async function foldHours(
  pool: Pool,
  { usual, least }: { usual: number; least: number },
  nowMs: number,
): Promise<number> {
  const today = `date_trunc('day', to_timestamp($2 / 1000.0), 'UTC')`;
  const { rows } = await pool.query<{ gone: number }>(
    `with due as (
       select a.device, a.metric, a.at from holdfast.aggregate a join holdfast.device d on d.id = a.device
        where a.seconds = 3600 and a.at < ${today} - make_interval(days => $3)
          and a.at < ${today} - make_interval(days => ${keptDays('hourly', '$1')})
        order by a.at limit ${HOURS_AT_ONCE}
     ), gone as (
       delete from holdfast.aggregate a using due
        where a.device = due.device and a.metric = due.metric and a.seconds = 3600 and a.at = due.at
       returning a.*
     ), days as (
       insert into holdfast.aggregate as a
              (device, metric, seconds, at, count, minimum, maximum, mean, first, first_at, last, last_at)
       select device, metric, 86400, date_trunc('day', at, 'UTC'), sum(count), min(minimum), max(maximum),
              holdfast.as_float8(sum(mean::numeric * count) / sum(count)),
              (array_agg(first order by first_at, first))[1], min(first_at),
              (array_agg(last order by last_at desc nulls last, last desc))[1], max(last_at)
         from gone group by 1, 2, 4
       ${JOIN_AGGREGATES}
     )
     select count(*)::int as gone from gone`,
    [usual, nowMs, least],
  );
  return rows[0]!.gone;
}

async function deleteDays(pool: Pool, usual: number, nowMs: number): Promise<void> {
  await pool.query(
    `delete from holdfast.aggregate a using holdfast.device d
      where d.id = a.device and a.seconds = 86400
        and a.at < date_trunc('day', to_timestamp($2 / 1000.0), 'UTC') - make_interval(days => ${keptDays('daily', '$1')})`,
    [usual, nowMs],
  );
}
