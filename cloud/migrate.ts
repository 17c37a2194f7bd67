/** Applies `sql/*.sql` in the order of their names, each once, each in a transaction. Safe to run from several nodes at a time. */
import { readdir, readFile } from 'node:fs/promises';
import type { Pool } from 'pg';

const FOLDER = new URL('../sql/', import.meta.url);

export async function migrate(
  pool: Pool,
  partitions: number,
): Promise<{ historyId: string; partitions: number }> {
  const client = await pool.connect();
  try {
    await client.query('select pg_advisory_lock(hashtext($1))', ['holdfast.migrate']);
    await client.query(
      'create table if not exists public.holdfast_migration (name text primary key, applied_at timestamptz default now())',
    );
    const { rows } = await client.query<{ name: string }>('select name from public.holdfast_migration');
    const applied = new Set(rows.map(row => row.name));
    for (const name of (await readdir(FOLDER)).filter(file => file.endsWith('.sql')).sort()) {
      if (applied.has(name)) continue;
      const statements = await readFile(new URL(name, FOLDER), 'utf8');
      try {
        await client.query('begin');
        await client.query(statements);
        await client.query('insert into public.holdfast_migration (name) values ($1)', [name]);
        await client.query('commit');
      } catch (error) {
        await client.query('rollback');
        throw new Error(`sql/${name} could not be applied: ${(error as Error).message}`, { cause: error });
      }
    }
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
    return { historyId: history.rows[0]!.id, partitions: history.rows[0]!.partitions };
  } finally {
    await client.query('select pg_advisory_unlock_all()').catch(() => {});
    client.release();
  }
}
