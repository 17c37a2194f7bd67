/**
 * Which tables the days of history are in, whoever made them: partitions of ours, or chunks of TimescaleDB. Nobody else
 * knows their names.
 */
import type { ClientBase } from 'pg';

export interface DayTables {
  /** `YYYYMMDD`, by UTC. */
  readonly day: string;
  /** As SQL writes them; null where the day has none yet. */
  readonly message: string | null;
  readonly chunk: string | null;
}

/** @returns those of all days, the earliest first */
export async function dayTables(client: Pick<ClientBase, 'query'>): Promise<DayTables[]> {
  const { rows } = await client.query<DayTables>({
    name: 'holdfast day tables',
    text: `select to_char(day, 'YYYYMMDD') as day,
                  max(relation::text) filter (where parent = 'message') as message,
                  max(relation::text) filter (where parent = 'chunk') as chunk
             from holdfast.day_tables() group by 1 order by 1`,
  });
  return rows;
}
