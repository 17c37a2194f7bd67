/**
 * A node's connections to PostgreSQL, by what they are for: history and everything else, heartbeats, migrations. No
 * statement waits for ever (R).
 */
import pg from 'pg';
import type { CloudConfig } from './config.ts';
import type { ServerHealth } from './health.ts';
import { migrate } from './migrate.ts';

export interface Postgres {
  readonly pool: pg.Pool;
  readonly health: ServerHealth;
  /** What a check has found. */
  noteHealth(found: ServerHealth): void;
}

const CONNECTIONS = 8;
const CONNECT_MS = 5000;
/** No statement of ours takes that long: the connection, or what it asks, has got stuck (R). */
const STATEMENT_MS = 30_000;
/** PostgreSQL frees the locks of a transaction whose client has gone silent. */
const IDLE_TRANSACTION_MS = 60_000;
const LEASE_TIMEOUT_MS = 3000;
const STARTING_MS = 60_000;
/** PostgreSQL is starting up, or goes through its log after a crash. */
const CANNOT_CONNECT_NOW = '57P03';

export function openPostgres(url: string): Postgres {
  const pool = new pg.Pool({
    connectionString: url,
    max: CONNECTIONS,
    connectionTimeoutMillis: CONNECT_MS,
    keepAlive: true,
    query_timeout: STATEMENT_MS,
    statement_timeout: STATEMENT_MS,
    idle_in_transaction_session_timeout: IDLE_TRANSACTION_MS,
  });
  let health: ServerHealth = { ok: true, reason: null };
  pool.on('error', error => {
    health = { ok: false, reason: error.message };
  });
  return {
    pool,
    get health() {
      return health;
    },
    noteHealth(found) {
      health = found;
    },
  };
}

/** Heartbeats have a connection of their own: they must not queue behind history. */
export function openLeasePool(url: string): pg.Pool {
  const pool = new pg.Pool({
    connectionString: url,
    max: 2,
    connectionTimeoutMillis: LEASE_TIMEOUT_MS,
    keepAlive: true,
    query_timeout: LEASE_TIMEOUT_MS,
    statement_timeout: LEASE_TIMEOUT_MS,
  });
  pool.on('error', () => {});
  return pool;
}

/** A migration may take long; waiting for one that another node applies, too. */
export async function migrateUnhurried(
  config: Pick<CloudConfig, 'postgresUrl' | 'partitions' | 'timescale'>,
): ReturnType<typeof migrate> {
  const pool = new pg.Pool({
    connectionString: config.postgresUrl,
    max: 1,
    connectionTimeoutMillis: CONNECT_MS,
    keepAlive: true,
  });
  pool.on('error', () => {});
  try {
    const startedAt = performance.now();
    for (;;) {
      try {
        return await migrate(pool, config.partitions, config.timescale);
      } catch (error) {
        const starting = (error as { code?: string }).code === CANNOT_CONNECT_NOW;
        if (!starting || performance.now() - startedAt > STARTING_MS) throw error;
        await new Promise(resolve => setTimeout(resolve, 200));
      }
    }
  } finally {
    await pool.end();
  }
}
