/**
 * What a reading takes on the disk of the database: the standard fleet (1,000 devices on two sites, a message of four readings
 * per second each) as it comes in, compacted, and in the peer's table; and how fast it is compacted.
 */
import type { Pool } from 'pg';
import { STANDARD_START_MS } from '../standard-fleet.ts';
import { rounded, table } from '../tables.ts';
import { compactDatabase } from './compaction.ts';
import { openNarrow } from './narrow.ts';
import type { HistoryServer } from './server.ts';
import { DAY_MS, MESSAGES_PER_COPY, METRICS, storeFleet } from './store-fleet.ts';

/** Some seconds into an hour, so that no jitter puts a message into the one before. */
const START_MS = STANDARD_START_MS + 3_605_000;
const FLEET = { devices: 1000, sites: 2, startMs: START_MS };

/** Bytes of tables with their indexes and what is out of line. */
interface Sizes {
  readonly message: number;
  readonly chunk: number;
  readonly aggregate: number;
  readonly minutes: number;
}

export async function measureFootprint(
  server: HistoryServer,
  messages: number,
  report: (line: string) => void,
) {
  const database = await server.open('footprint');
  const { pool } = database;
  const narrow = await openNarrow(pool, MESSAGES_PER_COPY * METRICS.length);
  report(`storing ${messages} messages of ${METRICS.length} readings in both tables`);
  const { readings } = await storeFleet(database, { fleet: FLEET, messages, narrow });
  const hot = await sizesOf(pool);
  const narrowBytes = await narrow.size();
  await database.checkpoint();
  report('compacting');
  // Everything is over by then, so all of it becomes chunks and the days are emptied.
  const lastsMs = (messages / FLEET.devices) * 1000;
  const compaction = await compactDatabase(database, START_MS + lastsMs + 2 * DAY_MS);
  const sizes = await sizesOf(pool);
  await checkWhole(pool, messages);
  await database.drop();

  const total = (of: Sizes) => (of.message + of.chunk + of.aggregate + of.minutes) / readings;
  const cpuSeconds = compaction.nodeCpuSeconds + compaction.backendCpuSeconds;
  const perMessage = (seconds: number) => rounded((seconds * 1e6) / messages, 2);
  const figures = {
    bytes_per_reading: rounded(total(sizes), 2),
    hot_bytes_per_reading: rounded(total(hot), 1),
    narrow_bytes_per_reading: rounded(narrowBytes / readings, 1),
    message_bytes: sizes.message,
    chunk_bytes: sizes.chunk,
    aggregate_bytes: sizes.aggregate,
    minutes_bytes: sizes.minutes,
    readings,
    chunks: compaction.chunks,
    compaction_readings_per_second: Math.round(readings / compaction.seconds),
    compaction_readings_per_cpu_second: Math.round(readings / cpuSeconds),
    compaction_node_cpu_us_per_message: perMessage(compaction.nodeCpuSeconds),
    compaction_backend_cpu_us_per_message: perMessage(compaction.backendCpuSeconds),
  };
  const rows = [
    [`bytes per reading, ${readings.toLocaleString('en')} readings of the standard fleet`, ''],
    ['compacted, aggregates and indexes included', figures.bytes_per_reading],
    ['as it comes in', figures.hot_bytes_per_reading],
    ['a row per reading under a key', figures.narrow_bytes_per_reading],
    ['compaction, readings/s', figures.compaction_readings_per_second],
    ['compaction, readings per second of CPU', figures.compaction_readings_per_cpu_second],
    ['of that, µs per message: Node', figures.compaction_node_cpu_us_per_message],
    ['of that, µs per message: PostgreSQL', figures.compaction_backend_cpu_us_per_message],
  ];
  return { figures, table: table(rows) };
}

async function sizesOf(pool: Pool): Promise<Sizes> {
  await pool.query('vacuum (analyze) holdfast.message, holdfast.chunk, holdfast.aggregate, holdfast.minutes');
  const { rows } = await pool.query<Record<keyof Sizes, string>>(
    `select (select sum(pg_total_relation_size(relid)) from pg_partition_tree('holdfast.message')) as message,
            (select sum(pg_total_relation_size(relid)) from pg_partition_tree('holdfast.chunk')) as chunk,
            pg_total_relation_size('holdfast.aggregate') as aggregate,
            pg_total_relation_size('holdfast.minutes') as minutes`,
  );
  const { message, chunk, aggregate, minutes } = rows[0]!;
  return {
    ...{ message: Number(message), chunk: Number(chunk) },
    ...{ aggregate: Number(aggregate), minutes: Number(minutes) },
  };
}

/** A figure of what is not all there is none. */
async function checkWhole(pool: Pool, messages: number): Promise<void> {
  const { rows } = await pool.query<{ hot: number; compacted: number; aggregated: string }>(
    `select (select count(*)::int from holdfast.message) as hot,
            (select sum(messages)::int from holdfast.chunk) as compacted,
            (select sum(count) from holdfast.aggregate where seconds = 3600) as aggregated`,
  );
  const { hot, compacted, aggregated } = rows[0]!;
  if (hot !== 0 || compacted !== messages || Number(aggregated) !== messages * METRICS.length) {
    throw new Error(`${messages} messages were stored: ${JSON.stringify(rows[0])}`);
  }
}
