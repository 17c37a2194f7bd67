/** Chunks and aggregates in PostgreSQL: one statement per function. Times are microseconds since 2000. */
import type { PoolClient } from 'pg';
import type { Aggregate } from './aggregates.ts';
import type { Chunk } from './chunk.ts';

export const TIME_2000 = `timestamptz '2000-01-01 00:00:00+00'`;
export const asTime = (parameter: string): string =>
  `${TIME_2000} + ${parameter}::bigint * interval '1 microsecond'`;
export const asMicroseconds = (time: string) =>
  `(extract(epoch from ${time} - ${TIME_2000}) * 1000000)::bigint`;

type Client = Pick<PoolClient, 'query'>;

export const CHUNK_COLUMNS = `device, shape, log, kind, messages, numbers, forms, bases, steps, places, body, floats, words,
  ${asMicroseconds('at')} as at, ${asMicroseconds('until')} as until,
  (select array_agg(${asMicroseconds('t')} order by i) from unnest(claimed_at) with ordinality as u (t, i)) as claimed`;

export interface ChunkRow {
  device: number;
  shape: number;
  log: number;
  kind: number;
  messages: number;
  numbers: number;
  forms: number[];
  bases: string[];
  steps: string[];
  places: number[];
  body: Buffer;
  floats: number[] | null;
  words: string[] | null;
  at: string;
  until: string;
  claimed: (string | null)[] | null;
}

/** @param row of a query for `CHUNK_COLUMNS` */
export function chunkOf(row: ChunkRow): Chunk {
  const { claimed, ...same } = row;
  return {
    ...same,
    at: Number(row.at),
    until: Number(row.until),
    bases: row.bases.map(Number),
    steps: row.steps.map(Number),
    claimedAt: claimed?.map(time => (time === null ? null : Number(time))) ?? null,
  };
}

/** @param table of the day that it lies in */
export async function insertChunk(client: Client, table: string, chunk: Chunk): Promise<void> {
  await client.query({
    name: `insert ${table}`,
    text: `insert into ${table} (at, until, device, shape, log, kind, messages, numbers, forms, bases, steps, places,
             body, floats, words, claimed_at)
           values (${asTime('$1')}, ${asTime('$2')}, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
             (select array_agg(${asTime('t')} order by i) from unnest($16::bigint[]) with ordinality as u (t, i)))`,
    values: [
      ...[chunk.at, chunk.until, chunk.device, chunk.shape, chunk.log, chunk.kind, chunk.messages],
      ...[chunk.numbers, chunk.forms, chunk.bases, chunk.steps, chunk.places],
      ...[Buffer.from(chunk.body.buffer, chunk.body.byteOffset, chunk.body.length)],
      ...[chunk.floats && Array.from(chunk.floats, floatText), chunk.words, chunk.claimedAt],
    ],
  });
}

/** To the last bit; the client would write -0 as 0. */
export const floatText = (value: number): string => (Object.is(value, -0) ? '-0' : String(value));

/** Of these devices, so that what they have can be joined with what has come. */
export async function takeSmallChunks(
  client: Client,
  table: string,
  devices: readonly number[],
  messagesBelow: number,
): Promise<Chunk[]> {
  const { rows } = await client.query<ChunkRow>(
    `delete from ${table} where device = any ($1) and messages < $2 returning ${CHUNK_COLUMNS}`,
    [devices, messagesBelow],
  );
  return rows.map(chunkOf);
}

export interface AggregateOf extends Aggregate {
  readonly device: number;
  readonly metric: number;
  /** The hour's beginning. */
  readonly at: number;
}

/** Joins them with what is known of the same hours. */
export async function addAggregates(client: Client, found: readonly AggregateOf[]): Promise<void> {
  if (found.length === 0) return;
  const column = (name: keyof AggregateOf) => found.map(one => one[name]);
  await client.query(
    `insert into holdfast.aggregate as a
            (device, metric, seconds, at, count, minimum, maximum, mean, first, first_at, last, last_at)
     select device, metric, 3600, ${asTime('at')}, count, minimum, maximum, mean, first, ${asTime('first_at')}, last,
            ${asTime('last_at')}
       from unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[], $5::float8[], $6::float8[], $7::float8[], $8::float8[],
                   $9::bigint[], $10::float8[], $11::bigint[])
         as r (device, metric, at, count, minimum, maximum, mean, first, first_at, last, last_at)
      order by device, metric, at
     ${JOIN_AGGREGATES}`,
    [
      ...[column('device'), column('metric'), column('at'), column('count'), column('minimum')],
      ...[column('maximum'), column('mean'), column('first'), column('firstAt'), column('last')],
      ...[column('lastAt')],
    ],
  );
}

/** As `aggregates.ts` does. The mean in numeric, where no device's value is too large or too small. */
export const JOIN_AGGREGATES = `on conflict (device, metric, seconds, at) do update set
  count = a.count + excluded.count,
  minimum = least(a.minimum, excluded.minimum),
  maximum = greatest(a.maximum, excluded.maximum),
  mean = holdfast.as_float8((a.mean::numeric * a.count + excluded.mean::numeric * excluded.count) / (a.count + excluded.count)),
  first = case when a.first_at is null or (excluded.first_at, excluded.first) < (a.first_at, a.first)
               then excluded.first else a.first end,
  first_at = least(a.first_at, excluded.first_at),
  last = case when a.last_at is null or (excluded.last_at, excluded.last) > (a.last_at, a.last)
              then excluded.last else a.last end,
  last_at = greatest(a.last_at, excluded.last_at)`;
