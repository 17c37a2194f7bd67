/**
 * The messages of one device through a range of time, piece by piece: chunks and rows that are not compacted
 * yet, as runs.
 *
 *   days ─▶ window of days ─▶ one statement: chunks and rows, as many as a piece takes ─▶ runs up to there
 *               ▲                                                                           │
 *               └───────────────────────────────────────────────────────────────────────────┘
 *
 * A message's time never changes, so pieces of time beside one another lack nothing and have nothing twice,
 * whatever is compacted between them; within one, chunks and rows are of one snapshot. No transaction stays
 * open while a slow reader makes up its mind. What is in memory is a piece, and with `ahead` the one that
 * follows it (F).
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { Pool } from 'pg';
import { CHUNK_COLUMNS, type ChunkRow, chunkOf } from '../chunks/store-chunks.ts';
import { HOT_ROW, readHotRows } from './hot-rows.ts';
import { DAY_US, millisOf, type Range, timestampOf } from './micros.ts';
import { type Column, type Run, runOfChunk, runOfRows } from './runs.ts';

export interface PieceRequest {
  /** Their number in history. */
  readonly device: number;
  readonly metrics: readonly string[];
  /** Messages without any of these metrics are read, too. */
  readonly withBare: boolean;
  /** Chunks of hours whose minutes are known are left out, as far as they hold nothing else. */
  readonly withoutMinutes?: boolean;
  readonly range: Range;
  /** Beginnings of the days that may have readings, ascending. */
  readonly days: readonly number[];
  /** The next piece is fetched while the caller is at work with this one. */
  readonly ahead: boolean;
}

export interface Piece {
  /** Nothing of the runs outside of it belongs to this piece. */
  readonly range: Range;
  readonly runs: readonly { readonly run: Run; readonly columns: readonly Column[] }[];
}

/** What people are told: so many readings of one moment that they cannot be read in pieces. */
export class TooManyAtOnce extends Error {}

/** Of up to 4,096 messages each. */
const CHUNKS_PER_PIECE = 16;
const ROWS_PER_PIECE = 16_384;
/** Where all of them overlap, or are of one moment, a piece may have so many times more. */
const LARGEST_PIECE = 16;
const DAYS_PER_WINDOW = 32;
/** A window that has less than that is followed by a longer one. */
const FEW_MESSAGES = 8192;

export async function* readPieces(pool: Pick<Pool, 'query'>, request: PieceRequest): AsyncGenerator<Piece> {
  const windows = openWindows(request);
  let next = fetchNext(pool, request, windows);
  for (;;) {
    const piece = await next;
    if (!piece) return;
    if (request.ahead) {
      next = fetchNext(pool, request, windows);
      // Who has enough by then does not wait for it.
      next.catch(() => {});
      // Asked for indeed, before the caller keeps the thread to itself.
      await turn();
    }
    if (piece.runs.length > 0) yield piece;
    if (!request.ahead) next = fetchNext(pool, request, windows);
  }
}

interface Windows {
  /** Where reading goes on. */
  from: number;
  days: number;
  /** Times a piece. */
  size: number;
}

const openWindows = ({ range }: PieceRequest): Windows => ({ from: range.from, days: 1, size: 1 });

/** @returns null at the end */
async function fetchNext(
  pool: Pick<Pool, 'query'>,
  request: PieceRequest,
  windows: Windows,
): Promise<Piece | null> {
  for (;;) {
    const first = request.days.findIndex(day => day + DAY_US > windows.from);
    const last = request.days[Math.min(first + windows.days, request.days.length) - 1];
    if (first === -1 || last === undefined) return null;
    const from = Math.max(windows.from, request.days[first]!);
    const to = Math.min(request.range.to, last + DAY_US);
    if (from >= to) return null;
    const { runs, until, messages } = await fetchPiece(pool, request, { from, to }, windows.size);
    if (until === null) {
      if (windows.size >= LARGEST_PIECE) {
        const moment = new Date(millisOf(from)).toISOString();
        throw new TooManyAtOnce(`there are too many readings of ${moment} to read them in pieces: use SQL`);
      }
      windows.size *= 4;
      continue;
    }
    if (until < to) windows.days = 1;
    else if (messages < FEW_MESSAGES) windows.days = Math.min(2 * windows.days, DAYS_PER_WINDOW);
    windows.from = until;
    return { range: { from, to: until }, runs };
  }
}

