/**
 * What goes wrong in a run of the lab, and when: a pure function of the seed. Two hands work at the same time: one on the
 * link, one on everything else, so that a gateway is killed while its link is cut. A hand does one thing after another.
 */

import { bag, randomFrom } from '../faults/random.ts';
import type { Weather } from '../local/link-weather.ts';

export const linkFaults = ['link-cut', 'link-half-open', 'bad-weather'] as const;
export const partFaults = [
  'gateway-kill',
  'gateway-pause',
  'power-cut',
  'broker-kill',
  'broker-kill-queueing',
  'cloud-kill',
  'nats-kill',
  'stream-deleted',
  'log-restored',
  'log-cloned',
] as const;
export const faultKinds = [...linkFaults, ...partFaults] as const;
export type LinkFaultKind = (typeof linkFaults)[number];
export type PartFaultKind = (typeof partFaults)[number];
export type FaultKind = LinkFaultKind | PartFaultKind;

interface Timed {
  /** From the start of the run. */
  readonly atMs: number;
  /** How long it lasts; 0 for what happens at once. */
  readonly forMs: number;
}
export type LinkStep =
  | (Timed & { readonly kind: 'link-cut' })
  | (Timed & { readonly kind: 'link-half-open' })
  | (Timed & { readonly kind: 'bad-weather'; readonly weather: Weather });
/** `log-image` is no fault: the copy that a later `log-restored` puts back. */
export type PartStep = Timed & { readonly kind: PartFaultKind | 'log-image' };

export interface Plan {
  readonly link: readonly LinkStep[];
  readonly parts: readonly PartStep[];
}

/** Nothing goes wrong before, so that there is something to lose. */
const QUIET_MS = 2000;
/** Between two faults of the same hand. */
const REST_MS = { least: 1500, most: 5000 };
const LINK_DOWN_MS = { least: 2000, most: 60_000 };
/** A fault takes at most this share of the run. */
const SHARE_MAX = 0.3;
const DOWN_MS: Readonly<Record<PartFaultKind, { least: number; most: number }>> = {
  'gateway-kill': { least: 200, most: 8000 },
  'gateway-pause': { least: 1000, most: 12_000 },
  'power-cut': { least: 200, most: 8000 },
  'broker-kill': { least: 100, most: 3000 },
  'broker-kill-queueing': { least: 1500, most: 4000 },
  'cloud-kill': { least: 200, most: 8000 },
  'nats-kill': { least: 200, most: 5000 },
  'stream-deleted': { least: 0, most: 0 },
  'log-restored': { least: 0, most: 0 },
  'log-cloned': { least: 3000, most: 10_000 },
};
/** What carrying one out takes beside its own time: processes start again. */
const EFFORT_MS = 1500;

export function makePlan(options: { seed: number; durationMs: number; faults: readonly FaultKind[] }): Plan {
  const random = randomFrom(options.seed);
  // Each hand draws from its own numbers: leaving out a fault of one does not change the other.
  const [forLink, forParts] = [randomFrom(random() * 2 ** 32), randomFrom(random() * 2 ** 32)];
  const wanted = new Set<string>(options.faults);
  return {
    link: linkSteps(
      linkFaults.filter(kind => wanted.has(kind)),
      options.durationMs,
      forLink,
    ),
    parts: partSteps(
      partFaults.filter(kind => wanted.has(kind)),
      options.durationMs,
      forParts,
    ),
  };
}

function linkSteps(kinds: readonly LinkFaultKind[], durationMs: number, random: () => number): LinkStep[] {
  const steps: LinkStep[] = [];
  const next = bag(kinds, random);
  let atMs = QUIET_MS + rest(random);
  for (;;) {
    const kind = next();
    if (!kind) return steps;
    const forMs = Math.min(byMagnitude(LINK_DOWN_MS, random), durationMs * SHARE_MAX);
    const weather = { weather: badWeather(random) };
    if (atMs + forMs > durationMs) return steps;
    const timed = { atMs: Math.round(atMs), forMs: Math.round(forMs) };
    steps.push(kind === 'bad-weather' ? { ...timed, kind, ...weather } : { ...timed, kind });
    // A link that was down for long is up for a while, too.
    atMs += forMs + rest(random) + random() * 0.3 * forMs;
  }
}

function partSteps(kinds: readonly PartFaultKind[], durationMs: number, random: () => number): PartStep[] {
  const steps: PartStep[] = [];
  const next = bag(kinds, random);
  let atMs = QUIET_MS + rest(random);
  let imageAtMs: number | null = null;
  for (;;) {
    const kind = next();
    if (!kind) return steps;
    const bounds = DOWN_MS[kind];
    const forMs = bounds.most === 0 ? 0 : Math.min(byMagnitude(bounds, random), durationMs * SHARE_MAX);
    const restMs = rest(random);
    if (atMs + forMs + EFFORT_MS > durationMs) return steps;
    if (kind === 'log-restored' && imageAtMs === null) {
      // The image is from a moment with some of the run behind it and some more before it is put back.
      imageAtMs = Math.round(atMs);
      steps.push({ kind: 'log-image', atMs: imageAtMs, forMs: 0 });
      atMs += EFFORT_MS + restMs;
      if (atMs + EFFORT_MS > durationMs) return steps;
    }
    steps.push({ kind, atMs: Math.round(atMs), forMs: Math.round(forMs) });
    atMs += forMs + EFFORT_MS + restMs;
  }
}

const rest = (random: () => number): number => REST_MS.least + random() * (REST_MS.most - REST_MS.least);

/** Short ones are as likely as ones ten times as long. */
const byMagnitude = ({ least, most }: { least: number; most: number }, random: () => number): number =>
  least * (most / least) ** random();

function badWeather(random: () => number): Weather {
  return {
    delayMs: Math.round(byMagnitude({ least: 20, most: 800 }, random)),
    jitterMs: Math.round(byMagnitude({ least: 5, most: 300 }, random)),
    lossRate: Number(byMagnitude({ least: 0.005, most: 0.2 }, random).toFixed(4)),
    bytesPerSecond: Math.round(byMagnitude({ least: 4000, most: 500_000 }, random)),
  };
}
