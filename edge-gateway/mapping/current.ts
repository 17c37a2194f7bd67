/**
 * The mapping of this process, set once at its start, before the first batch is built. Without a mapping file it knows
 * the common shapes. It is one to a thread: a worker that builds batches sets its own.
 */
import { compileMapping } from './compile.ts';
import { NO_MAPPING } from './mapping-file.ts';
import type { Mapping } from './route.ts';

let current: Mapping = compileMapping(NO_MAPPING);

export function useMapping(mapping: Mapping): void {
  current = mapping;
}

export const currentMapping = (): Mapping => current;
