/**
 * Whether the gateway works, for the watchdog, pure. It asks for life, not for success: a link that is down, a broker that is
 * gone and a disk that is full answer, and a restart would help none of them. A disk that gives no answer at all, or a
 * loop that takes no turn, is what a restart is for.
 */
export interface Signs {
  /** Monotonic, milliseconds. */
  readonly at: number;
  /** Appended and not durable. */
  readonly messagesPending: number;
  /** Groups that the disk took, and groups that it refused: either is an answer. */
  readonly diskAnswers: number;
  /** When the uplink's loop last took a turn. */
  readonly uplinkTurnAt: number;
}

export interface Vitals {
  /** Since when messages wait for the disk with no answer from it; null while none does. */
  readonly muteSince: number | null;
  readonly diskAnswers: number;
  /** What is stuck; null when all is alive. */
  readonly stuck: string | null;
}

export const NEWBORN: Vitals = { muteSince: null, diskAnswers: 0, stuck: null };

/** @param patienceMs how long either may take; less than the watchdog's own time */
export function examine(before: Vitals, signs: Signs, patienceMs: number): Vitals {
  const { at, messagesPending, diskAnswers, uplinkTurnAt } = signs;
  const waits = messagesPending > 0 && diskAnswers === before.diskAnswers;
  const muteSince = waits ? (before.muteSince ?? at) : null;
  const stuck =
    muteSince !== null && at - muteSince >= patienceMs
      ? 'the disk does not answer'
      : at - uplinkTurnAt >= patienceMs
        ? 'the uplink takes no turn'
        : null;
  return { muteSince, diskAnswers, stuck };
}
