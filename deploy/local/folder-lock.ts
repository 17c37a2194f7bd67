/**
 * One process at a time works on a folder: fetches packages into it, or runs the demo on its data. The lock is a file
 * that names its holder; that of a dead process is broken.
 */
import { randomUUID } from 'node:crypto';
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { processIdentity } from './process-table.ts';

const pauseMs = 100;

/** @param waiting is told once who holds the lock; when it throws, the wait ends with that error. */
export async function withFolderLock<T>(
  folder: string,
  waiting: (holder: number) => void,
  work: () => Promise<T>,
): Promise<T> {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, 'lock');
  const mine = JSON.stringify({ pid: process.pid, identity: processIdentity(process.pid) });
  let told = false;
  while (!take(file, mine)) {
    const text = read(file);
    if (text === undefined) continue;
    const holder = holderIn(text);
    if (holder === undefined || processIdentity(holder.pid) !== holder.identity) {
      breakLock(file, text);
      continue;
    }
    if (!told) waiting(holder.pid);
    told = true;
    await sleep(pauseMs);
  }
  try {
    return await work();
  } finally {
    if (read(file) === mine) rmSync(file, { force: true });
  }
}

function take(file: string, mine: string): boolean {
  // A link, not a create: whoever reads the lock finds it whole.
  const draft = `${file}.${randomUUID()}`;
  writeFileSync(draft, mine, { flag: 'wx' });
  try {
    linkSync(draft, file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    rmSync(draft, { force: true });
  }
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

function holderIn(text: string): { pid: number; identity: string } | undefined {
  try {
    return JSON.parse(text) as { pid: number; identity: string };
  } catch {
    return undefined;
  }
}

/** Its holder is dead. Moved aside first: of two who find it so, one takes it away. */
function breakLock(file: string, text: string): void {
  const aside = `${file}.${process.pid}`;
  try {
    renameSync(file, aside);
  } catch {
    return;
  }
  if (read(aside) !== text) renameSync(aside, file);
  else rmSync(aside, { force: true });
}
