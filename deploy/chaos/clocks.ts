/** A wall clock for every Node process of a run, in a file each: `shifted-clock.ts` reads it there. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Clocks {
  /** What makes the program of that name go by its own clock. */
  env(name: string): { readonly HOLDFAST_CHAOS_CLOCK: string; readonly NODE_OPTIONS: string };
  /** @returns what sets how far the clock of that name is off, milliseconds */
  shift(name: string): (ms: number) => void;
}

export function openClocks(directory: string): Clocks {
  mkdirSync(directory, { recursive: true });
  const fileOf = (name: string) => join(directory, name.replace('/', '.'));
  return {
    env: name => ({
      HOLDFAST_CHAOS_CLOCK: fileOf(name),
      NODE_OPTIONS: `--import=${new URL('./shifted-clock.ts', import.meta.url).href}`,
    }),
    shift: name => ms => writeFileSync(fileOf(name), String(ms)),
  };
}
