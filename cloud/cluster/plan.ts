/**
 * What a node does next about partitions, from what Postgres says of the cluster, pure.
 *
 *   free, and mine by rendezvous ─▶ claim        held, and another's by rendezvous, that is heard ─▶ hand over
 *   held, and claimed by another ─▶ lost         an owner without a heartbeat is dead: what it held is free
 *   mine by the table, and not held: a claim or a release whose answer was lost ─▶ claim, or release
 *
 * Two nodes with different views do no harm: a claim raises the epoch, and only one epoch writes (D).
 */
import { LEASE_MS } from './leases.ts';
import { ownerOf } from './rendezvous.ts';

export interface NodeEntry {
  /** Of one run of a node: its name and a random part. */
  readonly id: string;
  readonly name: string;
  /** Whether it takes partitions. */
  readonly actors: boolean;
  readonly draining: boolean;
  readonly heartbeatAgeMs: number;
}

export interface PartitionEntry {
  readonly id: number;
  readonly epoch: number;
  /** Id of a node; null when it was handed over and nobody has claimed it yet. */
  readonly owner: string | null;
}

export interface ClusterView {
  /** Those whose lease holds. */
  readonly nodes: readonly NodeEntry[];
  readonly partitions: readonly PartitionEntry[];
}

export interface Steps {
  readonly claim: readonly number[];
  readonly handOver: readonly number[];
  readonly lost: readonly number[];
  readonly release: readonly number[];
}

/** @param held partitions that `me` runs now, with their epochs */
export function nextSteps(me: string, view: ClusterView, held: ReadonlyMap<number, number>): Steps {
  const takers = view.nodes.filter(node => node.actors && !node.draining).map(node => node.id);
  const alive = new Set(view.nodes.map(node => node.id));
  // After a start of PostgreSQL all that it knows of have a lease; of a backup's nodes some may be gone for good.
  const heard = new Set(view.nodes.filter(node => node.heartbeatAgeMs <= LEASE_MS).map(node => node.id));
  const claim: number[] = [];
  const handOver: number[] = [];
  const lost: number[] = [];
  const release: number[] = [];
  for (const { id, epoch, owner } of view.partitions) {
    const heldEpoch = held.get(id);
    if (heldEpoch !== undefined && heldEpoch !== epoch) {
      lost.push(id);
      continue;
    }
    const taker = ownerOf(id, takers);
    if (heldEpoch !== undefined) {
      if (taker !== null && taker !== me && heard.has(taker)) handOver.push(id);
    } else if (taker === me && (owner === null || owner === me || !alive.has(owner))) {
      claim.push(id);
    } else if (owner === me) {
      release.push(id);
    }
  }
  return { claim, handOver, lost, release };
}
