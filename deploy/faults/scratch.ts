/** What a run of faults has for itself: a folder that all servers can use, and a voice that tells the time. */
import { chmodSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** @returns a new folder; `removeStackFolder` removes it */
export function makeScratchFolder(prefix: string): string {
  const directory = mkdtempSync(join(tmpdir(), prefix));
  // As root PostgreSQL runs as another user, who has to get in.
  chmodSync(directory, 0o711);
  return directory;
}

const startedAt = performance.now();

/** Prints a line with the seconds since the program began. */
export const say = (line: string): void =>
  console.log(`${((performance.now() - startedAt) / 1000).toFixed(1).padStart(7)} s  ${line}`);
