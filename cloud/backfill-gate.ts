/**
 * Who may handle a backlog when: one batch of the backfill lane at a time on this node, and while live readings come in,
 * as long a pause after it as it took. So backlogs of however many sites take half of the event loop at most, and live
 * readings wait for one batch at most.
 */
export interface BackfillGate {
  /** A live batch is here. */
  noteLive(): void;
  /** Runs `work` when its turn comes. */
  pass<T>(work: () => Promise<T>): Promise<T>;
}

/** Without a live batch for that long nobody is kept waiting. */
const LIVE_LATELY_MS = 1000;

export function newBackfillGate(): BackfillGate {
  let liveAt = Number.NEGATIVE_INFINITY;
  let turn: Promise<unknown> = Promise.resolve();
  return {
    noteLive() {
      liveAt = performance.now();
    },
    pass(work) {
      const passed = turn.then(async () => {
        const startedAt = performance.now();
        const result = await work();
        return { result, spentMs: performance.now() - startedAt };
      });
      turn = passed.then(
        ({ spentMs }) => {
          if (performance.now() - liveAt > LIVE_LATELY_MS) return;
          return new Promise(resolve => setTimeout(resolve, spentMs));
        },
        () => {},
      );
      return passed.then(({ result }) => result);
    },
  };
}
