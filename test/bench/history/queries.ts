/**
 * How long a person waits for a chart, on a warm cache: what the API asks, without HTTP.
 *
 *   a day       116 devices with one metric each every 10 s: a million readings, by device and hour. All hours but the newest are
 *               compacted, which is how a day looks at its end; and all of them
 *   a week      one metric of one device every second, as at most 1,000 points
 *   a year      one metric of one device, 8,760 hours, as at most 1,000 points of minimum, maximum, mean and count; 90 days still have
 *               their tables, and the newest half hour has its messages
 */
import type { Pool } from 'pg';
import { HOUR_MICROSECONDS } from '../../../cloud/history/chunks/aggregates.ts';
import { type AggregateOf, addAggregates } from '../../../cloud/history/chunks/store-chunks.ts';
import { readBuckets } from '../../../cloud/history/query/buckets.ts';
import { storedDays } from '../../../cloud/history/query/days.ts';
import { downsample } from '../../../cloud/history/query/downsample.ts';
import { microsOf } from '../../../cloud/history/query/micros.ts';
import { STANDARD_START_MS } from '../standard-fleet.ts';
import { median, rounded, table } from '../tables.ts';
import { compactDatabase } from './compaction.ts';
import { openNarrow } from './narrow.ts';
import type { HistoryServer } from './server.ts';
import { DAY_MS, MESSAGES_PER_COPY, storeFleet } from './store-fleet.ts';

const HOUR_MS = 3_600_000;
const DAY_DEVICES = 116;
const DAY_INTERVAL_MS = 10_000;
const METRIC = 'temperature';
const CHART_POINTS = 1000;

const WEEK_SECONDS = 604_800;

const YEAR_DEVICES = 20;
const YEAR_HOURS = 8760;
const RETENTION_DAYS = 90;
const NEWEST_MS = 1_800_000;
const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1);

const RUNS = { warmUp: 3, counted: 15 };
/** Of what takes seconds. */
const SLOW_RUNS = { warmUp: 1, counted: 5 };

export async function measureQueries(
  server: HistoryServer,
  pointsMax: number,
  report: (line: string) => void,
) {
  const day = await measureDay(server, pointsMax, report);
  const week = await measureWeek(server, pointsMax, report);
  const year = await measureYear(server, report);
  const figures = {
    hourly_24h_ms: rounded(day.compacted, 1),
    hourly_24h_closed_ms: rounded(day.closed, 1),
    hourly_24h_hot_ms: rounded(day.hot, 1),
    hourly_24h_narrow_ms: rounded(day.narrow, 1),
    hourly_24h_points: day.points,
    week_1000_ms: rounded(week.milliseconds, 1),
    week_points: week.points,
    year_1000_ms: rounded(year.milliseconds, 1),
    year_hours: YEAR_HOURS,
    year_points: year.points,
  };
  return {
    figures,
    table: table([
      ['chart, warm', 'ms'],
      [
        `24 hours of ${day.points.toLocaleString('en')} readings, the newest hour not compacted`,
        figures.hourly_24h_ms,
      ],
      ['the same, a day that is over', figures.hourly_24h_closed_ms],
      ['the same, nothing compacted', figures.hourly_24h_hot_ms],
      ['the same out of a row per reading under a key', figures.hourly_24h_narrow_ms],
      [`a week of one metric by the second, 1,000 points at most: ${week.points}`, figures.week_1000_ms],
      [`a year of one metric, 1,000 points at most: ${year.points}`, figures.year_1000_ms],
    ]),
  };
}

async function measureDay(server: HistoryServer, pointsMax: number, report: (line: string) => void) {
  const perDevice = DAY_MS / DAY_INTERVAL_MS;
  const count = Math.max(1, Math.min(DAY_DEVICES, Math.floor(pointsMax / perDevice)));
  const points = count * perDevice;
  const database = await server.open('day');
  const { pool } = database;
  const narrow = await openNarrow(pool, MESSAGES_PER_COPY);
  report(`storing a day of ${points} readings`);
  const fleet = { devices: count, sites: 1, intervalMs: DAY_INTERVAL_MS };
  const { devices } = await storeFleet(database, { fleet, messages: points, metrics: [METRIC], narrow });
  await narrow.size();
  const [from, to] = [STANDARD_START_MS, STANDARD_START_MS + DAY_MS];
  const range = { from: microsOf(from), to: microsOf(to) };
  const series = devices.map(device => ({ device, metric: METRIC }));
  const ask = async () => {
    const days = await storedDays(pool, range);
    const answer = await readBuckets(pool, { series, range, days, widthMs: HOUR_MS });
    if (answer.outcome !== 'found') throw new Error(answer.outcome);
    const buckets = answer.series.flatMap(of => of.buckets);
    const found = buckets.reduce((sum, [, readings]) => sum + readings, 0);
    // Jitter takes a device's first or last message out of the day.
    if (buckets.length !== 24 * count || Math.abs(found - points) > count)
      throw new Error(`${found} readings in ${buckets.length} buckets, ${points} were stored`);
  };
  await vacuum(pool);
  report('asking before it is compacted');
  const hot = await medianMs(ask, SLOW_RUNS);
  report('compacting');
  // A day's end: its newest hour is not over yet.
  await compactDatabase(database, to);
  await vacuum(pool);
  report('asking again');
  const compacted = await medianMs(ask);
  await compactDatabase(database, to + 2 * HOUR_MS);
  await vacuum(pool);
  const closed = await medianMs(ask);
  const ofNarrow = await medianMs(async () => {
    const { rows } = await pool.query(
      `select device, date_bin('1 hour', time, $1) as at, count(*), min(value), max(value), avg(value)
         from narrow where device = any ($3) and metric = 1 and time >= $1 and time < $2 group by 1, 2 order by 1, 2`,
      [new Date(from), new Date(to), devices],
    );
    if (rows.length !== 24 * count) throw new Error(`${rows.length} buckets`);
  }, SLOW_RUNS);
  await database.drop();
  return { points, hot, compacted, closed, narrow: ofNarrow };
}

