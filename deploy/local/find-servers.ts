/**
 * Finds the programs of the servers, in this order, each place asked only for what the ones before it lack:
 *
 *   this machine ─▶ a Docker engine ─▶ packages unpacked privately ─▶ apt as root, after saying so ─▶ a clear message
 *
 * Servers given by URL are the caller's to leave out of `need`.
 */
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { installAsRoot } from './apt-install.ts';
import { libraryPath, type PackageSet, unpackPackages } from './apt-packages.ts';
import {
  type Binaries,
  type Binary,
  compareVersions,
  oldestVersion,
  type ProgramName,
  programsOf,
} from './binaries.ts';
import { dockerTrouble, programsInImage } from './docker.ts';
import { type Missing, missingServersMessage } from './missing-servers.ts';
import { executables, foldersBelow, inspect, searchFolders } from './on-machine.ts';
import { runCommand } from './run-command.ts';
import { type ServerName, serverNames } from './server.ts';
import { canReach, standIn, unprivilegedUser } from './unprivileged.ts';

export type { Binaries, Binary, ProgramName } from './binaries.ts';

/** Where what was fetched is kept, ignored by git; safe to delete, it is fetched again. */
export const defaultCacheDirectory = fileURLToPath(new URL('../../.holdfast/packages', import.meta.url));

export type Place = 'machine' | 'docker' | 'packages' | 'root';

export interface FindOptions {
  readonly cacheDirectory: string;
  /** Told in one line whatever takes time or may surprise. */
  readonly report: (line: string) => void;
  /** All four by default. */
  readonly need?: readonly ServerName[];
  /** Where to look; everywhere by default. */
  readonly places?: readonly Place[];
  /** Searched in place of PATH and the usual folders. */
  readonly folders?: readonly string[];
}

/** Packages of Debian and Ubuntu; the first one decides by its version. */
const packagesOf: Readonly<Record<ServerName, readonly string[]>> = {
  mosquitto: ['mosquitto', 'mosquitto-clients'],
  nats: ['nats-server'],
  redis: ['redis-server', 'redis-tools'],
  postgres: ['postgresql'],
};

/** Without these the server cannot run; its other programs are tools for people and tests. */
const essential: Readonly<Record<ServerName, readonly ProgramName[]>> = {
  mosquitto: ['mosquitto'],
  nats: ['nats-server'],
  redis: ['redis-server'],
  postgres: ['postgres', 'initdb'],
};

type Found = Partial<Record<ProgramName, Binary>>;

/** Rejects with a message that a person can act on when a server is nowhere to be had. */
export async function findBinaries(options: FindOptions): Promise<Binaries> {
  const need = options.need ?? serverNames;
  const places = options.places ?? ['machine', 'docker', 'packages', 'root'];
  const found: Found = {};
  const reasons = new Map<ServerName, string[]>();
  const say = (server: ServerName, reason: string) =>
    reasons.set(server, [...(reasons.get(server) ?? []), reason]);
  const lacking = (programs: typeof essential) =>
    need.filter(server => programs[server].some(program => !found[program]));
  const folders = options.folders ?? searchFolders();

  if (places.includes('machine')) {
    for (const server of need) Object.assign(found, await onMachine(server, folders, say));
  }
  if (places.includes('docker') && lacking(essential).length > 0) {
    const docker = executables('docker', searchFolders())[0] ?? 'docker';
    const trouble = await dockerTrouble(docker);
    for (const server of lacking(essential)) {
      if (trouble !== undefined) {
        say(server, trouble);
        continue;
      }
      const inside = await programsInImage(server, docker, options.report);
      if ('reason' in inside) say(server, String(inside.reason));
      else Object.assign(found, inside);
    }
  }
  if (places.includes('packages') && lacking(programsOf).length > 0) {
    await fromPackages(lacking(programsOf), options, found, say);
  }
  if (places.includes('root') && lacking(essential).length > 0 && process.getuid?.() === 0) {
    const servers = lacking(essential);
    const trouble = await installAsRoot(
      servers.flatMap(server => packagesOf[server]),
      options.report,
    );
    for (const server of servers) {
      if (trouble !== undefined) say(server, trouble);
      Object.assign(found, await onMachine(server, searchFolders(), say));
    }
  }
  const missing: Missing[] = lacking(essential).map(server => ({
    server,
    reasons: reasons.get(server) ?? [],
  }));
  if (missing.length > 0) throw new Error(missingServersMessage(missing));
  return found;
}

