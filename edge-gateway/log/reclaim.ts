/**
 * Which segments are given back, as a pure rule. Only sealed segments of which history has settled every sequence
 * (invariant A); oldest first; when space is needed, when they have been kept long enough for a history that was
 * restored to an earlier hour to ask for them again, or when a backup of history has them, which is what it would be
 * restored from.
 */
export interface ReclaimCandidate {
  readonly bytes: number;
  /** When all of it was known to be settled; null while it is not. */
  readonly settledAtMs: number | null;
  /** A confirmed backup of history has all of it, and nothing else needs it. */
  readonly covered: boolean;
}

/**
 * @param candidates sealed segments, oldest first
 * @param bytesToFree how much is wanted; 0 or less when space is no reason
 * @returns those to delete, in order
 */
export function planReclaim<Candidate extends ReclaimCandidate>(
  candidates: Iterable<Candidate>,
  o: { readonly bytesToFree: number; readonly nowMs: number; readonly keepSettledMs: number },
): Candidate[] {
  const plan: Candidate[] = [];
  let freed = 0;
  for (const candidate of candidates) {
    if (candidate.settledAtMs === null) continue;
    const keptMs = o.nowMs - candidate.settledAtMs;
    if (freed >= o.bytesToFree && keptMs < o.keepSettledMs && !candidate.covered) continue;
    plan.push(candidate);
    freed += candidate.bytes;
  }
  return plan;
}
