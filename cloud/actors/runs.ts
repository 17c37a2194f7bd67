/**
 * What is known of a rule's past, in the order of the readings and not in that of their coming: runs of readings with one
 * verdict. A reading finds its place whenever it comes, and one that comes again changes nothing, so what the runs say is
 * what a clean fold of the same readings would say, but for where a run begins that another one split. Pure.
 *
 *   back ··· past ··· back          a reading in between extends a run, or is one of its own
 *          └─ an incident, from the first that was past to the first that was back
 */
import { isAfter } from './order.ts';
import type { Verdict } from './rule.ts';
import type { Run, Since } from './rule-memory.ts';

/** What a clean fold finds. */
export interface FoundIncident {
  readonly since: Since;
  /** Null: it still holds at the last reading. */
  readonly end: Since | null;
  /** False: at the last reading it had not held for long enough. */
  readonly held: boolean;
}

/**
 * @param stretch of the reading's log: what lies between an earlier sequence and the reading may still come; 0: nothing may
 * @returns the same when the reading tells nothing new
 */
export function withReading(
  runs: readonly Run[],
  now: Since,
  verdict: Verdict,
  stretch: number,
): readonly Run[] {
  // The first one that does not lie before the reading.
  const found = runs.findIndex(({ last }) => !isAfter(now, last));
  const at = found < 0 ? runs.length : found;
  const run = runs[at];
  const own: Run = { verdict, first: now, last: now };
  if (run && !isAfter(run.first, now)) {
    const isEnd = !isAfter(now, run.first) || !isAfter(run.last, now);
    if (run.verdict === verdict || isEnd) return runs;
    return runs.toSpliced(at, 1, { ...run, last: run.first }, own, {
      ...run,
      first: run.last,
    });
  }
  // A run grows to its end only. What comes to lie before one may be followed by what splits it, and where the later one
  // begins must not be lost by then.
  const before = runs[at - 1];
  if (before?.verdict === verdict && goesOn(runs, at, now, stretch)) {
    return runs.with(at - 1, { ...before, last: now });
  }
  return runs.toSpliced(at, 0, own);
}

/** Gateways that share the messages of a device, one run each at first. */
const GATEWAYS_AT_ONCE = 4;

/** Whether nothing may come any more between the run before `at` and the reading: its log is known up to there. */
function goesOn(runs: readonly Run[], at: number, now: Since, stretch: number): boolean {
  if (stretch === 0) return true;
  const ends = runs.slice(Math.max(0, at - GATEWAYS_AT_ONCE), at).flatMap(({ first, last }) => [first, last]);
  const known = ends.findLast(({ log }) => log === now.log);
  return known !== undefined && !isGap(known, now, stretch);
}

/** Whether something may still come that lies between the two. @param stretch as in `withReading` */
export const isGap = (last: Since, now: Since, stretch: number): boolean =>
  last.log === now.log && last.sequence < stretch;

/**
 * The last up and down but one that nothing can come to lie in any more: it is of a live lane that left nothing out since.
 *
 *   back · past · back · past       of these four, the past and what was back after it
 */
export function settledUpAndDown(
  runs: readonly Run[],
  stretch: number,
): { readonly past: Run; readonly back: Run } | null {
  const [before, past, back, now] = runs.slice(-4);
  if (!now || before!.verdict !== 'back' || past!.verdict !== 'past' || back!.verdict !== 'back') return null;
  if (before!.last.log !== now.last.log || isGap(before!.last, now.last, stretch)) return null;
  return { past: past!, back: back! };
}

/** Without it: what was back before and after it is one. */
export const withoutUpAndDown = (runs: readonly Run[]): readonly Run[] => [
  ...runs.slice(0, -4),
  { ...runs.at(-4)!, last: runs.at(-2)!.last },
  runs.at(-1)!,
];

/** The fold of the runs. @param forMs how long the condition must hold */
export function incidentsIn(runs: readonly Run[], forMs: number): FoundIncident[] {
  const found: FoundIncident[] = [];
  let since: Since | null = null;
  let held = false;
  for (const { verdict, first, last } of runs) {
    if (since) held ||= first.at - since.at >= forMs;
    if (verdict === 'past') {
      since ??= first;
      held ||= last.at - since.at >= forMs;
    } else if (since && (!held || verdict === 'back')) {
      if (held) found.push({ since, end: first, held });
      since = null;
      held = false;
    }
  }
  if (since) found.push({ since, end: null, held });
  return found;
}

/**
 * The earliest ones as one: those before the first incident, which hold none; where none are before it, as far as it is over;
 * where it is not, those that it has been past in.
 * @returns `over`: the incident of which nothing is left
 */
export function joinEarliest(
  runs: readonly Run[],
  forMs: number,
): { readonly runs: readonly Run[]; readonly over: FoundIncident | null } {
  const [first] = incidentsIn(runs, forMs);
  const begin = first ? runs.findIndex(run => run.first === first.since) : runs.length;
  const back = runs.findIndex(({ verdict }, index) => index > 0 && index < begin && verdict === 'back');
  if (back > 0) return { runs: joined(runs, 0, back), over: null };
  if (begin >= 2) return { runs: joined(runs, 0, Math.min(begin, runs.length) - 1), over: null };
  if (first?.end) {
    const end = runs.findIndex(run => run.first === first.end);
    return { runs: joined(runs, 0, end), over: first };
  }
  const past = runs.findLastIndex(({ verdict }) => verdict === 'past');
  if (past <= begin) return { runs: joined(runs, begin + 1, runs.length - 1), over: null };
  const pastUntil = { ...runs[past]!, first: runs[begin]!.first };
  return { runs: [...runs.slice(0, begin), pastUntil, ...runs.slice(past + 1)], over: null };
}

/** Those from `from` to `to` as one, with the verdict of the last. */
const joined = (runs: readonly Run[], from: number, to: number): readonly Run[] => [
  ...runs.slice(0, from),
  { ...runs[to]!, first: runs[from]!.first },
  ...runs.slice(to + 1),
];
