/**
 * How much room history takes, by the day and table: one statement per function. Counting readings looks at
 * every row of a day.
 */
import type { Pool } from 'pg';
import type { DayTables } from '../day-tables.ts';

export interface DayStats {
  /** `YYYY-MM-DD`, by UTC. */
  readonly day: string;
  /** With indexes and TOAST, as are all sizes here. */
  readonly messageBytes: number;
  readonly chunkBytes: number;
  /** In rows that are not compacted, and in chunks: numbers, booleans and texts. */
  readonly hotReadings: number;
  readonly chunkReadings: number;
}

export interface TableStats {
  readonly aggregateBytes: number;
  readonly minutesBytes: number;
  readonly summaryBytes: number;
}

export async function dayStats(pool: Pool, { day, message, chunk }: DayTables): Promise<DayStats> {
  const { rows } = await pool.query<{ messageBytes: number; chunkBytes: number }>(
    `select coalesce(pg_total_relation_size(to_regclass($1)), 0)::float8 as "messageBytes",
            coalesce(pg_total_relation_size(to_regclass($2)), 0)::float8 as "chunkBytes"`,
    [message, chunk],
  );
  const name = `${day.slice(0, 4)}-${day.slice(4, 6)}-${day.slice(6)}`;
  const [hotReadings, chunkReadings] = [
    await countReadings(pool, 'message', name, 'count(*)'),
    await countReadings(pool, 'chunk', name, 'sum(messages)'),
  ];
  return { day: name, ...rows[0]!, hotReadings, chunkReadings };
}

/** A message is a reading for each metric of its shape. @param day `YYYY-MM-DD` */
async function countReadings(
  pool: Pool,
  table: 'message' | 'chunk',
  day: string,
  messages: string,
): Promise<number> {
  const { rows } = await pool.query<{ readings: number }>(
    `select coalesce(sum(messages * (select count(*) from holdfast.shape_metric m where m.shape = of.shape)),
                     0)::float8 as readings
       from (select shape, ${messages} as messages from holdfast.${table}
              where at >= $1 and at < $1::timestamptz + interval '1 day' group by shape) of`,
    [`${day} 00:00:00Z`],
  );
  return rows[0]!.readings;
}

export async function tableStats(pool: Pool): Promise<TableStats> {
  const { rows } = await pool.query<TableStats>(
    `select pg_total_relation_size('holdfast.aggregate')::float8 as "aggregateBytes",
            pg_total_relation_size('holdfast.minutes')::float8 as "minutesBytes",
            pg_total_relation_size('holdfast.summary')::float8 as "summaryBytes"`,
  );
  return rows[0]!;
}
