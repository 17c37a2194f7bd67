/** `holdfast history stats`: what history takes, day by day. */
import pg from 'pg';
import { dayTables } from '../history/day-tables.ts';
import { type DayStats, dayStats, tableStats } from '../history/query/stats.ts';
import { CommandFailed, print, table } from './api-client.ts';

export async function showStats(json: boolean): Promise<void> {
  const connectionString = process.env.HOLDFAST_POSTGRES_URL;
  if (!connectionString) throw new CommandFailed('HOLDFAST_POSTGRES_URL: missing, history is there', 2);
  const pool = new pg.Pool({ connectionString, max: 1 });
  pool.on('error', () => {});
  try {
    const all: DayStats[] = [];
    for (const tables of await dayTables(pool)) all.push(await dayStats(pool, tables));
    // Tables of days without readings take a little room, too: they are in the total.
    const days = all.filter(({ hotReadings, chunkReadings }) => hotReadings + chunkReadings > 0);
    const tables = await tableStats(pool);
    const total = {
      messageBytes: sumOf(all, 'messageBytes'),
      chunkBytes: sumOf(all, 'chunkBytes'),
      ...tables,
      hotReadings: sumOf(all, 'hotReadings'),
      chunkReadings: sumOf(all, 'chunkReadings'),
    };
    const { messageBytes, chunkBytes, aggregateBytes, minutesBytes, summaryBytes } = total;
    const bytes = messageBytes + chunkBytes + aggregateBytes + minutesBytes + summaryBytes;
    const readings = total.hotReadings + total.chunkReadings;
    const bytesPerReading = readings === 0 ? null : bytes / readings;
    print(json, { days, total: { ...total, bytes, readings, bytesPerReading } }, () => [
      ...table([
        ['DAY', 'MESSAGES', 'CHUNKS', 'NOT COMPACTED', 'READINGS', 'BYTES PER READING'],
        ...days.map(day => rowOf(day.day, day)),
        rowOf('all', total),
      ]),
      `Aggregates: ${megabytes(aggregateBytes)}; minutes: ${megabytes(minutesBytes)}; summaries: ${megabytes(summaryBytes)}.`,
      `Altogether ${megabytes(bytes)} for ${count(readings)} readings${
        bytesPerReading === null ? '' : `: ${bytesPerReading.toFixed(2)} bytes per reading`
      }.`,
    ]);
  } catch (error) {
    if (error instanceof CommandFailed) throw error;
    throw new CommandFailed(`PostgreSQL: ${(error as Error).message}`);
  } finally {
    await pool.end();
  }
}

type Sizes = Omit<DayStats, 'day'>;

const sumOf = (days: readonly DayStats[], field: keyof Sizes): number =>
  days.reduce((sum, day) => sum + day[field], 0);

function rowOf(name: string, of: Sizes): string[] {
  const readings = of.hotReadings + of.chunkReadings;
  return [
    name,
    megabytes(of.messageBytes),
    megabytes(of.chunkBytes),
    count(of.hotReadings),
    count(readings),
    readings === 0 ? '-' : ((of.messageBytes + of.chunkBytes) / readings).toFixed(2),
  ];
}

const count = (number: number): string => number.toLocaleString('en-US');
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
