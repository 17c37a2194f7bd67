/**
 * PostgreSQL refuses to run as root. As root we hand it to a user without rights; this module picks that user and a
 * folder this user can reach.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { processIdentity } from './process-table.ts';

export interface User {
  readonly uid: number;
  readonly gid: number;
  readonly name: string;
}

/** The user for programs that refuse root; undefined when this process is not root and can run them itself. */
export function unprivilegedUser(): User | undefined {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ['postgres', 'nobody']) {
    const ids = ['-u', '-g'].map(flag => spawnSync('id', [flag, name], { encoding: 'utf8' }));
    const [uid, gid] = ids.map(({ status, stdout }) => (status === 0 ? Number(stdout) : Number.NaN));
    if (uid && gid && uid > 0) return { uid, gid, name };
  }
  throw new Error(
    'PostgreSQL does not run as root, and there is neither a user postgres nor nobody to run it as',
  );
}

/** Whether that user gets to the folder, past every parent of it. */
export function canReach(user: User, directory: string): boolean {
  const { status } = spawnSync('/bin/sh', ['-c', 'cd "$1"', 'sh', directory], {
    cwd: '/',
    uid: user.uid,
    gid: user.gid,
    stdio: 'ignore',
  });
  return status === 0;
}

const pointerName = 'moved-to.json';
const markName = 'belongs-to.json';
const standInPattern = /^holdfast-[0-9a-f]{16}-./;
/** Not the shared temporary folder where there is another: anybody could have put something under our name there. */
const systemFolders = ['/var/lib', '/var/tmp', '/tmp'];

/**
 * A folder in the system's own place for such data that stands in for `directory`, for a user who cannot reach the
 * latter. `directory` keeps a pointer to it; without the pointer (somebody cleared the folder) the stand-in is
 * started empty too.
 */
export function standIn(directory: string): string {
  const known = existingStandIn(directory);
  if (known !== undefined) return known;
  const place = join(systemFolder(), standInName(directory));
  rmSync(place, { recursive: true, force: true });
  makeOwnFolder(place);
  const { dev: device } = statSync(directory);
  const text = JSON.stringify({ directory, device, place, id: randomUUID() });
  writeFileSync(join(place, markName), text);
  writeFileSync(join(directory, pointerName), text);
  return place;
}

/** The stand-in that `directory` has, if it has one; changes nothing. */
export function existingStandIn(directory: string): string | undefined {
  const pointer = readOr(join(directory, pointerName));
  if (pointer === undefined) return undefined;
  const place = join(systemFolder(), standInName(directory));
  return readOr(join(place, markName)) === pointer ? place : undefined;
}

/** Removes the folder of a stack. PostgreSQL's data is elsewhere where its user cannot reach it; the way to it is in this folder. */
export function removeStackFolder(directory: string): void {
  const elsewhere = existingStandIn(join(directory, 'postgres'));
  for (const folder of [...(elsewhere ? [elsewhere] : []), directory])
    rmSync(folder, { recursive: true, force: true });
}

/**
 * Removes our stand-ins in `folders` whose own folder is gone for good: not those of a volume that is only not mounted
 * now, nor those a server still runs on.
 */
export function removeAbandonedStandIns(folders: readonly string[] = systemFolders): void {
  for (const folder of folders) {
    for (const name of namesIn(folder)) {
      const place = join(folder, name);
      if (standInPattern.test(name) && isAbandoned(place))
        rmSync(place, { recursive: true, force: true, maxRetries: 3 });
    }
  }
}

function isAbandoned(place: string): boolean {
  const found = lstatSync(place, { throwIfNoEntry: false });
  if (!found?.isDirectory() || found.uid !== process.getuid?.()) return false;
  const mark = recordIn(join(place, markName));
  if (typeof mark?.directory !== 'string' || mark.place !== place) return false;
  if (basename(place) !== standInName(mark.directory)) return false;
  const running = recordIn(join(place, 'running.json'));
  if (typeof running?.pid === 'number' && processIdentity(running.pid) === running.identity) return false;
  try {
    if (statSync(mark.directory, { throwIfNoEntry: false })) return false;
    return deviceOfNearest(dirname(mark.directory)) === mark.device;
  } catch {
    // It cannot be asked: it may be there.
    return false;
  }
}

/** Of the first folder on the way up that exists. */
function deviceOfNearest(directory: string): number {
  return statSync(directory, { throwIfNoEntry: false })?.dev ?? deviceOfNearest(dirname(directory));
}

function standInName(directory: string): string {
  const key = createHash('sha256').update(directory).digest('hex').slice(0, 16);
  return `holdfast-${key}-${basename(directory)}`;
}

function systemFolder(): string {
  for (const folder of systemFolders) {
    try {
      execFileSync('test', ['-w', folder]);
      return folder;
    } catch {
      // The next one.
    }
  }
  throw new Error('none of /var/lib, /var/tmp and /tmp can be written to');
}

function makeOwnFolder(place: string): void {
  mkdirSync(place, { mode: 0o711 });
  const made = lstatSync(place);
  if (!made.isDirectory() || made.uid !== process.getuid?.())
    throw new Error(`${place} belongs to somebody else`);
  chmodSync(place, 0o711);
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function recordIn(file: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

function readOr(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
