/** Work on PostgreSQL in one transaction, on a connection of its own. */
import type { Pool, PoolClient } from 'pg';

/**
 * Commits what `work` did, or nothing of it when it rejects.
 * @param isKept whether what came of it is committed; always, if not given
 */
export async function inTransaction<T>(
  pool: Pool,
  work: (client: PoolClient) => Promise<T>,
  isKept: (outcome: T) => boolean = () => true,
  begin = 'begin',
): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  // A connection that is lost between two statements says so here, and to nobody else.
  const onError = (error: Error) => {
    broken = error;
  };
  client.on('error', onError);
  try {
    await client.query(begin);
    const outcome = await work(client);
    await client.query(isKept(outcome) ? 'commit' : 'rollback');
    return outcome;
  } catch (error) {
    await client.query('rollback').catch((rollback: Error) => {
      broken = rollback;
    });
    throw error;
  } finally {
    client.off('error', onError);
    client.release(broken);
  }
}

/** Commits what `work` did when its outcome is `done`, else nothing of it. */
export const committedWhenDone = <T extends { readonly outcome: string }>(
  pool: Pool,
  work: (client: PoolClient) => Promise<T>,
): Promise<T> => inTransaction(pool, work, ({ outcome }) => outcome === 'done');

/** All that `work` reads is of one moment. */
export const inSnapshot = <T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> =>
  inTransaction(pool, work, undefined, 'begin isolation level repeatable read read only');
