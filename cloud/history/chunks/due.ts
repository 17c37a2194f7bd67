/** What there is to compact: hours that are over, of days that have messages. */
import type { ClientBase } from 'pg';
import { type DayTables, dayTables } from '../day-tables.ts';
import { HOUR_MICROSECONDS } from './aggregates.ts';
import type { CompactionStep } from './compact.ts';
import { asTime } from './store-chunks.ts';

type Client = Pick<ClientBase, 'query'>;

/** What one step takes at most, but for a single message: its columns are in memory, some 200 bytes a message (F). */
const MESSAGES_PER_STEP = 100_000;
const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1);
const DAY_MS = 86_400_000;

/** Both are there. */
export type DayOfMessages = { readonly [K in keyof DayTables]: string };

/** @returns days that have begun, the earliest first */
export async function daysOfMessages(client: Client, nowMs: number): Promise<DayOfMessages[]> {
  const today = new Date(nowMs).toISOString().slice(0, 10).replaceAll('-', '');
  const days = (await dayTables(client)).filter(({ day, message }) => message !== null && day <= today);
  const isWhole = (of: DayTables): of is DayOfMessages => of.message !== null && of.chunk !== null;
  if (days.every(isWhole)) return days;
  // Somebody wrote rows past `ensure_day`, or took a table away.
  for (const { day, chunk } of days) {
    if (chunk === null) await client.query(`select holdfast.ensure_day(to_date($1, 'YYYYMMDD'))`, [day]);
  }
  return (await dayTables(client)).filter(isWhole).filter(({ day }) => day <= today);
}

/** The first moment of a day, microseconds since 2000. */
export const beginOfDay = (day: string): number =>
  (Date.UTC(Number(day.slice(0, 4)), Number(day.slice(4, 6)) - 1, Number(day.slice(6))) - POSTGRES_EPOCH_MS) *
  1000;

/** The hours of that day that were over by then: until when, microseconds since 2000. */
export function closedUntil(day: string, nowMs: number, graceMs: number): number {
  const begin = beginOfDay(day);
  const over =
    Math.floor(((nowMs - graceMs - POSTGRES_EPOCH_MS) * 1000) / HOUR_MICROSECONDS) * HOUR_MICROSECONDS;
  return Math.min(Math.max(begin, over), begin + DAY_MS * 1000);
}

/**
 * Looks at each device's earliest message first, which costs nothing where all is done.
 * @returns steps, the earliest hours first
 */
export async function dueSteps(
  client: Client,
  tables: DayOfMessages,
  until: number,
): Promise<CompactionStep[]> {
  const { day, message: table } = tables;
  const closed = asTime('$1');
  const some = await client.query(
    `select from holdfast.device d
      where exists (select from ${table} m where m.device = d.id and m.at < ${closed}) limit 1`,
    [until],
  );
  if (some.rowCount === 0) return [];
  const { rows } = await client.query<{ hour: number; device: number; messages: number }>(
    `select extract(hour from at at time zone 'UTC')::int as hour, device, count(*)::int as messages
       from ${table} where at < ${closed} group by 1, 2 order by 1, 2`,
    [until],
  );
  const begin = beginOfDay(day);
  const steps: CompactionStep[] = [];
  for (const [hour, ofHour] of Map.groupBy(rows, row => row.hour)) {
    const from = begin + hour * HOUR_MICROSECONDS;
    let devices: number[] = [];
    let messages = 0;
    const end = () => {
      if (devices.length > 0) steps.push({ tables, from, to: from + HOUR_MICROSECONDS, devices });
      devices = [];
      messages = 0;
    };
    for (const row of ofHour) {
      if (row.messages > MESSAGES_PER_STEP) {
        steps.push(...slices(tables, from, row.device, Math.ceil(row.messages / MESSAGES_PER_STEP)));
        continue;
      }
      if (messages + row.messages > MESSAGES_PER_STEP) end();
      devices.push(row.device);
      messages += row.messages;
    }
    end();
  }
  return steps;
}

/** One device that has more than a step takes: part of the hour at a time. */
function slices(tables: DayOfMessages, from: number, device: number, count: number): CompactionStep[] {
  const edge = (i: number) => from + Math.round((HOUR_MICROSECONDS * i) / count);
  return Array.from({ length: count }, (_, i) => ({
    tables,
    from: edge(i),
    to: edge(i + 1),
    devices: [device],
  }));
}
