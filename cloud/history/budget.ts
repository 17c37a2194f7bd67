/** A bound on memory that several queues share (F). Taking never fails; who fills the queues waits for room first. */
export interface Budget {
  take(bytes: number): void;
  release(bytes: number): void;
  /** Resolves when less than the maximum is in use. */
  room(): Promise<void>;
  readonly bytes: number;
  readonly bytesMax: number;
}

export function newBudget(bytesMax: number): Budget {
  let bytes = 0;
  let waiting: (() => void)[] = [];
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
      if (bytes >= bytesMax) return;
      const woken = waiting;
      waiting = [];
      for (const wake of woken) wake();
    },
    room() {
      if (bytes < bytesMax) return Promise.resolve();
      return new Promise(resolve => waiting.push(resolve));
    },
  };
}
