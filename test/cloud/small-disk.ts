/**
 * A PostgreSQL one of whose tablespaces is on a disk of a few megabytes: a tmpfs in a mount namespace of its own, which
 * needs no rights where the system allows user namespaces, is seen by nobody else, and is gone with the server.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { defaultCacheDirectory, findBinaries } from '../../deploy/local/find-servers.ts';
import { type Server, startPostgres } from '../../deploy/local/servers.ts';
import { unprivilegedUser } from '../../deploy/local/unprivileged.ts';
import { atEnd } from './servers.ts';

/** As root of a namespace of its own it mounts the disk, and as itself again it runs the rest of the line. */
const WRAPPER = (disk: string, bytes: number, program: string) => `#!/bin/sh
exec unshare --user --map-root-user --mount sh -c '
  mount -t tmpfs -o size=${bytes},mode=0700 tmpfs "${disk}" &&
    exec unshare --user --map-user='$(id -u)' --map-group='$(id -g)' "$@"' sh "${program}" "$@"
`;

/** The database `holdfast` is on the small disk, PostgreSQL's own log and catalogs are not. A string says why it cannot be had. */
export async function startPostgresOnSmallDisk(bytes: number): Promise<Server | string> {
  const binaries = await findBinaries({
    cacheDirectory: defaultCacheDirectory,
    report: line => process.stderr.write(`${line}\n`),
    need: ['postgres'],
  });
  const postgres = binaries.postgres!;
  if (postgres.origin.kind === 'container') return 'PostgreSQL runs in a container here';
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-test-small-disk-'));
  atEnd(async () => rmSync(directory, { recursive: true, force: true }));
  chmodSync(directory, 0o755);
  const disk = join(directory, 'disk');
  mkdirSync(disk);
  const wrap = (name: string, program: string): string => {
    const path = join(directory, name);
    writeFileSync(path, WRAPPER(disk, bytes, program), { mode: 0o755 });
    return path;
  };
  const user = unprivilegedUser();
  const tried = spawnSync(wrap('try', 'true'), {
    ...(user && { uid: user.uid, gid: user.gid }),
    encoding: 'utf8',
  });
  if (tried.status !== 0)
    return `no mount of its own for a process without rights: ${tried.stderr || tried.error?.message}`;

  const server = await startPostgres({
    binaries: { ...binaries, postgres: { ...postgres, path: wrap('postgres', postgres.path) } },
    directory: join(directory, 'server'),
  });
  atEnd(() => server.kill());
  const url = new URL(server.url);
  url.pathname = '/postgres';
  const administrator = new pg.Client({ connectionString: url.href });
  await administrator.connect();
  await administrator.query(`create tablespace small location '${disk}'`);
  await administrator.query('alter database holdfast set tablespace small');
  await administrator.end();
  return server;
}
