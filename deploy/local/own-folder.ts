import { chmodSync, mkdirSync } from 'node:fs';

/** A folder nobody else looks into. Parents that have to be made keep the usual rights: others' data may go there. */
export function makeOwnFolder(directory: string): void {
  mkdirSync(directory, { recursive: true });
  chmodSync(directory, 0o700);
}
