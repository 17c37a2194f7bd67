/** A bound on memory that several queues share (F). Taking never fails; who fills the queues waits for room first. */
export interface Budget {
  take(bytes: number): void;
  release(bytes: number): void;
  /** Resolves when there may be room: less than `limit` was in use, or somebody called {@link wakeAll}. */
  room(limit: number): Promise<void>;
  /** Lets everybody look again: whoever is closing must not wait for room. */
  wakeAll(): void;
  readonly bytes: number;
  readonly bytesMax: number;
}

export function newBudget(bytesMax: number): Budget {
  let bytes = 0;
  let waiting: { limit: number; wake: () => void }[] = [];
  function wake(which: (limit: number) => boolean): void {
    const woken = waiting.filter(({ limit }) => which(limit));
    waiting = waiting.filter(({ limit }) => !which(limit));
    for (const entry of woken) entry.wake();
  }
  return {
    get bytes() {
      return bytes;
    },
    bytesMax,
    take(count) {
      bytes += count;
    },
    release(count) {
      bytes -= count;
      wake(limit => bytes < limit);
    },
    wakeAll: () => wake(() => true),
    room(limit) {
      if (bytes < limit) return Promise.resolve();
      return new Promise(resolve => waiting.push({ limit, wake: resolve }));
    },
  };
}
