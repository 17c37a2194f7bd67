/**
 * One step of compaction: messages of some devices and a range of time leave `message`, become chunks, and are counted in the
 * aggregates, in one transaction (B, C). Killed at any statement it has done nothing.
 *
 *   message ─▶ runs of one key ─┬─▶ chunks of that day        small ones of before are taken up and written anew
 *                               ├─▶ aggregates by hour
 *                               └─▶ minutes of what is sent often
 *
 * REPEATABLE READ: what is deleted is what was read, whatever is written meanwhile. Whoever meets a row that another has
 * changed since gives up and tries again later.
 */

import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ClientBase } from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { type Aggregate, aggregateBy, HOUR_MICROSECONDS } from './aggregates.ts';
import { type ChunkKey, MESSAGES_PER_CHUNK, packChunk, unpackChunk } from './chunk.ts';
import type { DayOfMessages } from './due.ts';
import {
  addMessages,
  inOrder,
  MESSAGE_COLUMNS,
  type MessageRun,
  newRun,
  readMessageRows,
} from './message-rows.ts';
import type { Shapes } from './shapes.ts';
import { type AggregateOf, addAggregates, insertChunk, TIME_2000, takeSmallChunks } from './store-chunks.ts';
import { addMinutes, type SeriesOfStep } from './store-minutes.ts';

export interface CompactionStep {
  readonly tables: DayOfMessages;
  /** Microseconds since 2000, the end not included; within the day. */
  readonly from: number;
  readonly to: number;
  readonly devices: readonly number[];
}

export interface CompactionCount {
  readonly messages: number;
  readonly chunks: number;
  readonly bytes: number;
}

/** Chunks with fewer messages are joined with what comes later of the same day. */
const SMALL_CHUNK_MESSAGES = 512;
/** One compactor at a time, of all nodes. */
const COMPACTION_LOCK = `hashtext('holdfast.compaction')`;

/**
 * @param client of nobody else
 * @returns null when another node compacts
 * @throws what PostgreSQL says; then nothing was changed
 */
export async function compact(
  client: ClientBase,
  shapes: Shapes,
  step: CompactionStep,
): Promise<CompactionCount | null> {
  await client.query('begin isolation level repeatable read');
  try {
    const { rows } = await client.query<{ mine: boolean }>(
      `select pg_try_advisory_xact_lock(${COMPACTION_LOCK}) as mine`,
    );
    const count = rows[0]!.mine ? await compactWithin(client, shapes, step) : null;
    await client.query('commit');
    return count;
  } catch (error) {
    await client.query('rollback').catch(() => {});
    throw error;
  }
}

async function compactWithin(
  client: ClientBase,
  shapes: Shapes,
  step: CompactionStep,
): Promise<CompactionCount> {
  const { tables, devices } = step;
  const runs = readMessageRows(await copyOut(client, selectMessages(step)));
  const byKey = new Map(runs.map(run => [keyOf(run), run]));
  const series = await seriesIn(runs, shapes);
  await addMinutes(client, step, series);
  await addAggregates(client, series.flatMap(hoursOf));
  const messages = runs.reduce((sum, run) => sum + run.at.length, 0);
  for (const chunk of await takeSmallChunks(client, tables.chunk, devices, SMALL_CHUNK_MESSAGES)) {
    const key = keyOf(chunk);
    const there = unpackChunk(chunk);
    const run = byKey.get(key) ?? newRun(chunk, { numbers: chunk.numbers, texts: there.texts.length });
    byKey.set(key, run);
    addMessages(run, there);
  }
  let chunks = 0;
  let bytes = 0;
  for (const run of byKey.values()) {
    for (const part of inOrder(run, MESSAGES_PER_CHUNK)) {
      const { device, shape, log, kind } = run;
      const chunk = packChunk({ device, shape, log, kind }, part);
      await insertChunk(client, tables.chunk, chunk);
      chunks++;
      bytes += chunk.body.length;
    }
  }
  const { rowCount } = await client.query(
    `delete from ${tables.message} where device = any ($1) and at >= ${timeOf(step.from)} and at < ${timeOf(step.to)}`,
    [devices],
  );
  if (rowCount !== messages) throw new Error(`${messages} messages were read and ${rowCount} deleted`);
  return { messages, chunks, bytes };
}

const keyOf = ({ device, shape, log, kind }: ChunkKey): string => `${device} ${shape} ${log} ${kind}`;

/** A whole number, so it needs no parameter: COPY takes none. */
const timeOf = (microseconds: number): string =>
  `${TIME_2000} + ${Math.floor(microseconds)} * interval '1 microsecond'`;

const selectMessages = ({ tables, from, to, devices }: CompactionStep): string =>
  `select ${MESSAGE_COLUMNS} from ${tables.message}
    where device = any ('{${devices.map(device => Math.floor(device)).join()}}') and at >= ${timeOf(from)} and at < ${timeOf(to)}
    order by device, shape, log, kind, at, sequence, element`;

async function copyOut(client: ClientBase, query: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  const into = new Writable({
    write(part: Buffer, _, done) {
      parts.push(part);
      done();
    },
  });
  await pipeline(client.query(copyTo(`copy (${query}) to stdout with (format binary)`)), into);
  return Buffer.concat(parts);
}

async function seriesIn(runs: readonly MessageRun[], shapes: Shapes): Promise<SeriesOfStep[]> {
  const found = new Map<string, SeriesOfStep>();
  for (const { device, shape, at, numbers } of runs) {
    for (const [column, metric] of (await shapes.numbersOf(shape)).entries()) {
      const key = `${device} ${metric}`;
      const of = found.get(key) ?? { device, metric, runs: [] };
      found.set(key, of);
      of.runs.push({ at, values: numbers[column]! });
    }
  }
  return [...found.values()];
}

function hoursOf({ device, metric, runs }: SeriesOfStep): AggregateOf[] {
  const hours = new Map<number, Aggregate>();
  for (const { at, values } of runs) aggregateBy(HOUR_MICROSECONDS, at, values, hours);
  return [...hours].map(([at, one]) => ({ ...one, device, metric, at }));
}
