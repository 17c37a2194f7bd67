/** `holdfast history to-timescale`: history's tables become hypertables, with all that is in them. */
import pg from 'pg';
import { moveToTimescale } from '../migrate.ts';
import { CommandFailed, print } from './api-client.ts';

export async function toTimescale(json: boolean): Promise<void> {
  const connectionString = process.env.HOLDFAST_POSTGRES_URL;
  if (!connectionString) throw new CommandFailed('HOLDFAST_POSTGRES_URL: missing, history is there', 2);
  const pool = new pg.Pool({ connectionString, max: 1, keepAlive: true });
  pool.on('error', () => {});
  try {
    const startedAt = performance.now();
    const found = await moveToTimescale(pool);
    if (!found) throw new CommandFailed('no history of this version: start its cloud node first');
    if (found.on === 'stock') throw new CommandFailed(`nothing was moved: ${found.why}`);
    const seconds = Math.round((performance.now() - startedAt) / 100) / 10;
    const { version, licence, moved } = found;
    print(json, { version, licence, moved, seconds }, () => [
      moved
        ? `History is on TimescaleDB ${version} (licence: ${licence}) now; it took ${seconds} s.`
        : `History is on TimescaleDB ${version} (licence: ${licence}) already.`,
    ]);
  } catch (error) {
    if (error instanceof CommandFailed) throw error;
    throw new CommandFailed(`PostgreSQL: ${(error as Error).message}`);
  } finally {
    await pool.end();
  }
}
