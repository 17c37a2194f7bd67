/**
 * Applies `sql/*.sql` in the order of their names, each once, each in a transaction; then what TimescaleDB needs, where it is
 * (`history/timescale.ts`). Safe to run from several nodes at a time, and beside running ones.
 */
import { readdir, readFile } from 'node:fs/promises';
import type { Pool, PoolClient } from 'pg';
import { adoptTimescale, type Timescale, type TimescaleWish } from './history/timescale.ts';

const FOLDER = new URL('../sql/', import.meta.url);

export interface Migrated {
  readonly historyId: string;
  readonly partitions: number;
  readonly timescale: Timescale;
}

export async function migrate(
  pool: Pool,
  partitions: number,
  wish: TimescaleWish = 'auto',
): Promise<Migrated> {
  return migrating(pool, async client => {
    const applied = await appliedTo(client);
    for (const name of (await readdir(FOLDER)).filter(file => file.endsWith('.sql')).sort()) {
      if (!applied.has(name)) await apply(client, name);
    }
    const timescale = await adoptTimescale(client, applied, name => apply(client, name), {
      wish,
      withReadings: false,
    });
    await client.query('insert into holdfast.history (partitions) values ($1) on conflict do nothing', [
      partitions,
    ]);
    const history = await client.query<{ id: string; partitions: number }>(
      'select id, partitions from holdfast.history',
    );
    // Nobody owns them yet.
    await client.query(
      'insert into holdfast.partition (id) select generate_series(0, $1 - 1) on conflict do nothing',
      [history.rows[0]!.partitions],
    );
    return { historyId: history.rows[0]!.id, partitions: history.rows[0]!.partitions, timescale };
  });
}

/** Readings go along. @returns null when the database holds no history of this version */
export async function moveToTimescale(pool: Pool): Promise<Timescale | null> {
  return migrating(pool, async client => {
    const there = await client.query(
      `select from pg_class where oid = to_regclass('public.holdfast_migration')`,
    );
    if (there.rowCount === 0) return null;
    const applied = await appliedTo(client);
    const needed = (await readdir(FOLDER)).filter(file => file.endsWith('.sql'));
    if (!needed.every(name => applied.has(name))) return null;
    return adoptTimescale(client, applied, name => apply(client, name), { wish: 'auto', withReadings: true });
  });
}

async function migrating<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  try {
    await client.query('select pg_advisory_lock(hashtext($1))', ['holdfast.migrate']);
    return await work(client);
  } finally {
    await client.query('select pg_advisory_unlock_all()').catch(() => {});
    client.release();
  }
}

async function appliedTo(client: PoolClient): Promise<Set<string>> {
  await client.query(
    'create table if not exists public.holdfast_migration (name text primary key, applied_at timestamptz default now())',
  );
  const { rows } = await client.query<{ name: string }>('select name from public.holdfast_migration');
  return new Set(rows.map(row => row.name));
}

async function apply(client: PoolClient, name: string): Promise<void> {
  const statements = await readFile(new URL(name, FOLDER), 'utf8');
  try {
    await client.query('begin');
    await client.query(statements);
    await client.query('insert into public.holdfast_migration (name) values ($1)', [name]);
    await client.query('commit');
  } catch (error) {
    await client.query('rollback');
    const { message, detail } = error as Error & { detail?: string };
    throw new Error(`sql/${name} could not be applied: ${message}${detail ? ` (${detail})` : ''}`, {
      cause: error,
    });
  }
}