async function measureWeek(server: HistoryServer, readingsMax: number, report: (line: string) => void) {
  const readings = Math.min(WEEK_SECONDS, readingsMax);
  const database = await server.open('week');
  const { pool } = database;
  report(`storing ${readings} readings of one device`);
  const from = STANDARD_START_MS + 1000;
  const to = from + (readings + 1) * 1000;
  const fleet = { devices: 1, sites: 1, startMs: from };
  const { devices } = await storeFleet(database, { fleet, messages: readings, metrics: [METRIC] });
  await compactDatabase(database, to + 2 * DAY_MS);
  await vacuum(pool);
  const range = { from: microsOf(from), to: microsOf(to) };
  const series = [{ device: devices[0]!, metric: METRIC }];
  let points = 0;
  const milliseconds = await medianMs(async () => {
    const days = await storedDays(pool, range);
    const answer = await downsample(pool, { series, range, days, pointsMax: CHART_POINTS });
    const [found] = answer.outcome === 'found' ? answer.series : [];
    if (found?.level !== 'minute') throw new Error(`${answer.outcome}, ${found?.level}`);
    points = found.buckets.length;
    const counted = found.buckets.reduce((sum, [, count]) => sum + count, 0);
    if (counted !== readings) throw new Error(`${counted} readings`);
  });
  await database.drop();
  return { points, milliseconds };
}

async function measureYear(server: HistoryServer, report: (line: string) => void) {
  const database = await server.open('year');
  const { pool, dictionary } = database;
  report(`storing ${YEAR_HOURS} hours of ${YEAR_DEVICES} devices`);
  const from = STANDARD_START_MS;
  const to = from + YEAR_HOURS * HOUR_MS + NEWEST_MS;
  const days = Array.from({ length: RETENTION_DAYS }, (_, i) => new Date(to - i * DAY_MS));
  await dictionary.ensureDays(days.map(day => day.toISOString().slice(0, 10)));
  const { devices } = await storeFleet(database, {
    fleet: { devices: YEAR_DEVICES, sites: 1, startMs: to - NEWEST_MS },
    messages: (YEAR_DEVICES * NEWEST_MS) / 1000,
    metrics: [METRIC],
  });
  const [metric] = await dictionary.metrics([METRIC]);
  for (const device of devices) await addAggregates(pool, hoursOf(device, metric!, from));
  await vacuum(pool);
  const range = { from: microsOf(from), to: microsOf(to) };
  const series = [{ device: devices[0]!, metric: METRIC }];
  let points = 0;
  const milliseconds = await medianMs(async () => {
    const days = await storedDays(pool, range);
    const answer = await downsample(pool, { series, range, days, pointsMax: CHART_POINTS });
    const [found] = answer.outcome === 'found' ? answer.series : [];
    if (found?.level !== 'hour') throw new Error(`${answer.outcome}, ${found?.level}`);
    points = found.buckets.length;
    const readings = found.buckets.reduce((sum, [, count]) => sum + count, 0);
    if (Math.abs(readings - (to - from) / 1000) > 1) throw new Error(`${readings} readings`);
  });
  await database.drop();
  return { points, milliseconds };
}

/** As compaction would leave them of a reading per second. */
function hoursOf(device: number, metric: number, from: number): AggregateOf[] {
  return Array.from({ length: YEAR_HOURS }, (_, hour) => {
    const at = (from + hour * HOUR_MS - POSTGRES_EPOCH_MS) * 1000;
    const mean = 21 + Math.sin((hour * Math.PI) / 12) + device / 100;
    const times = { firstAt: at, lastAt: at + HOUR_MICROSECONDS - 1 };
    return {
      ...{ device, metric, at, count: 3600, mean, ...times },
      ...{ minimum: mean - 0.4, maximum: mean + 0.4, first: mean - 0.1, last: mean + 0.1 },
    };
  });
}

async function vacuum(pool: Pool): Promise<void> {
  await pool.query(
    'vacuum (analyze) holdfast.message, holdfast.chunk, holdfast.aggregate, holdfast.minutes, holdfast.summary',
  );
}

async function medianMs(run: () => Promise<void>, { warmUp, counted } = RUNS): Promise<number> {
  for (let i = 0; i < warmUp; i++) await run();
  const times: number[] = [];
  for (let i = 0; i < counted; i++) {
    const startedAt = performance.now();
    await run();
    times.push(performance.now() - startedAt);
  }
  return median(times);
}
