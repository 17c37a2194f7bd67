/**
 * A private PostgreSQL for history: checksums on, every commit on disk before it is acknowledged (invariants A, I).
 *
 *   directory/            ours: password, running.json
 *   directory/data/       PostgreSQL's own, belongs to the user it runs as
 *
 * As root the whole folder moves to the system's own place when that user cannot reach it (see unprivileged.ts).
 */
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import pg from 'pg';
import { type Binaries, type Binary, binary } from './binaries.ts';
import { bindAddress, commandLine, runToEnd } from './command-line.ts';
import { onPort } from './ports.ts';
import { launchServer } from './process.ts';
import { processIdentity } from './process-table.ts';
import { keptPassword } from './secrets.ts';
import type { Server } from './server.ts';
import { canReach, removeAbandonedStandIns, standIn, type User, unprivilegedUser } from './unprivileged.ts';

export interface PostgresOptions {
  readonly binaries: Binaries;
  readonly directory: string;
  readonly port?: number;
  /** Told where the data went when it could not be in `directory`. */
  readonly report?: (line: string) => void;
}

const host = '127.0.0.1';
const administrator = 'holdfast';
const database = 'holdfast';

/** The URL is the superuser's, with a generated password, on the database `holdfast`. */
export async function startPostgres(options: PostgresOptions): Promise<Server> {
  const program = binary(options.binaries, 'postgres');
  const initdb = binary(options.binaries, 'initdb');
  const asked = resolve(options.directory);
  mkdirSync(asked, { recursive: true });
  const user = unprivilegedUser();
  const directory = placeFor(asked, user, options.report);
  const data = join(directory, 'data');
  const password = keptPassword(join(directory, 'password'));
  const owner = existsSync(data) ? ownerOf(data, user) : user;

  if (!existsSync(data)) initialise({ initdb, directory, data, password, owner });
  refuseOtherMajor(data, program);

  return onPort(options.port, async port => {
    const url = (name: string) => `postgres://${administrator}:${password}@${host}:${port}/${name}`;
    const command = commandLine({
      binary: program,
      name: 'postgres',
      args: ['-D', data, ...settings(bindAddress(program, host), port)],
      directory,
      publish: { host, port },
      user: owner,
    });
    const server = await launchServer({
      ...command,
      name: 'postgres',
      host,
      port,
      url: url(database),
      directory,
      // Fast shutdown: SIGTERM would wait for every client to leave by itself.
      stopSignal: 'SIGINT',
      stopTimeoutMs: 30_000,
      // Replaying what a kill left in the log takes its time.
      readyTimeoutMs: 180_000,
      answers: async () => (await query(url('postgres'), 'SELECT 1')).length === 1,
      beforeStart: async () => {
        await command.beforeStart?.();
        removeStalePidFile(data);
      },
    });
    try {
      const there = await query(url('postgres'), `SELECT 1 FROM pg_database WHERE datname = '${database}'`);
      if (there.length === 0) await query(url('postgres'), `CREATE DATABASE ${database}`);
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  });
}

function settings(address: string, port: number): string[] {
  const values: Record<string, string> = {
    listen_addresses: address,
    port: String(port),
    unix_socket_directories: '',
    synchronous_commit: 'on',
    fsync: 'on',
    full_page_writes: 'on',
    shared_buffers: '256MB',
    max_wal_size: '2GB',
    max_connections: '100',
    autovacuum: 'on',
    // Compilation costs more than it gains on our short statements.
    jit: 'off',
    // A machine without time zone data knows GMT alone.
    timezone: 'GMT',
    log_timezone: 'GMT',
    log_destination: 'stderr',
    logging_collector: 'off',
  };
  return Object.entries(values).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
}

function placeFor(asked: string, user: User | undefined, report?: (line: string) => void): string {
  if (!user) {
    chmodSync(asked, 0o700);
    return asked;
  }
  removeAbandonedStandIns();
  chmodSync(asked, 0o711);
  if (canReach(user, asked)) return asked;
  const place = standIn(asked);
  report?.(`PostgreSQL runs as the user ${user.name}, who cannot reach ${asked}; its data is in ${place}`);
  return place;
}

interface Initialise {
  readonly initdb: Binary;
  readonly directory: string;
  readonly data: string;
  readonly password: string;
  readonly owner: User | undefined;
}

/** Made beside its place and moved there when complete, so that a half-made one is never taken for data. */
function initialise({ initdb, directory, data, password, owner }: Initialise): void {
  const draft = join(directory, 'data.new');
  const passwordFile = join(directory, 'password.initdb');
  rmSync(draft, { recursive: true, force: true });
  rmSync(passwordFile, { force: true });
  mkdirSync(draft, { mode: 0o700 });
  writeFileSync(passwordFile, password, { mode: 0o600, flag: 'wx' });
  if (owner) {
    chownSync(draft, owner.uid, owner.gid);
    chownSync(passwordFile, owner.uid, owner.gid);
  }
  try {
    runToEnd({
      binary: initdb,
      name: 'initdb',
      args: [
        ...['-D', draft, '--username', administrator, '--pwfile', passwordFile],
        ...['--auth', 'scram-sha-256', '--data-checksums', '--encoding', 'UTF8', '--locale', 'C'],
      ],
      directory,
      user: owner,
    });
  } finally {
    rmSync(passwordFile, { force: true });
  }
  renameSync(draft, data);
}

/** Data made by an ordinary user stays that user's when root starts it. */
function ownerOf(data: string, user: User | undefined): User | undefined {
  const { uid, gid } = statSync(data);
  if (process.getuid?.() === uid) return undefined;
  if (!user) throw new Error(`${data} belongs to another user (uid ${uid}); clear it, or start as that user`);
  return { uid, gid, name: `uid ${uid}` };
}

function refuseOtherMajor(data: string, program: Binary): void {
  let made: string;
  try {
    made = readFileSync(join(data, 'PG_VERSION'), 'utf8').trim();
  } catch {
    throw new Error(`${data} is not a PostgreSQL data folder: move it away, or clear it`);
  }
  const found = program.version.split('.')[0] ?? '';
  if (made !== found) {
    throw new Error(
      `${data} was made by PostgreSQL ${made}, but version ${program.version} was found: bring version ${made} back, or clear the folder`,
    );
  }
}

/**
 * After kill -9 postmaster.pid stays behind. PostgreSQL sees through that itself, unless the number has gone to
 * another process of the same user; then it would refuse to start for ever.
 */
function removeStalePidFile(data: string): void {
  const file = join(data, 'postmaster.pid');
  let pid: number;
  try {
    pid = Number(readFileSync(file, 'utf8').split('\n')[0]);
  } catch {
    return;
  }
  if (processIdentity(pid) !== undefined && isPostgres(pid)) return;
  rmSync(file, { force: true });
}

function isPostgres(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('postgres');
  } catch {
    // Where it cannot be asked, PostgreSQL's own check has the last word.
    return true;
  }
}

async function query(url: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
  // A connection that breaks rejects the query below; the event alone must not end the process.
  client.on('error', () => undefined);
  try {
    await client.connect();
    return (await client.query(sql)).rows;
  } finally {
    await client.end().catch(() => undefined);
  }
}
