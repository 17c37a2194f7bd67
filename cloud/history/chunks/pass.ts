/**
 * One pass of compaction over all days: what is over becomes chunks, the space is freed.
 *
 *   each day: due steps ─▶ compacted one by one ─▶ VACUUM ─▶ a day that is over and empty is truncated
 */
import type { ClientBase } from 'pg';
import { type CompactionCount, type CompactionStep, compact } from './compact.ts';
import { closedUntil, type DayOfMessages, daysOfMessages, dueSteps } from './due.ts';
import type { Shapes } from './shapes.ts';

export interface PassOptions {
  /** For transactions, of nobody else. */
  readonly client: ClientBase;
  readonly shapes: Shapes;
  readonly nowMs: number;
  /** An hour is over that long after its end: what comes late becomes a chunk of its own, or joins one. */
  readonly graceMs: number;
  readonly signal?: AbortSignal;
  /** What failed is tried again with the next pass. */
  readonly onFailure: (reason: string) => void;
}

/** PostgreSQL is not asked for a table's lock for longer: readers and writers would queue behind it. */
const LOCK_TIMEOUT_MS = 500;

export async function compactAll(options: PassOptions): Promise<CompactionCount> {
  const { client, nowMs, signal } = options;
  let total = NOTHING;
  for (const tables of await daysOfMessages(client, nowMs)) {
    const { day } = tables;
    const until = closedUntil(day, nowMs, options.graceMs);
    let ofDay = 0;
    for (const step of await dueSteps(client, tables, until)) {
      if (signal?.aborted) return total;
      const count = await compactOrHalve(options, step);
      if (!count) return total;
      ofDay += count.messages;
      total = sum(total, count);
    }
    if (ofDay === 0 || signal?.aborted) continue;
    await client.query(`vacuum ${tables.message}, ${tables.chunk}`);
    if (closedUntil(day, nowMs, options.graceMs) < closedUntil(day, Number.MAX_SAFE_INTEGER, 0)) continue;
    await emptyDay(client, tables).catch(() => {});
  }
  return total;
}

/**
 * What cannot be compacted keeps back only its own device (H).
 * @returns null when another node compacts
 * @throws when the connection is gone
 */
async function compactOrHalve(options: PassOptions, step: CompactionStep): Promise<CompactionCount | null> {
  const { client, shapes, onFailure } = options;
  try {
    return await compact(client, shapes, step);
  } catch (error) {
    await client.query('select');
    const { devices } = step;
    if (devices.length === 1) {
      onFailure(`device ${devices[0]}, ${step.tables.day}: ${(error as Error).message}`);
      return NOTHING;
    }
    const middle = devices.length >> 1;
    const first = await compactOrHalve(options, { ...step, devices: devices.slice(0, middle) });
    const second = first && (await compactOrHalve(options, { ...step, devices: devices.slice(middle) }));
    return second && sum(first, second);
  }
}

const NOTHING: CompactionCount = { messages: 0, chunks: 0, bytes: 0 };

const sum = (a: CompactionCount, b: CompactionCount): CompactionCount => ({
  messages: a.messages + b.messages,
  chunks: a.chunks + b.chunks,
  bytes: a.bytes + b.bytes,
});

/**
 * Its index is given back only so. Whoever writes at this moment waits for a blink, or is not disturbed at all. TRUNCATE hides rows from
 * those, too, whose snapshot still has them, as that of a dump; VACUUM has left nothing only where nobody has.
 */
async function emptyDay(client: ClientBase, { message }: DayOfMessages): Promise<void> {
  await client.query('begin');
  try {
    await client.query(`set local lock_timeout = ${LOCK_TIMEOUT_MS}`);
    await client.query(`lock table ${message} in access exclusive mode`);
    const { rows } = await client.query<{ empty: boolean }>(
      'select pg_relation_size($1::regclass) = 0 as empty',
      [message],
    );
    if (rows[0]!.empty) await client.query(`truncate ${message}`);
    await client.query('commit');
  } catch (error) {
    await client.query('rollback');
    throw error;
  }
}
