/**
 * Who reaches whom, and how long it takes. Between two hosts messages keep their order, as on one connection; through a cut
 * nothing comes, and whoever waits for an answer notices only after a while.
 */
import type { World } from './world.ts';

export interface Network {
  cut(a: string, b: string): void;
  heal(a: string, b: string): void;
  healAll(): void;
  reaches(a: string, b: string): boolean;
  /** Milliseconds until a message sent now arrives and is dealt with, in order behind those before it. */
  travelMs(from: string, to: string): number;
  /** The same on a connection of its own, behind nothing. */
  aloneMs(from: string, to: string): number;
  /** How long it takes to notice that nobody answers. */
  noticeMs(): number;
  /** What is served by this host takes longer. */
  slow(host: string, extraMs: number): void;
}

/** One way, milliseconds: least, and how much more it may be. */
const LATENCY = { near: [0.2, 2], far: [8, 60] } as const;

export function newNetwork(world: World): Network {
  const cuts = new Set<string>();
  const slowed = new Map<string, number>();
  const lastArrival = new Map<string, number>();
  const pair = (a: string, b: string) => (a < b ? `${a} ${b}` : `${b} ${a}`);
  const isFar = (host: string) => host.startsWith('gateway');
  function aloneMs(from: string, to: string): number {
    const [least, more] = isFar(from) || isFar(to) ? LATENCY.far : LATENCY.near;
    const slowness = slowed.get(to) ?? 0;
    return least + world.random() * more + (slowness > 0 ? slowness * world.random() : 0);
  }
  return {
    cut: (a, b) => void cuts.add(pair(a, b)),
    heal: (a, b) => void cuts.delete(pair(a, b)),
    healAll: () => cuts.clear(),
    reaches: (a, b) => !cuts.has(pair(a, b)),
    travelMs(from, to) {
      const key = `${from}>${to}`;
      const now = world.elapsed();
      const arrival = Math.max((lastArrival.get(key) ?? 0) + 0.001, now + aloneMs(from, to));
      lastArrival.set(key, arrival);
      return arrival - now;
    },
    aloneMs,
    noticeMs: () => 200 + world.random() * 2000,
    slow: (host, extraMs) => void slowed.set(host, extraMs),
  };
}
