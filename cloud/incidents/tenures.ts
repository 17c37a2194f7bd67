/**
 * A tenure is a partition held under one epoch. Of each: whether pages may be started for it (D), and whether it is known
 * what was delivered under earlier ones, so that an opening that is replayed is not told again.
 */
import type { OwnedPartition } from './delivery-table.ts';

export interface Tenures {
  /** Those that are held; nothing is started for others. */
  held(): OwnedPartition[];
  holds(partition: number, epoch: number): boolean;
  /** Before it is handed over: it is held no longer. */
  release(partition: number): void;
  isKnown(partition: number, epoch: number): boolean;
  setKnown(partition: number, epoch: number): void;
  /**
   * Resolves when it is known, is over, or took too long.
   * @param ask called when it is not known yet
   */
  whenKnown(partition: number, epoch: number, ask: () => void): Promise<void>;
  /** Forgets those that are over. */
  forgetEnded(): void;
  /** None is held any more, and nobody waits. */
  end(): void;
}

/** How long a page waits for what was delivered under earlier epochs to be read. */
const KNOWN_WAIT_MS = 2000;

/** @param owned partitions that this node owns at this moment, by its own lease */
export function newTenures(owned: () => readonly OwnedPartition[]): Tenures {
  /** All by `partition:epoch`. */
  const known = new Set<string>();
  const waiters = new Map<string, PromiseWithResolvers<void>>();
  const released = new Set<string>();
  let ended = false;

  const holds = (partition: number, epoch: number): boolean =>
    !ended &&
    !released.has(keyOf(partition, epoch)) &&
    owned().some(each => each.id === partition && each.epoch === epoch);

  return {
    held: () => owned().filter(({ id, epoch }) => holds(id, epoch)),
    holds,
    release(partition) {
      for (const { id, epoch } of owned()) if (id === partition) released.add(keyOf(id, epoch));
    },
    isKnown: (partition, epoch) => known.has(keyOf(partition, epoch)),
    setKnown(partition, epoch) {
      const key = keyOf(partition, epoch);
      known.add(key);
      waiters.get(key)?.resolve();
      waiters.delete(key);
    },
    async whenKnown(partition, epoch, ask) {
      const key = keyOf(partition, epoch);
      if (known.has(key)) return;
      const waiter = waiters.get(key) ?? Promise.withResolvers<void>();
      waiters.set(key, waiter);
      ask();
      const timer = setTimeout(waiter.resolve, KNOWN_WAIT_MS);
      await waiter.promise;
      clearTimeout(timer);
    },
    forgetEnded() {
      const ours = new Set(owned().map(({ id, epoch }) => keyOf(id, epoch)));
      for (const old of known) if (!ours.has(old)) known.delete(old);
      for (const old of released) if (!ours.has(old)) released.delete(old);
      for (const [old, { resolve }] of waiters) {
        if (ours.has(old)) continue;
        waiters.delete(old);
        resolve();
      }
    },
    end() {
      ended = true;
      for (const waiter of waiters.values()) waiter.resolve();
    },
  };
}

const keyOf = (partition: number, epoch: number): string => `${partition}:${epoch}`;
