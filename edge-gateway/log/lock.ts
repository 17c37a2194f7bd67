/**
 * One process at a time per folder. Node has no flock, so the lock is a file that says who holds it: process id and
 * its start time, boot of the machine, and the folder it was made for. A lock whose process is gone, whose id now
 * belongs to another process, which is from before a reboot, or which came along with a copy of the folder, is stale
 * and taken over. Two processes behind separate pid namespaces cannot see each other; for them the random log ids
 * keep the data right.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { codeOf } from './files.ts';

export const LOCK_NAME = 'gateway.lock';
/** Two that take over the same stale lock at once: the later one has replaced it by then. */
const TAKEOVER_SETTLE_MS = 50;

interface Holder {
  readonly token: string;
  readonly pid: number;
  /** When the process started, in ticks since boot; null where the system does not tell. */
  readonly processStart: string | null;
  readonly pidNamespace: string | null;
  readonly machineBoot: string;
  /** Device and inode of the folder. */
  readonly folder: string;
}

export type LockOutcome =
  | { readonly outcome: 'held'; readonly release: () => Promise<void> }
  | { readonly outcome: 'refused'; readonly reason: string };

/** @param bootId of the machine. Rejects with the system error when the folder cannot be written. */
export async function lockFolder(directory: string, bootId: string): Promise<LockOutcome> {
  const path = join(directory, LOCK_NAME);
  const { dev, ino } = await fs.stat(directory);
  const mine: Holder = {
    token: randomBytes(12).toString('hex'),
    pid: process.pid,
    processStart: processStart(process.pid),
    pidNamespace: pidNamespace(),
    machineBoot: bootId,
    folder: `${dev}:${ino}`,
  };
  const held: LockOutcome = { outcome: 'held', release: () => release(path, mine.token) };
  const draft = join(directory, `${LOCK_NAME}.${mine.token}`);
  await fs.writeFile(draft, JSON.stringify(mine), { flag: 'wx' });
  try {
    // A link, not a create: whoever reads the lock finds it whole.
    const isFree = await fs.link(draft, path).then(
      () => true,
      error => {
        if (codeOf(error) === 'EEXIST') return false;
        throw error;
      },
    );
    if (isFree) return held;
    const holder = await readHolder(path);
    if (holder && isAlive(holder, mine)) {
      return { outcome: 'refused', reason: `the buffer ${directory} is in use by process ${holder.pid}` };
    }
    await fs.rename(draft, path);
    await delay(TAKEOVER_SETTLE_MS);
    const winner = await readHolder(path);
    if (winner?.token === mine.token) return held;
    return { outcome: 'refused', reason: `the buffer ${directory} was taken by process ${winner?.pid}` };
  } finally {
    await fs.unlink(draft).catch(() => undefined);
  }
}

async function release(path: string, token: string): Promise<void> {
  if ((await readHolder(path))?.token === token) await fs.unlink(path);
}

/** @returns null when there is no lock, or one torn by a power cut. */
async function readHolder(path: string): Promise<Holder | null> {
  try {
    return JSON.parse(await fs.readFile(path, 'utf8')) as Holder;
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || error instanceof SyntaxError) return null;
    throw error;
  }
}

function isAlive(holder: Holder, mine: Holder): boolean {
  if (holder.machineBoot !== mine.machineBoot || holder.folder !== mine.folder) return false;
  if (holder.pidNamespace !== mine.pidNamespace) return false;
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if (codeOf(error) === 'ESRCH') return false;
  }
  return holder.processStart === processStart(holder.pid);
}

function processStart(pid: number): string | null {
  try {
    // Fields after the command in parentheses, which may itself hold anything; the start time is the 22nd.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

function pidNamespace(): string | null {
  try {
    return readlinkSync('/proc/self/ns/pid');
  } catch {
    return null;
  }
}
