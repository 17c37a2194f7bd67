/** The table `minutes`, kept with what is compacted: a row has all readings of its hour that are in chunks, or there is none. */
import type { PoolClient } from 'pg';
import { type Aggregate, aggregateBy, HOUR_MICROSECONDS, MINUTE_MICROSECONDS } from './aggregates.ts';
import type { CompactionStep } from './compact.ts';
import {
  joinMinutes,
  type Minutes,
  minutesOf,
  packMinutes,
  READINGS_PER_MINUTE_MIN,
  unpackMinutes,
} from './minutes.ts';
import { asMicroseconds, asTime, floatText } from './store-chunks.ts';

/** Readings of one metric of a device that are about to be compacted, all of one hour. */
export interface SeriesOfStep {
  readonly device: number;
  readonly metric: number;
  readonly runs: { readonly at: ArrayLike<number>; readonly values: ArrayLike<number> }[];
}

type Client = Pick<PoolClient, 'query'>;

export const MINUTES_COLUMNS = `device, metric, ${asMicroseconds('at')} as at, minutes, forms, bases, steps, places, body, floats`;

export interface MinutesRow {
  device: number;
  metric: number;
  at: string;
  minutes: number;
  forms: number[];
  bases: string[];
  steps: string[];
  places: number[];
  body: Buffer;
  floats: number[] | null;
}

/** @param row of a query for `MINUTES_COLUMNS` */
export const minutesIn = (row: MinutesRow): Minutes =>
  unpackMinutes({ ...row, bases: row.bases.map(Number), steps: row.steps.map(Number) }, Number(row.at));

/** Before the chunks are written: what there is of them tells whether the hour is begun. */
export async function addMinutes(
  client: Client,
  { tables, from, devices }: CompactionStep,
  series: readonly SeriesOfStep[],
): Promise<void> {
  const hour = Math.floor(from / HOUR_MICROSECONDS) * HOUR_MICROSECONDS;
  const known = await readMinutes(client, devices, hour);
  const begun = await devicesWithChunks(client, tables.chunk, devices, hour);
  for (const { device, metric, runs } of series) {
    const before = known.get(`${device} ${metric}`);
    if (!before && begun.has(device)) continue;
    const aggregates = new Map<number, Aggregate>();
    for (const { at, values } of runs) aggregateBy(MINUTE_MICROSECONDS, at, values, aggregates);
    const readings = runs.reduce((sum, { at }) => sum + at.length, 0);
    if (!before && readings < READINGS_PER_MINUTE_MIN * aggregates.size) continue;
    const minutes = minutesOf(
      aggregates,
      runs.map(({ values }) => values),
    );
    if (before) joinMinutes(minutes, before);
    await storeMinutes(client, { device, metric, hour }, minutes);
  }
}

async function readMinutes(
  client: Client,
  devices: readonly number[],
  hour: number,
): Promise<Map<string, Minutes>> {
  const { rows } = await client.query<MinutesRow>(
    `select ${MINUTES_COLUMNS} from holdfast.minutes where device = any ($1) and at = ${asTime('$2')}`,
    [devices, hour],
  );
  return new Map(rows.map(row => [`${row.device} ${row.metric}`, minutesIn(row)]));
}

/** What lies in chunks without a row for its minutes never gets one: it would lack it. */
async function devicesWithChunks(
  client: Client,
  table: string,
  devices: readonly number[],
  hour: number,
): Promise<Set<number>> {
  const { rows } = await client.query<{ device: number }>(
    `select d as device from unnest($1::int[]) d
      where exists (select from ${table} where device = d and at < ${asTime('$2')} + interval '1 hour' and until >= ${asTime('$2')})`,
    [devices, hour],
  );
  return new Set(rows.map(({ device }) => device));
}

async function storeMinutes(
  client: Client,
  { device, metric, hour }: { device: number; metric: number; hour: number },
  minutes: Minutes,
): Promise<void> {
  const packed = packMinutes(minutes, hour);
  if (!packed) {
    await client.query(
      `delete from holdfast.minutes where device = $1 and metric = $2 and at = ${asTime('$3')}`,
      [device, metric, hour],
    );
    return;
  }
  const { forms, bases, steps, places, body, floats } = packed;
  await client.query({
    name: 'holdfast store minutes',
    text: `insert into holdfast.minutes (device, metric, at, minutes, forms, bases, steps, places, body, floats)
           values ($1, $2, ${asTime('$3')}, $4, $5, $6, $7, $8, $9, $10)
           on conflict (device, metric, at) do update
              set minutes = excluded.minutes, forms = excluded.forms, bases = excluded.bases, steps = excluded.steps,
                  places = excluded.places, body = excluded.body, floats = excluded.floats`,
    values: [
      ...[device, metric, hour, packed.minutes, forms, bases, steps, places],
      ...[Buffer.from(body.buffer, body.byteOffset, body.length), floats && Array.from(floats, floatText)],
    ],
  });
}
