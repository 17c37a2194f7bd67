/**
 * Small files of the data folder that the intake keeps between two lives. None of them is needed to be right: what
 * cannot be read counts as not there, what cannot be written is said once.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';

export interface KeptFile {
  /** Null when it is not there or cannot be read. */
  read(): string | null;
  write(content: string): void;
}

/** @param directory null keeps nothing */
export function keptFile(directory: string | null, name: string, logger: Logger): KeptFile {
  if (directory === null) return { read: () => null, write: () => {} };
  const path = join(directory, name);
  let troubled = false;
  return {
    read() {
      try {
        return readFileSync(path, 'utf8');
      } catch {
        return null;
      }
    },
    write(content) {
      try {
        mkdirSync(directory, { recursive: true });
        writeFileSync(`${path}.new`, content);
        renameSync(`${path}.new`, path);
        troubled = false;
      } catch (error) {
        if (!troubled) logger.warn({ path, reason: (error as Error).message }, 'cannot be kept');
        troubled = true;
      }
    },
  };
}
