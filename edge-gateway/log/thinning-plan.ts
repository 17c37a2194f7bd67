/**
 * What to thin next when the buffer is nearly full of what waits, as a pure rule.
 *
 * Files of one level (0: not thinned) compete by the room they take in all: the level that takes most gives first, its
 * oldest files first. So raw readings are thinned while they fill the buffer, and what is thinned already gets coarser once it
 * takes as much room as they do: the older, the coarser. Neighbours go together, as coarser intervals pay only then.
 */
export interface ThinningCandidate {
  /** Candidates follow one another in it; only those of one log go together. */
  readonly log: unknown;
  readonly firstSequence: number;
  readonly nextSequence: number;
  readonly bytes: number;
  /** Level that it is at, or that is known to bring nothing. */
  readonly level: number;
}

/** What one job takes at most, unless a single file is larger: it is decoded as a whole (F). */
const RUN_MESSAGES_MAX = 128 * 1024;
const RUN_BYTES_MAX = 1024 * 1024;

/**
 * @param candidates oldest first
 * @param bytesMax room for what comes out, which is no larger than what goes in
 * @returns neighbours of one log and level, to be thinned to the next one; none when there is nothing to thin
 */
export function planThinning<Candidate extends ThinningCandidate>(
  candidates: readonly Candidate[],
  bytesMax: number,
): Candidate[] {
  const runBytesMax = Math.min(RUN_BYTES_MAX, bytesMax);
  const bytesOfLevel = new Map<number, number>();
  for (const { level, bytes } of candidates) bytesOfLevel.set(level, (bytesOfLevel.get(level) ?? 0) + bytes);
  const [level] = [...bytesOfLevel].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0] ?? [null];
  const start = candidates.findIndex(candidate => candidate.level === level);
  const run: Candidate[] = [];
  let messages = 0;
  let bytes = 0;
  for (const candidate of start < 0 ? [] : candidates.slice(start)) {
    const last = run.at(-1);
    const follows =
      !last ||
      (candidate.log === last.log &&
        candidate.level === level &&
        candidate.firstSequence === last.nextSequence);
    // Of what is thinned already only the bytes count: many messages are few summaries.
    messages += level === 0 ? candidate.nextSequence - candidate.firstSequence : 0;
    bytes += candidate.bytes;
    if (!follows || (last && (messages > RUN_MESSAGES_MAX || bytes > runBytesMax))) break;
    run.push(candidate);
  }
  return run;
}
