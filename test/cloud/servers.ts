/**
 * Real servers for the tests of this folder, each file its own; everything is gone when the file ends. With
 * HOLDFAST_TEST_TIMESCALE_URL, a superuser's, databases are made on the TimescaleDB there in place of a PostgreSQL of the
 * file's own.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import pg from 'pg';
import { pino } from 'pino';
import type { TimescaleWish } from '../../cloud/history/timescale.ts';
import { migrate } from '../../cloud/migrate.ts';
import type { Binaries } from '../../deploy/local/binaries.ts';
import { defaultCacheDirectory, findBinaries } from '../../deploy/local/find-servers.ts';
import {
  externalServer,
  type Server,
  startNats,
  startPostgres,
  startRedis,
} from '../../deploy/local/servers.ts';

export const silentLogger = pino({ level: 'silent' });

const releases: (() => Promise<unknown>)[] = [];

/** Runs when the file's last test is over, last registered first. */
export function atEnd(release: () => Promise<unknown>): void {
  releases.push(release);
}
after(async () => {
  for (const release of releases.reverse()) await release();
});

const starters = {
  redis: startRedis,
  postgres: startPostgres,
  nats: (options: { binaries: Binaries; directory: string }) =>
    startNats({ ...options, users: [{ user: 'test', password: 'test' }] }),
};

async function started(name: keyof typeof starters): Promise<Server> {
  const binaries = await findBinaries({
    cacheDirectory: defaultCacheDirectory,
    report: line => process.stderr.write(`${line}\n`),
    need: [name],
  });
  const directory = await mkdtemp(join(tmpdir(), `holdfast-test-${name}-`));
  const server = await starters[name]({ binaries, directory });
  atEnd(async () => {
    await server.kill();
    await rm(directory, { recursive: true, force: true });
  });
  return server;
}

export const startTestRedis = (): Promise<Server> => started('redis');
export const startTestNats = (): Promise<Server> => started('nats');
export async function startTestPostgres(): Promise<Server> {
  if (!timescaleUrl) return started('postgres');
  shared ??= sharedPostgres(timescaleUrl);
  return shared;
}

/** Undefined: the tests run on stock PostgreSQL. */
export const timescaleUrl = process.env.HOLDFAST_TEST_TIMESCALE_URL || undefined;

const databases: string[] = [];
/** One for the file: its databases go last of all, when nobody is connected any more. */
let shared: Server | undefined;

/** Others use it as well: to our own databases it is dead when it was killed, and they are gone at the end. */
function sharedPostgres(url: string): Server {
  const alive = async (allowed: boolean) => {
    for (const name of databases) {
      await administer(url, `alter database ${name} allow_connections ${allowed}`);
      if (!allowed) await administer(url, terminated(name));
    }
  };
  atEnd(async () => {
    for (const name of databases) await administer(url, `drop database if exists ${name} with (force)`);
  });
  return {
    ...externalServer('postgres', url),
    stop: () => alive(false),
    kill: () => alive(false),
    start: () => alive(true),
  };
}

const terminated = (database: string): string =>
  `select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '${database}'`;

async function administer(url: string, statement: string): Promise<void> {
  const administrator = new pg.Client({ connectionString: url });
  await administrator.connect();
  try {
    await administrator.query(statement);
  } finally {
    await administrator.end();
  }
}

/** A database of its own with the schema in it, and a pool on it that survives the server's death. */
export async function freshDatabase(
  server: Server,
  options: {
    readonly sessionTimeZone?: string;
    readonly poolMax?: number;
    readonly timescale?: TimescaleWish;
  } = {},
): Promise<pg.Pool> {
  const name = `holdfast_test_${process.pid}_${databases.length + 1}`;
  databases.push(name);
  await administer(server.url, `create database ${name}`);
  if (options.sessionTimeZone) {
    await administer(server.url, `alter database ${name} set timezone = '${options.sessionTimeZone}'`);
  }
  const url = new URL(server.url);
  url.pathname = `/${name}`;
  const pool = new pg.Pool({
    connectionString: url.href,
    max: options.poolMax ?? 4,
    connectionTimeoutMillis: 2000,
  });
  pool.on('error', () => {});
  atEnd(() => pool.end());
  await migrate(pool, 64, options.timescale);
  return pool;
}

/** Asks until the answer is yes: for what another process does in its own time. */
export async function eventually(what: string, isSo: () => Promise<boolean> | boolean): Promise<void> {
  const until = performance.now() + 30_000;
  for (;;) {
    try {
      if (await isSo()) return;
    } catch (error) {
      if (performance.now() > until) throw error;
    }
    if (performance.now() > until) throw new Error(`not within 30 s: ${what}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}
