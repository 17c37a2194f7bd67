/**
 * How long it takes until all sites are live again: a reading that was published after the moment asked about is seen on a push
 * socket. A site with trouble of its own (its link, its gateway, its broker) is not waited for; a moment that is followed by other
 * trouble in the cloud before all is live says nothing about the first one, and is dropped.
 */
import type { DeviceJournal } from '../faults/devices.ts';

export interface Recovery {
  /** Milliseconds, in order of time. */
  readonly times: readonly number[];
  readonly dropped: number;
  /** The cloud is in trouble from now on, or once more. @returns to be called at the moment from which recovery counts */
  troubled(): () => void;
  /** The site has trouble of its own. @returns to be called when that has ended; it is waited for again when it is live again */
  siteTroubled(site: string): () => void;
  /** Something was seen on a push socket. */
  seen(): void;
}

/** Beyond it the sample counts as that. */
const GIVE_UP_MS = 60_000;

interface Waiting {
  readonly since: number;
  /** What each device had published by then, by site. */
  readonly baseline: ReadonlyMap<string, ReadonlyMap<string, number>>;
}

export function newRecovery(options: {
  journals: ReadonlyMap<string, readonly DeviceJournal[]>;
  /** The highest counter that any push socket showed of a device. */
  shown: (twin: string) => number;
}): Recovery {
  const times: number[] = [];
  let dropped = 0;
  let waiting: Waiting | null = null;
  let troubles = 0;
  /** Sites that are not waited for: how many troubles they have, or what must be seen of them first. */
  const excused = new Map<string, { troubles: number; baseline: ReadonlyMap<string, number> | null }>();

  const publishedOf = (site: string): Map<string, number> =>
    new Map(options.journals.get(site)!.map(({ device, published }) => [device, published]));
  const isLive = (site: string, baseline: ReadonlyMap<string, number>): boolean =>
    [...baseline].some(([device, published]) => options.shown(`${site}/${device}`) > published);

  function seen(): void {
    for (const [site, excuse] of excused) {
      if (excuse.troubles === 0 && excuse.baseline && isLive(site, excuse.baseline)) excused.delete(site);
    }
    if (!waiting) return;
    const tookMs = performance.now() - waiting.since;
    const all = [...waiting.baseline].every(([site, of]) => excused.has(site) || isLive(site, of));
    if (!all && tookMs < GIVE_UP_MS) return;
    // With every site excused nothing was seen.
    if ([...waiting.baseline.keys()].every(site => excused.has(site))) dropped++;
    else times.push(Math.round(tookMs));
    waiting = null;
  }

  return {
    times,
    get dropped() {
      return dropped;
    },
    troubled() {
      if (waiting) dropped++;
      waiting = null;
      troubles++;
      return () => {
        troubles--;
        if (troubles > 0) {
          dropped++;
          return;
        }
        const sites = [...options.journals.keys()];
        waiting = {
          since: performance.now(),
          baseline: new Map(sites.map(site => [site, publishedOf(site)])),
        };
      };
    },
    siteTroubled(site) {
      const excuse = excused.get(site) ?? { troubles: 0, baseline: null };
      excuse.troubles++;
      excuse.baseline = null;
      excused.set(site, excuse);
      return () => {
        excuse.troubles--;
        if (excuse.troubles === 0) excuse.baseline = publishedOf(site);
      };
    },
    seen,
  };
}

export function percentile(times: readonly number[], share: number): number | null {
  const sorted = [...times].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null;
}
