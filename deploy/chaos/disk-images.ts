/** Copies of a disk at one moment, as a snapshot of a volume makes them: nothing moves while it is copied. */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, lstatSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { childrenOf } from '../local/process-table.ts';
import type { Server } from '../local/server.ts';
import { existingStandIn } from '../local/unprivileged.ts';

/** @param pid of the process that works on `from`; undefined when none does */
export function copyFolder(from: string, to: string, pid: number | undefined): void {
  rmSync(to, { recursive: true, force: true });
  frozen(pid === undefined ? [] : [pid], () =>
    cpSync(from, to, { recursive: true, filter: path => isData(path) }),
  );
}

/** Sockets are no data, and cannot be copied. */
function isData(path: string): boolean {
  const found = lstatSync(path);
  return found.isFile() || found.isDirectory();
}

export interface DatabaseImage {
  /** The server is stopped; it finds the image in place of its data. */
  putBack(): void;
}

export function imageOfPostgres(server: Server, directory: string): DatabaseImage {
  const folder = existingStandIn(join(directory, 'postgres')) ?? join(directory, 'postgres');
  const data = join(folder, 'data');
  const image = join(folder, 'data.image');
  rmSync(image, { recursive: true, force: true });
  const postmaster = server.pid();
  const family = postmaster === undefined ? [] : [postmaster, ...childrenOf(postmaster)];
  // With its owner, who is not always ours.
  frozen(family, () => execFileSync('cp', ['-a', data, image]));
  return {
    putBack() {
      rmSync(data, { recursive: true, force: true });
      renameSync(image, data);
      rmSync(join(data, 'postmaster.pid'), { force: true });
    },
  };
}

function frozen(pids: readonly number[], work: () => void): void {
  for (const pid of pids) signal(pid, 'SIGSTOP');
  try {
    work();
  } finally {
    for (const pid of [...pids].reverse()) signal(pid, 'SIGCONT');
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It ended by itself meanwhile.
  }
}

export const removeFolder = (path: string): void => {
  if (existsSync(path)) rmSync(path, { recursive: true });
};
