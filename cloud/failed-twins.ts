/** Twins whose fold threw, of all partitions that are open: the first few, for `/health`. */
import type { Health } from './health.ts';
import type { Partition } from './partition.ts';

const SHOWN_MAX = 20;

export function failedTwins(partitions: Iterable<Partition>): Health['failedTwins'] {
  const failed: { twin: string; setAside: boolean; reason: string }[] = [];
  for (const partition of partitions) {
    for (const { twin, failure } of partition.failures()) {
      if (failed.length < SHOWN_MAX) failed.push({ twin, ...failure });
    }
  }
  return failed;
}
