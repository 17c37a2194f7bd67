/**
 * Seven days of one device, a reading per second, compacted, as CSV in a file, round by round in turns: through the project's
 * exporter, whose lines name site, device, metric and kind, and time and value alone through `psql \copy` out of the peer's table,
 * which holds nothing but this device and metric.
 */
import { createReadStream, createWriteStream, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { exportReadings } from '../../../cloud/history/query/export.ts';
import { microsOf } from '../../../cloud/history/query/micros.ts';
import { STANDARD_START_MS } from '../standard-fleet.ts';
import { median, rounded, table } from '../tables.ts';
import { compactDatabase } from './compaction.ts';
import { openNarrow } from './narrow.ts';
import type { HistoryServer } from './server.ts';
import { DAY_MS, MESSAGES_PER_COPY, siteName, storeFleet } from './store-fleet.ts';

const SECONDS = 604_800;
/** No jitter of the first message lies before it. */
const START_MS = STANDARD_START_MS + 1000;
const METRIC = 'temperature';

export async function measureExport(
  server: HistoryServer,
  options: {
    readonly readingsMax: number;
    readonly rounds: number;
    readonly directory: string;
    readonly report: (line: string) => void;
  },
) {
  const { rounds, directory, report } = options;
  const readings = Math.min(SECONDS, options.readingsMax);
  const database = await server.open('export');
  const { pool } = database;
  const narrow = await openNarrow(pool, MESSAGES_PER_COPY);
  report(`storing ${readings} readings of one device`);
  const { devices } = await storeFleet(database, {
    fleet: { devices: 1, sites: 1, startMs: START_MS },
    messages: readings,
    metrics: [METRIC],
    narrow,
  });
  await narrow.size();
  const to = START_MS + (readings + 1) * 1000;
  await compactDatabase(database, to + 2 * DAY_MS);
  await pool.query('vacuum (analyze) holdfast.message, holdfast.chunk, holdfast.aggregate, holdfast.minutes');

  const file = join(directory, 'export.csv');
  const rate = async (run: () => Promise<void>, headLines: number) => {
    const startedAt = performance.now();
    await run();
    const seconds = (performance.now() - startedAt) / 1000;
    const lines = (await countLines(file)) - headLines;
    if (lines !== readings) throw new Error(`${lines} lines of ${readings} readings`);
    const { size } = statSync(file);
    await rm(file);
    return { perSecond: readings / seconds, bytes: size };
  };
  const range = { from: microsOf(START_MS), to: microsOf(to) };
  const request = { site: siteName(0), device: 'dev-0000', metric: METRIC, format: 'csv', range } as const;
  const ours = () => pipeline(Readable.from(exportReadings(pool, request)), createWriteStream(file));
  const [from, until] = [START_MS, to].map(at => new Date(at).toISOString());
  const theirs = () =>
    database.copyToFile(
      `select time, value from narrow where device = ${devices[0]} and metric = 1 and time >= '${from}' and time < '${until}'`,
      file,
      'with (format csv)',
    );
  const measured: { ours: number; theirs: number }[] = [];
  let bytes = { ours: 0, theirs: 0 };
  await rate(ours, 1);
  await rate(theirs, 0);
  for (let round = 1; round <= rounds; round++) {
    const one = await rate(ours, 1);
    const other = await rate(theirs, 0);
    bytes = { ours: one.bytes, theirs: other.bytes };
    measured.push({ ours: one.perSecond, theirs: other.perSecond });
    report(
      `round ${round} of ${rounds}: export ${Math.round(one.perSecond)} readings/s, ${server.copier} ${Math.round(other.perSecond)}`,
    );
  }
  await database.drop();
  const figures = {
    export_ratio: rounded(median(measured.map(round => round.ours / round.theirs)), 3),
    export_readings_per_second: Math.round(median(measured.map(round => round.ours))),
    narrow_export_readings_per_second: Math.round(median(measured.map(round => round.theirs))),
    export_readings: readings,
    export_bytes: bytes.ours,
    narrow_export_bytes: bytes.theirs,
  };
  return {
    figures,
    table: table([
      [`CSV of ${readings.toLocaleString('en')} readings`, 'readings/s', 'the exporter against it'],
      ['exporter, out of chunks', figures.export_readings_per_second, ''],
      [
        `${server.copier}, out of a row per reading`,
        figures.narrow_export_readings_per_second,
        figures.export_ratio,
      ],
    ]),
  };
}

async function countLines(file: string): Promise<number> {
  let lines = 0;
  for await (const part of createReadStream(file)) {
    for (const byte of part as Buffer) if (byte === 0x0a) lines++;
  }
  return lines;
}
