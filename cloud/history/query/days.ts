/**
 * Which days history has tables for, and which of them have rows that are not compacted: one statement per
 * function.
 */
import type { Pool } from 'pg';
import { beginOfDay } from '../chunks/due.ts';
import { DAY_US, dayOf, type Range } from './micros.ts';

/** @returns the beginnings of days that may have readings, ascending */
export async function storedDays(pool: Pool, range: Range): Promise<number[]> {
  const { rows } = await pool.query<{ day: string }>({
    name: 'holdfast stored days',
    text: `select distinct to_char(day, 'YYYYMMDD') as day from holdfast.day_tables()
            where day between to_date($1, 'YYYYMMDD') and to_date($2, 'YYYYMMDD') order by 1`,
    values: [dayOf(range.from), dayOf(range.to - 1)],
  });
  return rows.map(({ day }) => beginOfDay(day));
}

/**
 * A day that is compacted has an empty table; a long range has hundreds of those, and looking into each would
 * take longer than all the rest. What is written to one of them from now on came after the question.
 * @returns their tables
 */
export async function hotTables(pool: Pick<Pool, 'query'>, range: Range): Promise<string[]> {
  const { rows } = await pool.query<{ relation: string }>({
    name: 'holdfast hot days',
    text: `select relation::text from holdfast.day_tables()
            where parent = 'message' and day between to_date($1, 'YYYYMMDD') and to_date($2, 'YYYYMMDD')
              and pg_relation_size(relation) > 0 order by day`,
    values: [dayOf(range.from), dayOf(range.to - 1)],
  });
  return rows.map(({ relation }) => relation);
}

/** The part of the range that lies within stored days; null when there is none. */
export function withinDays(range: Range, days: readonly number[]): Range | null {
  if (days.length === 0) return null;
  const from = Math.max(range.from, days[0]!);
  const to = Math.min(range.to, days.at(-1)! + DAY_US);
  return from < to ? { from, to } : null;
}
