/**
 * What goes wrong in a run of chaos: a pure function of the seed. Each fault has a part that it hits and a length; several are
 * under way at the same time, as long as they hit different parts (`conductor.ts`).
 */
import { bag, randomFrom } from '../faults/random.ts';

export const nodeFaults = [
  'cloud-kill',
  'cloud-pause',
  'cloud-cut',
  'cloud-half-open',
  'cloud-clock',
] as const;
export const clusterFaults = ['cloud-rolling-restart'] as const;
export const serverFaults = [
  'nats-kill',
  'nats-emptied',
  'stream-deleted',
  'redis-emptied',
  'redis-flushed',
  'redis-stale',
  'postgres-kill',
  'postgres-stop',
  'postgres-restored',
] as const;
export const siteFaults = ['broker-kill', 'broker-kill-queueing'] as const;
export const gatewayFaults = [
  'gateway-kill',
  'gateway-pause',
  'gateway-clock',
  'gateway-duplicate',
  'power-cut',
  'log-restored',
  'log-cloned',
  'link-cut',
  'link-half-open',
] as const;
export const faultKinds = [
  ...nodeFaults,
  ...clusterFaults,
  ...serverFaults,
  ...siteFaults,
  ...gatewayFaults,
] as const;
export type FaultKind = (typeof faultKinds)[number];

/** Which of the servers a cloud node loses sight of. */
export const cutServers = ['nats', 'redis', 'postgres', 'all'] as const;
export type CutServers = (typeof cutServers)[number];

export interface Fault {
  readonly number: number;
  readonly kind: FaultKind;
  /** Not before, from the start of the run. */
  readonly atMs: number;
  /** How long it lasts; 0 for what happens at once. */
  readonly forMs: number;
  /** Index of the node, site (for its broker) or gateway that it hits; 0 for the one server. */
  readonly target: number;
  /** Of a clock: how far it jumps. */
  readonly shiftMs: number;
  readonly servers: CutServers;
}

export interface PlanOptions {
  readonly seed: number;
  readonly faults: number;
  readonly kinds: readonly FaultKind[];
  readonly nodes: number;
  readonly sites: number;
  readonly gateways: number;
  /** From the first fault to the last. */
  readonly durationMs: number;
}

/** Nothing goes wrong before, so that there is something to lose. */
export const QUIET_MS = 3000;
const LASTS_MS: Readonly<Record<FaultKind, readonly [least: number, most: number]>> = {
  'cloud-kill': [100, 4000],
  // The lease is 2 s.
  'cloud-pause': [2500, 6000],
  'cloud-cut': [500, 6000],
  'cloud-half-open': [1000, 6000],
  'cloud-clock': [1000, 5000],
  'cloud-rolling-restart': [0, 0],
  'nats-kill': [100, 3000],
  'nats-emptied': [100, 2000],
  'stream-deleted': [0, 0],
  'redis-emptied': [100, 3000],
  'redis-flushed': [0, 0],
  'redis-stale': [1000, 5000],
  'postgres-kill': [100, 2000],
  'postgres-stop': [1000, 6000],
  'postgres-restored': [1500, 6000],
  'broker-kill': [100, 2000],
  'broker-kill-queueing': [1000, 3000],
  'gateway-kill': [100, 4000],
  'gateway-pause': [1000, 6000],
  'gateway-clock': [1000, 5000],
  'gateway-duplicate': [3000, 6000],
  'power-cut': [100, 4000],
  'log-restored': [1000, 4000],
  'log-cloned': [2000, 6000],
  'link-cut': [500, 8000],
  'link-half-open': [1000, 8000],
};
/**
 * Forward as far as a clock without a battery may be set; back by no more than what is taken for a clock that is a little off
 * (`limits.futureToleranceMs`): further back, the devices' own times count as the future, and are not believed.
 */
const CLOCK_JUMP_MS = { forward: 2 * 3_600_000, back: 4 * 60_000 };

export function makePlan(options: PlanOptions): Fault[] {
  const random = randomFrom(options.seed);
  const next = bag(options.kinds, random);
  const faults: Fault[] = [];
  for (let number = 1; number <= options.faults; number++) {
    const kind = next();
    if (!kind) break;
    const [least, most] = LASTS_MS[kind];
    const jump = random() < 0.5 ? -CLOCK_JUMP_MS.back : CLOCK_JUMP_MS.forward;
    faults.push({
      number,
      kind,
      atMs: Math.round(QUIET_MS + (options.durationMs * (number - 1 + random())) / options.faults),
      forMs: most === 0 ? 0 : Math.round(least * (most / least) ** random()),
      target: Math.floor(random() * targetsOf(kind, options)),
      shiftMs: Math.round(jump * random()),
      servers: cutServers[Math.floor(random() * cutServers.length)]!,
    });
  }
  return faults;
}

function targetsOf(kind: FaultKind, options: PlanOptions): number {
  // Of a stale Redis the target is the node that sleeps meanwhile.
  if (isOneOf(nodeFaults, kind) || kind === 'redis-stale') return options.nodes;
  if (isOneOf(siteFaults, kind)) return options.sites;
  if (isOneOf(gatewayFaults, kind)) return options.gateways;
  return 1;
}

export const isOneOf = (kinds: readonly FaultKind[], kind: FaultKind): boolean => kinds.includes(kind);
