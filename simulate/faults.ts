/** What goes wrong in a simulated run, and when: a pure function of chance. */
import type { World } from './world.ts';

export const faultKinds = [
  'node-kill',
  'node-stop',
  'node-pause',
  'node-cut-postgres',
  'node-cut-redis',
  'node-cut-nats',
  'node-clock',
  'gateway-cut',
  'gateway-kill',
  'gateway-clock',
  'log-restored',
  'log-cloned',
  'broker-kill',
  'postgres-stop',
  'postgres-slow',
  'postgres-answers-lost',
  'postgres-restored',
  'redis-stop',
  'redis-slow',
  'redis-wiped',
  'redis-stale',
  'nats-kill',
  'nats-emptied',
  'stream-deleted',
  'stream-full',
  'stream-purged',
  'messages-lost',
  'cloud-lost',
] as const;
export type FaultKind = (typeof faultKinds)[number];

export interface Fault {
  readonly kind: FaultKind;
  readonly atMs: number;
  readonly forMs: number;
  /** Which of the nodes, sites or gateways: a number to be taken modulo how many there are. */
  readonly which: number;
  /** Another drawn number, for what the kind has to decide. */
  readonly chance: number;
}

/** Shorter than that the lease holds; longer, another node takes over. */
const LASTS_MS: Readonly<Record<FaultKind, readonly [least: number, most: number]>> = {
  'node-kill': [200, 4000],
  'node-stop': [1000, 5000],
  'node-pause': [500, 7000],
  'node-cut-postgres': [500, 6000],
  'node-cut-redis': [300, 5000],
  'node-cut-nats': [300, 5000],
  'node-clock': [0, 0],
  'gateway-cut': [300, 6000],
  'gateway-kill': [100, 3000],
  'gateway-clock': [0, 0],
  'log-restored': [100, 1000],
  'log-cloned': [1500, 4000],
  'broker-kill': [100, 2000],
  'postgres-stop': [200, 5000],
  'postgres-slow': [1000, 5000],
  'postgres-answers-lost': [500, 4000],
  'postgres-restored': [300, 2000],
  'redis-stop': [200, 4000],
  'redis-slow': [500, 4000],
  'redis-wiped': [0, 0],
  'redis-stale': [500, 4000],
  'nats-kill': [200, 3000],
  'nats-emptied': [200, 3000],
  'stream-deleted': [0, 0],
  'stream-full': [500, 3000],
  'stream-purged': [0, 0],
  'messages-lost': [500, 5000],
  'cloud-lost': [1200, 4000],
};

export function drawFaults(
  world: World,
  options: { fromMs: number; toMs: number; reclaims: boolean },
): Fault[] {
  const { fromMs, toMs } = options;
  // A disk and a history that both go back have lost what only they had; so has a history whose gateways gave space back.
  const without: FaultKind = options.reclaims || world.chance(0.5) ? 'postgres-restored' : 'log-restored';
  // History that went back and live state that is gone together: nothing knows any more what was shown.
  const noLoss = without !== 'postgres-restored';
  const kinds = faultKinds.filter(
    kind => kind !== without && !(noLoss && (kind === 'redis-wiped' || kind === 'redis-stale')),
  );
  return Array.from({ length: world.between(2, 7) }, () => {
    const kind = world.pick(kinds);
    const [least, most] = LASTS_MS[kind];
    return {
      kind,
      atMs: fromMs + world.random() * (toMs - fromMs),
      forMs: least === 0 ? 0 : least * (most / least) ** world.random(),
      which: world.between(0, 999),
      chance: world.random(),
    };
  }).sort((a, b) => a.atMs - b.atMs);
}
