/**
 * Rendezvous hashing: which of the nodes a partition belongs to, the same on every node, pure. A node that comes or goes
 * moves only the partitions that become, or were, its own.
 *
 * Source: D. Thaler, C. Ravishankar, "Using name-based mappings to increase hit rates", 1998.
 */
import { createHash } from 'node:crypto';

/** @returns null when there is no node */
export function ownerOf(partition: number, nodes: readonly string[]): string | null {
  let best: string | null = null;
  let bestWeight = '';
  for (const node of nodes) {
    const weight = createHash('sha1').update(`${partition} ${node}`).digest('hex');
    if (weight > bestWeight) {
      best = node;
      bestWeight = weight;
    }
  }
  return best;
}