interface PieceRow extends ChunkRow {
  /** Of rows that are not compacted, in place of a chunk. */
  hotShape: number;
  hot: Buffer | null;
  columns: [name: string, type: Column['type'], position: number][] | null;
}

interface Fetched {
  readonly runs: Piece['runs'];
  /** All before it is there; null when not even a microsecond is whole. */
  readonly until: number | null;
  readonly messages: number;
}

async function fetchPiece(
  pool: Pick<Pool, 'query'>,
  request: PieceRequest,
  range: Range,
  size: number,
): Promise<Fetched> {
  const chunksMax = CHUNKS_PER_PIECE * size;
  const rowsMax = ROWS_PER_PIECE * size;
  // Not a prepared statement: with the times known, it is planned for the tables of these days alone.
  const { rows } = await pool.query<PieceRow>(statement(request), [
    request.device,
    timestampOf(Math.floor(range.from / DAY_US) * DAY_US),
    timestampOf(range.from),
    timestampOf(range.to),
    request.metrics,
    chunksMax + 1,
    rowsMax + 1,
  ]);
  const hot = rows.flatMap(row =>
    row.hot ? readHotRows(row.hot, row.hotShape).map(run => ({ run: runOfRows(run), of: row })) : [],
  );
  const chunks = rows.filter(row => !row.hot).map(row => ({ chunk: chunkOf(row), of: row }));
  // One more than a piece takes: what it has, and whatever comes later, is left for the next one.
  let until = range.to;
  if (chunks.length > chunksMax) until = Math.max(...chunks.map(({ chunk }) => chunk.at));
  if (hot.reduce((sum, { run }) => sum + run.at.length, 0) > rowsMax) {
    until = Math.min(until, Math.max(...hot.map(({ run }) => run.at.at(-1)!)));
  }
  if (until <= range.from) return { runs: [], until: null, messages: 0 };
  const decoded = chunks
    .filter(({ chunk }) => chunk.at < until)
    .map(({ chunk, of }) => ({ run: runOfChunk(chunk), of }));
  const runs = [...decoded, ...hot].map(({ run, of }) => ({
    run,
    columns: (of.columns ?? []).map(([metric, type, position]) => ({ run, metric, type, position })),
  }));
  return { runs, until, messages: runs.reduce((sum, { run }) => sum + run.at.length, 0) };
}

/** The shapes that have one of the metrics; of all of them when bare messages are wanted, too. */
const shapesOf = (withBare: boolean) =>
  withBare ? '' : 'and shape in (select shape from holdfast.shape_metric where name = any ($5))';
const columnsOf = (shape: string) => `
  (select json_agg(json_build_array(m.name, m.type, m.position) order by m.type, m.position)
     from holdfast.shape_metric m where m.shape = ${shape} and m.name = any ($5)) as columns`;

/** Whether the chunk `c` lies within an hour whose minutes of the metric are known. */
export const hasMinutes = (c: string, metric: string): string => `
  exists (select from holdfast.minutes m
           where m.device = ${c}.device and m.metric = ${metric}
             and m.at = date_trunc('hour', ${c}.at, 'UTC') and ${c}.until < m.at + interval '1 hour')`;

/** A chunk lies within one day. */
const statement = ({ withBare, withoutMinutes }: PieceRequest) => `
  with c as materialized (
    select * from holdfast.chunk c
     where device = $1 and at >= $2 and at < $4 and until >= $3 ${shapesOf(withBare)}
           ${withoutMinutes ? `and not ${hasMinutes('c', '(select id from holdfast.metric where name = any ($5))')}` : ''}
     order by at limit $6),
  edge as (select case when count(*) = $6 then max(at) end as at from c),
  h as materialized (
    select * from holdfast.message
     where device = $1 and at >= $3 and at < $4 and at < coalesce((select at from edge), $4)
       ${shapesOf(withBare)}
     order by at limit $7)
  select ${CHUNK_COLUMNS}, null::int as "hotShape", null::bytea as hot, ${columnsOf('c.shape')} from c
  union all
  select ${CHUNK_COLUMNS}, "hotShape", hot, ${columnsOf('"hotShape"')}
    from (select shape as "hotShape", string_agg(record_send(${HOT_ROW}), '') as hot
            from h group by shape) packed,
         (select (null::holdfast.chunk).*) no_chunk`;
