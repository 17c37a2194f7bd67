/** A private PostgreSQL, databases on it that are whole Holdfast histories, and psql beside it. */
import { createReadStream, createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import pg from 'pg';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import { type Dictionary, openDictionary } from '../../../cloud/history/dictionary.ts';
import { migrate } from '../../../cloud/migrate.ts';
import type { Binaries } from '../../../deploy/local/binaries.ts';
import { runCommand } from '../../../deploy/local/run-command.ts';
import { startPostgres } from '../../../deploy/local/servers.ts';
import type { BenchmarkOptions } from '../benchmark.ts';

export interface HistoryServer {
  /** A database of its own with the schema in it. */
  open(name: string): Promise<HistoryDatabase>;
  /** `psql`, or what stands in for it. */
  readonly copier: string;
}

export interface HistoryDatabase {
  readonly pool: pg.Pool;
  readonly dictionary: Dictionary;
  /** COPY of a file on this side. @param into `table (columns)` @param options `with (…)` */
  copyFile(into: string, file: string, options: string): Promise<void>;
  /** The same the other way. */
  copyToFile(query: string, file: string, options: string): Promise<void>;
  /** What is dirty goes to disk now, and not while somebody is measured. */
  checkpoint(): Promise<void>;
  /** Makes room on the disk. */
  drop(): Promise<void>;
}

const PARTITIONS = 64;
const PSQL_TIMEOUT_MS = 600_000;

export async function startHistoryServer(options: BenchmarkOptions): Promise<HistoryServer> {
  const { binaries, directory, releases } = options;
  const server = await startPostgres({ binaries, directory: join(directory, 'postgres') });
  releases.add(() => server.stop());
  return {
    copier: binaries.psql ? 'psql' : 'pg-copy-streams',
    async open(name) {
      const administrator = new pg.Client({ connectionString: server.url });
      administrator.on('error', () => {});
      await administrator.connect();
      releases.add(() => administrator.end());
      await administrator.query(`create database ${name}`);
      const url = new URL(server.url);
      url.pathname = `/${name}`;
      const pool = new pg.Pool({ connectionString: url.href, max: 4 });
      pool.on('error', () => {});
      // In use when the benchmark is interrupted, it has nobody else who listens.
      pool.on('connect', client => client.on('error', () => {}));
      // Not awaited: what is under way then ends with the server, which stops next.
      releases.add(() => void (pool.ended || pool.end().catch(() => {})));
      await migrate(pool, PARTITIONS);
      const copy = binaries.psql ? throughPsql(binaries.psql, url) : throughPool(pool);
      return {
        pool,
        dictionary: openDictionary(pool),
        ...copy,
        async checkpoint() {
          await pool.query('checkpoint');
        },
        async drop() {
          await pool.end();
          await administrator.query(`drop database ${name}`);
        },
      };
    },
  };
}

type Copy = Pick<HistoryDatabase, 'copyFile' | 'copyToFile'>;

function throughPsql({ path, env }: NonNullable<Binaries['psql']>, url: URL): Copy {
  const connection = {
    PGHOST: url.hostname,
    PGPORT: url.port,
    PGUSER: decodeURIComponent(url.username),
    PGPASSWORD: decodeURIComponent(url.password),
    PGDATABASE: url.pathname.slice(1),
  };
  async function run(command: string): Promise<void> {
    const args = ['--no-psqlrc', '--quiet', '--set', 'ON_ERROR_STOP=1', '--command', command];
    const { code, said } = await runCommand(path, args, {
      env: { ...env, ...connection },
      timeoutMs: PSQL_TIMEOUT_MS,
    });
    if (code !== 0) throw new Error(`psql: ${said}`);
  }
  return {
    copyFile: (into, file, options) => run(`\\copy ${into} from '${file}' ${options}`),
    copyToFile: (query, file, options) => run(`\\copy (${query}) to '${file}' ${options}`),
  };
}

function throughPool(pool: pg.Pool): Copy {
  const using = async (run: (client: pg.PoolClient) => Promise<void>) => {
    const client = await pool.connect();
    try {
      await run(client);
    } finally {
      client.release();
    }
  };
  return {
    copyFile: (into, file, options) =>
      using(client =>
        pipeline(createReadStream(file), client.query(copyFrom(`copy ${into} from stdin ${options}`))),
      ),
    copyToFile: (query, file, options) =>
      using(client =>
        pipeline(client.query(copyTo(`copy (${query}) to stdout ${options}`)), createWriteStream(file)),
      ),
  };
}

/** @param copied a whole COPY stream */
export async function copyInto(pool: pg.Pool, statement: string, copied: Buffer): Promise<void> {
  const client = await pool.connect();
  try {
    await pipeline([copied], client.query(copyFrom(statement)));
  } finally {
    client.release();
  }
}
