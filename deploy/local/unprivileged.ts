/**
 * PostgreSQL refuses to run as root. As root we hand it to a user without rights; this module picks that user and a
 * folder this user can reach.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { chmodSync, lstatSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';

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

/**
 * A folder in the system's own place for such data that stands in for `directory`, for a user who cannot reach the
 * latter. `directory` keeps a pointer to it; without the pointer (somebody cleared the folder) the stand-in is
 * started empty too.
 */
export function standIn(directory: string): string {
  const key = createHash('sha256').update(directory).digest('hex').slice(0, 16);
  const place = join(systemFolder(), `holdfast-${key}-${basename(directory)}`);
  const pointer = join(directory, pointerName);
  const mark = join(place, 'belongs-to.json');
  const known = readOr(pointer);
  if (known === undefined || known !== readOr(mark)) {
    rmSync(place, { recursive: true, force: true });
    makeOwnFolder(place);
    const text = JSON.stringify({ directory, place, id: randomUUID() });
    writeFileSync(mark, text);
    writeFileSync(pointer, text);
  }
  return place;
}

/** Not the shared temporary folder where there is another: anybody could have put something under our name there. */
function systemFolder(): string {
  for (const folder of ['/var/lib', '/var/tmp', '/tmp']) {
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

function readOr(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
