/**
 * The total order of readings of one metric: corrected time, then log, sequence and element (invariant C). Live is
 * the maximum by this order, so folding the same readings twice, or in any order, gives the same twin.
 */
export interface ReadingOrder {
  /** Corrected time, milliseconds since 1970. */
  readonly at: number;
  readonly log: string;
  readonly sequence: number;
  readonly element: number;
}

/** @returns whether `a` comes after `b`. */
export function isAfter(a: ReadingOrder, b: ReadingOrder): boolean {
  if (a.at !== b.at) return a.at > b.at;
  if (a.log !== b.log) return a.log > b.log;
  if (a.sequence !== b.sequence) return a.sequence > b.sequence;
  return a.element > b.element;
}
