/** Copies of a disk at one moment, as a snapshot of a volume makes them: nothing moves while it is copied. */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, lstatSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { goOn, standStill } from '../local/process-table.ts';
import type { Server } from '../local/server.ts';
import { existingStandIn } from '../local/unprivileged.ts';

/** @param pid of the process that works on `from`; undefined when none does */
export function copyFolder(from: string, to: string, pid: number | undefined): void {
  rmSync(to, { recursive: true, force: true });
  frozen(pid, () => cpSync(from, to, { recursive: true, filter: path => isData(path) }));
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
  // With its owner, who is not always ours.
  frozen(server.pid(), () => execFileSync('cp', ['-a', data, image]));
  return {
    putBack() {
      rmSync(data, { recursive: true, force: true });
      renameSync(image, data);
      rmSync(join(data, 'postmaster.pid'), { force: true });
    },
  };
}

function frozen(pid: number | undefined, work: () => void): void {
  const family = pid === undefined ? [] : standStill(pid);
  try {
    work();
  } finally {
    goOn(family);
  }
}

export const removeFolder = (path: string): void => {
  if (existsSync(path)) rmSync(path, { recursive: true });
};
