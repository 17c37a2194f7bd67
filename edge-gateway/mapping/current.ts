/**
 * The mapping of this process, set once at its start, before the first batch is built: every place that builds batches
 * has the same one, whichever thread of the story it belongs to. Without a mapping file it knows the common shapes.
 */
import { compileMapping } from './compile.ts';
import { NO_MAPPING } from './mapping-file.ts';
import type { Mapping } from './route.ts';

let current: Mapping = compileMapping(NO_MAPPING);

export function useMapping(mapping: Mapping): void {
  current = mapping;
}

export const currentMapping = (): Mapping => current;
