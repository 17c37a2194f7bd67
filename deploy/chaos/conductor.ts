/**
 * Carries a plan out. A fault begins in its turn, when the parts that it hits are free and fewer than three others are under way;
 * what it began it ends itself, also when the run is aborted. How each is done: `cloud-faults.ts`, `server-faults.ts`,
 * `gateway-faults.ts`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { cloudFault } from './cloud-faults.ts';
import type { ChaosCluster } from './cluster.ts';
import { gatewayFault } from './gateway-faults.ts';
import { type Knower, losersOf, mayLose } from './knowledge.ts';
import { clusterFaults, type Fault, type FaultKind, isOneOf, nodeFaults, serverFaults } from './plan.ts';
import type { Recovery } from './recovery.ts';
import type { Sampler } from './sampler.ts';
import { serverFault } from './server-faults.ts';

export interface FaultLog {
  readonly done: Partial<Record<FaultKind, number>>;
  /** Carried out, all in all. */
  readonly count: number;
  /** By site: when its broker was killed, milliseconds since 1970. */
  readonly brokerKilledAt: ReadonlyMap<string, readonly number[]>;
}

/** What the hands work with. */
export interface Stage {
  readonly cluster: ChaosCluster;
  readonly recovery: Recovery;
  readonly sampler: Sampler;
  readonly signal: AbortSignal;
  readonly say: (line: string) => void;
  readonly pause: (ms: number) => Promise<void>;
  readonly brokerKilled: (site: string) => void;
  /** Whether all that the site's gateways had acknowledged when it was asked gets into history in time. */
  readonly takenIsStored: (site: string, timeoutMs: number) => Promise<boolean>;
  /** Released when the run is over. */
  readonly atEnd: (release: () => Promise<unknown>) => void;
}

const AT_ONCE_MAX = 3;
const LOOK_AGAIN_MS = 200;

export async function conduct(
  plan: readonly Fault[],
  options: Omit<Stage, 'pause' | 'brokerKilled'>,
): Promise<FaultLog> {
  const { cluster, signal, say } = options;
  const done: Partial<Record<FaultKind, number>> = {};
  let count = 0;
  const brokerKilledAt = new Map<string, number[]>();
  const pause = (ms: number) => sleep(ms, undefined, { signal });
  const stage: Stage = {
    ...options,
    pause,
    brokerKilled(site) {
      brokerKilledAt.set(site, [...(brokerKilledAt.get(site) ?? []), Date.now()]);
    },
  };
  const busy = new Set<string>();
  const lostAt = new Map<Knower, number>();
  const underWay = new Set<Promise<void>>();
  let failure: unknown = null;
  const startedAt = performance.now();

  for (const fault of plan) {
    await pause(Math.max(0, startedAt + fault.atMs - performance.now()));
    const parts = partsOf(fault, cluster);
    while (failure === null && (underWay.size >= AT_ONCE_MAX || parts.some(part => busy.has(part))))
      await Promise.race(underWay);
    while (failure === null && !mayLose(fault.kind, lostAt, performance.now())) await pause(LOOK_AGAIN_MS);
    if (failure !== null) break;
    for (const part of parts) busy.add(part);
    for (const knower of losersOf(fault.kind)) lostAt.set(knower, Number.POSITIVE_INFINITY);
    const work = carryOut(fault, stage)
      .then(happened => {
        if (!happened) return;
        count++;
        done[fault.kind] = (done[fault.kind] ?? 0) + 1;
      })
      .catch(error => {
        failure ??= error;
      })
      .finally(() => {
        for (const part of parts) busy.delete(part);
        for (const knower of losersOf(fault.kind)) lostAt.set(knower, performance.now());
        underWay.delete(work);
      });
    underWay.add(work);
  }
  await Promise.all(underWay);
  if (failure !== null) throw failure;
  say(`${count} of ${plan.length} faults carried out`);
  return { done, count, brokerKilledAt };
}

function carryOut(fault: Fault, stage: Stage): Promise<boolean> {
  const { kind } = fault;
  if (isOneOf(nodeFaults, kind) || isOneOf(clusterFaults, kind)) return cloudFault(fault, stage);
  if (isOneOf(serverFaults, kind)) return serverFault(fault, stage);
  return gatewayFault(fault, stage);
}

/** What must not be hit by another one at the same time. */
function partsOf({ kind, target }: Fault, { nodes, gateways, brokers }: ChaosCluster): string[] {
  const every = nodes.map((_, index) => `node ${index}`);
  if (isOneOf(clusterFaults, kind)) return every;
  if (isOneOf(nodeFaults, kind)) return [`node ${target}`];
  if (kind === 'redis-stale') return ['redis', `node ${target}`];
  // A copy of the one disk is of use only while the other one has what came since.
  if (kind === 'postgres-restored') return ['postgres', 'copies'];
  if (kind === 'log-restored') return [`gateway ${target}`, 'copies'];
  if (isOneOf(serverFaults, kind)) return [kind === 'stream-deleted' ? 'nats' : kind.split('-')[0]!];
  if (kind === 'broker-kill') return [`broker ${target}`];
  if (kind === 'broker-kill-queueing') {
    const site = [...brokers.keys()][target]!;
    const own = gateways.flatMap((gateway, index) => (gateway.site === site ? [`gateway ${index}`] : []));
    return [`broker ${target}`, ...own];
  }
  if (kind === 'power-cut') return [`gateway ${target}`, `link ${target}`];
  if (kind === 'link-cut' || kind === 'link-half-open') return [`link ${target}`];
  return [`gateway ${target}`];
}

export const inSeconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
