/** A bound on memory that several queues share (F). Taking never fails; who fills the queues waits for room first. */
export interface Budget {
  take(bytes: number): void;
  release(bytes: number): void;
  /** Resolves when there may be room: less than the maximum was in use, or somebody called {@link wakeAll}. */
  room(): Promise<void>;
  /** Lets everybody look again: whoever is closing must not wait for room. */
  wakeAll(): void;
  readonly bytes: number;
  readonly bytesMax: number;
}

export function newBudget(bytesMax: number): Budget {
  let bytes = 0;
  let waiting: (() => void)[] = [];
  function wakeAll(): void {
    const woken = waiting;
    waiting = [];
    for (const wake of woken) wake();
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
      if (bytes < bytesMax) wakeAll();
    },
    wakeAll,
    room() {
      if (bytes < bytesMax) return Promise.resolve();
      return new Promise(resolve => waiting.push(resolve));
    },
  };
}