type Say = (server: ServerName, reason: string) => void;

async function onMachine(server: ServerName, folders: readonly string[], say: Say): Promise<Found> {
  const found: Found = {};
  for (const program of programsOf[server]) {
    for (const path of executables(program, folders)) {
      const binary = await inspect(program, path, {}, { kind: 'machine' });
      if (!binary) {
        say(server, `${path} does not run`);
      } else if (compareVersions(binary.version, oldestVersion[server]) < 0) {
        say(server, `${path} is version ${binary.version}, older than ${oldestVersion[server]}`);
      } else {
        found[program] = binary;
        break;
      }
    }
  }
  // initdb and postgres must be of one version, or neither starts what the other made.
  if (found.postgres && found.initdb && found.postgres.version !== found.initdb.version)
    delete found.postgres;
  return found;
}

async function fromPackages(
  servers: readonly ServerName[],
  options: FindOptions,
  found: Found,
  say: Say,
): Promise<void> {
  const cache = reachableCache(options, servers);
  const sets = servers.map(
    (server): PackageSet => ({
      name: server,
      packages: env => (server === 'postgres' ? postgresPackages(env) : Promise.resolve(packagesOf[server])),
      oldest: oldestVersion[server],
      check: async root => {
        const unpacked = await inRoot(server, root);
        const absent = programsOf[server].filter(program => !found[program] && !unpacked[program]);
        return absent.length === 0 ? undefined : `${absent.join(', ')} from its packages does not run here`;
      },
    }),
  );
  const outcomes = await unpackPackages(sets, cache, options.report);
  for (const [at, outcome] of outcomes.entries()) {
    const server = servers[at];
    if (server === undefined) continue;
    if ('reason' in outcome) {
      say(server, outcome.reason);
      continue;
    }
    const unpacked = await inRoot(server, outcome.root);
    const whole = essential[server].every(program => unpacked[program]);
    // A server that is complete on the machine stays the machine's; the packages only add its tools.
    for (const program of programsOf[server]) {
      const binary = unpacked[program];
      if (
        binary &&
        (whole ? !essential[server].every(name => found[name]) || !found[program] : !found[program])
      ) {
        found[program] = binary;
      }
    }
  }
}

/** `postgresql` only points at the version of the suite, such as postgresql-15. */
async function postgresPackages(env: Readonly<Record<string, string>>): Promise<readonly string[]> {
  const { stdout } = await runCommand('apt-cache', ['depends', 'postgresql'], { env });
  const major = /Depends: postgresql-(\d+)$/m.exec(stdout)?.[1];
  return major === undefined ? packagesOf.postgres : [`postgresql-${major}`, `postgresql-client-${major}`];
}

async function inRoot(server: ServerName, root: string): Promise<Found> {
  const found: Found = {};
  const env = { LD_LIBRARY_PATH: libraryPath(root) };
  const folders = foldersBelow(root);
  for (const program of programsOf[server]) {
    for (const path of executables(program, folders)) {
      const binary = await inspect(program, path, env, { kind: 'packages' });
      if (!binary || compareVersions(binary.version, oldestVersion[server]) < 0) continue;
      found[program] = binary;
      break;
    }
  }
  return found;
}

/** As root PostgreSQL runs as somebody else, who has to get at what is unpacked. */
function reachableCache({ cacheDirectory, report }: FindOptions, servers: readonly ServerName[]): string {
  mkdirSync(cacheDirectory, { recursive: true });
  const user = servers.includes('postgres') ? unprivilegedUser() : undefined;
  if (!user || canReach(user, cacheDirectory)) return cacheDirectory;
  const place = standIn(cacheDirectory);
  report(
    `the user ${user.name}, who runs PostgreSQL, cannot reach ${cacheDirectory}; packages go to ${place}`,
  );
  return place;
}
