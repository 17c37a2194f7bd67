/**
 * How a rule on values goes from verdict to incident, pure. Two judgements of one rule:
 *
 *   on time   quiet ─past─▶ pending ─the gateway's clock passed forMs─▶ open ─back─▶ quiet      opens and clears for people
 *   late      what came late, or out of its order, finds its place among the runs of what is known (`runs.ts`)
 *
 * When the backlog is over, the two are joined (`reconcile`): what still holds at the newest reading opens for people, with
 * its true beginning; what had ended is left behind closed; what lies over an incident that people know of is part of that.
 * So no two incidents of a rule lie over one another, and none is left out.
 */
import type { Lane } from '../../protocol/subjects.ts';
import { clear, type Draft, forget, leaveClosed, open, remember } from './draft.ts';
import { isAfter, type ReadingOrder } from './order.ts';
import { judge, type ValueRule, type Verdict } from './rule.ts';
import {
  JUDGED_LOGS_MAX,
  RECENT_MAX,
  type RecentIncident,
  RUNS_MAX,
  type Run,
  type Since,
} from './rule-memory.ts';
import {
  type FoundIncident,
  incidentsIn,
  isGap,
  joinEarliest,
  settledUpAndDown,
  withoutUpAndDown,
  withReading,
} from './runs.ts';
import { withValue } from './statistics.ts';

const isSame = (a: ReadingOrder, b: ReadingOrder): boolean => !isAfter(a, b) && !isAfter(b, a);

const NO_RUNS: readonly Run[] = [];

/**
 * A reading that came on time and is the newest of its metric.
 * @param known the newest before it, if that was a number
 * @param reading `stretch` and `isNewStretch` as in `Reading`
 */
export function judgeOnTime(
  draft: Draft,
  rules: readonly ValueRule[],
  now: Since,
  known: Since | null,
  {
    gateway,
    stretch,
    isNewStretch,
  }: { readonly gateway: string; readonly stretch: number; readonly isNewStretch: boolean },
): void {
  // The first ever may have something before it that is still to come, too; so may one of a log that has only begun.
  const resumes = known ? isGap(known, now, stretch) || (isNewStretch && known.log !== now.log) : stretch > 0;
  const late = draft.memory.late.get(rules[0]!.metric);
  // What came late, and in order, leads up to this very reading.
  const goesOn = late?.leadsUp && known !== null && isSame(known, late.last);
  for (const rule of rules) {
    const statistics = draft.memory.statistics.get(rule.id);
    const verdict = judge(rule, now, known, statistics);
    if (rule.kind === 'anomaly') {
      remember(draft, 'statistics', rule.id, withValue(statistics, now.value, rule.window));
    }
    if (verdict === null) continue;
    const ledUp = goesOn && !draft.alerts.has(rule.id) ? openIn(draft, rule) : null;
    // A quiet twin of which nothing is to come has nothing to remember.
    if (verdict === 'past' || late || resumes || draft.memory.runs.has(rule.id)) {
      note(draft, rule, now, verdict, known, { stretch, resumes });
    }
    if (ledUp) adopt(draft, rule, ledUp, verdict, now);
    step(draft, rule, verdict, now, known, gateway);
  }
}

function step(
  draft: Draft,
  rule: ValueRule,
  verdict: Verdict,
  now: Since,
  known: Since | null,
  gateway: string,
): void {
  const alert = draft.alerts.get(rule.id);
  if (alert) {
    // One that an earlier owner has told may have begun with a reading that is still to come.
    if (verdict === 'back' && now.at >= alert.openedAt) clearFor(draft, rule, now);
    return;
  }
  const since = draft.memory.pending.get(rule.id);
  if (verdict === 'past') {
    if (rule.forMs === 0) openFor(draft, rule, now);
    else if (!since) remember(draft, 'pending', rule.id, now);
    return;
  }
  if (!since) return;
  forget(draft, 'pending', rule.id);
  // It held long enough as far as is known. Whether it did is certain when the gateway's clock has passed.
  const held = now.receivedAt - since.receivedAt >= rule.forMs;
  if (!held || known === null || draft.memory.late.has(rule.metric)) return;
  remember(draft, 'late', rule.metric, { last: now, arrived: now.receivedAt, gateway, leadsUp: false });
}

function openFor(draft: Draft, rule: ValueRule, since: Since): void {
  open(draft, rule, since);
  addRecent(draft, rule, {
    from: since.at,
    to: null,
    receivedAt: since.receivedAt,
  });
}

function clearFor(draft: Draft, rule: ValueRule, end: Since): void {
  const { openedAt } = draft.alerts.get(rule.id)!;
  clear(draft, rule.id, end.at, end.value);
  addRecent(draft, rule, {
    from: openedAt,
    to: Math.max(end.at, openedAt),
    receivedAt: end.receivedAt,
  });
}

/** People know of it: what is still to come of its time is part of it. */
function addRecent(draft: Draft, rule: ValueRule, incident: RecentIncident): void {
  const incidents = draft.memory.recent.get(rule.id) ?? [];
  const at = incidents.findIndex(({ from }) => from === incident.from);
  if (at >= 0) remember(draft, 'recent', rule.id, incidents.with(at, incident));
  else if (incidents.length < RECENT_MAX) remember(draft, 'recent', rule.id, [...incidents, incident]);
}

/**
 * Puts a reading in its place.
 * @param known another one, the newest before it came
 * @param place of one that came on time: `stretch` as in `withReading`, `resumes` whether something before it may still come
 * @returns whether it tells anything new
 */
function note(
  draft: Draft,
  rule: ValueRule,
  now: Since,
  verdict: Verdict,
  known: Since | null,
  { stretch, resumes } = { stretch: 0, resumes: false },
): boolean {
  // Without a duration what lies between keeps all as it is. Where a gap ends it says so: what is back next ends what may come.
  if (verdict === 'between' && rule.forMs === 0 && !resumes) return false;
  const before = draft.memory.runs.get(rule.id) ?? begun(rule, known);
  let runs = withReading(before, now, verdict, stretch);
  if (runs === before) return false;
  if (stretch > 0) runs = withoutSettled(draft, rule, runs, stretch);
  while (runs.length > RUNS_MAX) {
    const fewer = joinEarliest(runs, rule.forMs);
    if (fewer.over) leaveForGood(draft, rule, fewer.over.since, fewer.over.end!);
    runs = fewer.runs;
  }
  remember(draft, 'runs', rule.id, runs);
  return true;
}

/** What people know of, or what was none, takes no room when nothing can come to lie in it any more. */
function withoutSettled(
  draft: Draft,
  rule: ValueRule,
  runs: readonly Run[],
  stretch: number,
): readonly Run[] {
  const settled = settledUpAndDown(runs, stretch);
  if (!settled) return runs;
  const { past, back } = settled;
  const recent = draft.memory.recent.get(rule.id) ?? [];
  const known = recent.findIndex(({ from }) => from === past.first.at);
  if (known < 0 && back.first.at - past.first.at >= rule.forMs) return runs;
  if (known >= 0 && recent.length === 1) forget(draft, 'recent', rule.id);
  else if (known >= 0) remember(draft, 'recent', rule.id, recent.toSpliced(known, 1));
  return withoutUpAndDown(runs);
}

function begun(rule: ValueRule, known: Since | null): readonly Run[] {
  // What was usual then is not known any more.
  if (rule.kind === 'anomaly') return NO_RUNS;
  const verdict = known && judge(rule, known, null, undefined);
  if (!verdict || (verdict === 'between' && rule.forMs === 0)) return NO_RUNS;
  return [{ verdict, first: known, last: known }];
}

/** What holds at the end of what is known. */
function openIn(draft: Draft, rule: ValueRule): FoundIncident | null {
  const found = incidentsIn(draft.memory.runs.get(rule.id) ?? NO_RUNS, rule.forMs).at(-1);
  return found?.end === null ? found : null;
}

/** The judgement of what came late goes on as the one for people. */
function adopt(
  draft: Draft,
  rule: ValueRule,
  { since, held }: FoundIncident,
  verdict: Verdict,
  now: Since,
): void {
  if (verdict === 'past' && !held) {
    if (!draft.memory.pending.has(rule.id)) remember(draft, 'pending', rule.id, since);
  } else if (verdict === 'past' || (verdict === 'between' && held)) openFor(draft, rule, since);
  else if (held || now.at - since.at >= rule.forMs) {
    leaveForGood(draft, rule, since, now);
  }
}

/**
 * A reading that came late, or out of its order.
 * @param known the newest of its metric before it came, if that was a number
 * @param isBehind it may have been judged. A verdict that other readings have a part in is another one then
 */
export function judgeLate(
  draft: Draft,
  rules: readonly ValueRule[],
  now: Since,
  known: Since | null,
  { gateway, lane }: { readonly gateway: string; readonly lane: Lane },
  isBehind: boolean,
): void {
  const { metric } = rules[0]!;
  const late = draft.memory.late.get(metric);
  // What comes again in its own lane is no place to go on from.
  const isLast = !late || (!isBehind && isAfter(now, late.last));
  let isNews = false;
  for (const rule of rules) {
    const ordered = rule.kind === 'rate' || rule.kind === 'anomaly';
    if (ordered && (isBehind || !isLast)) continue;
    const judged = draft.memory.judged.get(rule.id);
    if (judged?.some(({ log, sequence }) => log === now.log && now.sequence <= sequence)) continue;
    const previous = latestBefore(now, [known, late?.last ?? null, ...endsOf(draft, rule)]);
    const verdict = judge(rule, now, previous, draft.memory.statistics.get(rule.id));
    if (ordered) isNews = true;
    if (verdict === null) continue;
    const { runs, pending } = draft.memory;
    const isQuiet = !draft.alerts.has(rule.id) && !pending.has(rule.id) && !runs.has(rule.id);
    if (isQuiet && verdict !== 'past') continue;
    if (note(draft, rule, now, verdict, known)) isNews = true;
  }
  if (!isNews) return;
  remember(draft, 'late', metric, {
    last: isLast ? now : late.last,
    arrived: Math.max(now.receivedAt, late?.arrived ?? 0),
    gateway,
    leadsUp: lane === 'live' && !isBehind,
  });
}

const endsOf = (draft: Draft, rule: ValueRule): Since[] =>
  (draft.memory.runs.get(rule.id) ?? NO_RUNS).flatMap(({ first, last }) => [first, last]);

function latestBefore(now: Since, candidates: readonly (Since | null)[]): Since | null {
  let latest: Since | null = null;
  for (const one of candidates) {
    if (one && isAfter(now, one) && (!latest || isAfter(one, latest))) latest = one;
  }
  return latest;
}

/** The same of one that cannot be told again with more readings: what is still to come of its time is part of it. */
function leaveForGood(draft: Draft, rule: ValueRule, since: Since, end: Since): void {
  leaveUnknown(draft, rule, since, end);
  addRecent(draft, rule, { from: since.at, to: end.at, receivedAt: end.receivedAt });
}

/** Leaves it behind closed, unless it lies over one that people know of. */
function leaveUnknown(draft: Draft, rule: ValueRule, since: Since, end: Since): void {
  if (!isKnown(draft, rule, since.at, end.at)) leaveClosed(draft, rule, since, end);
}

function isKnown(draft: Draft, rule: ValueRule, from: number, to: number): boolean {
  const openedAt = draft.alerts.get(rule.id)?.openedAt ?? Number.POSITIVE_INFINITY;
  if (openedAt < to) return true;
  const recent = draft.memory.recent.get(rule.id) ?? [];
  return recent.some(known => known.from < to && (known.to === null || from < known.to));
}

/** The backlog is over. @param newest reading of the metric, null when it is no number */
export function reconcile(
  draft: Draft,
  metric: string,
  rules: readonly ValueRule[],
  newest: Since | null,
): void {
  for (const rule of rules) {
    const runs = draft.memory.runs.get(rule.id);
    if (!runs) continue;
    const found = incidentsIn(runs, rule.forMs);
    const last = found.at(-1);
    const holds = last?.end === null ? last : null;
    const openedAt = draft.alerts.get(rule.id)?.openedAt;
    if (openedAt !== undefined) {
      // It ended where the fold says, or it goes on.
      const own = found.find(({ since, end }) => since.at <= openedAt && (!end || openedAt < end.at));
      const end = own ? own.end : holds ? null : endOf(runs);
      if (end && newest && end.at >= openedAt) clearFor(draft, rule, end);
    }
    for (const { since, end } of found) if (end) leaveUnknown(draft, rule, since, end);
    if (!holds) forget(draft, 'pending', rule.id);
    else if (!isKnown(draft, rule, holds.since.at, Number.POSITIVE_INFINITY)) {
      if (holds.held) {
        forget(draft, 'pending', rule.id);
        openFor(draft, rule, holds.since);
      } else {
        const pending = draft.memory.pending.get(rule.id);
        if (!pending || isAfter(pending, holds.since)) remember(draft, 'pending', rule.id, holds.since);
      }
    }
  }
  forget(draft, 'late', metric);
}

const endOf = (runs: readonly Run[]): Since | null => {
  const run = runs.findLast(({ verdict }) => verdict === 'back');
  return run ? run.first : null;
};

/**
 * Forgets what nothing can change any more, also of one that goes up and down faster than the gateway says how far its word
 * is complete. @param clockMs everything of the gateway that arrived before is known
 */
export function settle(draft: Draft, rule: ValueRule, clockMs: number): void {
  const { id } = rule;
  const incidents = draft.memory.recent.get(id);
  if (incidents) {
    const left = incidents.filter(({ receivedAt }) => receivedAt >= clockMs);
    if (left.length === 0) forget(draft, 'recent', id);
    else if (left.length < incidents.length) remember(draft, 'recent', id, left);
  }
  const runs = draft.memory.runs.get(id);
  if (!runs) return;
  const goesOn = draft.alerts.has(id) || draft.memory.pending.has(id);
  const from = beginAt(runs, clockMs, goesOn);
  if (from === 0) return;
  if (from === runs.length) forget(draft, 'runs', id);
  else remember(draft, 'runs', id, runs.slice(from));
  noteJudged(draft, rule, runs.slice(0, from));
}

/**
 * Where nothing was past, nothing that comes again opens anything. By log and not by time: two gateways may go by one name,
 * and a clock may be set.
 */
function noteJudged(draft: Draft, rule: ValueRule, runs: readonly Run[]): void {
  const before = draft.memory.judged.get(rule.id) ?? [];
  let logs = before;
  for (const { verdict, first, last } of runs) {
    if (verdict !== 'past') continue;
    for (const { log, sequence } of [first, last]) {
      const known = logs.find(one => one.log === log);
      const furthest = Math.max(sequence, known?.sequence ?? 0);
      logs = [...logs.filter(one => one !== known), { log, sequence: furthest }];
    }
  }
  if (logs !== before) remember(draft, 'judged', rule.id, logs.slice(-JUDGED_LOGS_MAX));
}

/**
 * Of which run on what arrives from then on may still change something: of the last that was back by then, since no incident
 * reaches over it. @param goesOn whether what was past last is not over
 */
function beginAt(runs: readonly Run[], clockMs: number, goesOn: boolean): number {
  if (!goesOn && runs.at(-1)!.first.receivedAt < clockMs) return runs.length;
  const reaches = runs.findIndex(({ last }) => last.receivedAt >= clockMs);
  const known = reaches < 0 ? runs.length : reaches + Number(runs[reaches]!.first.receivedAt < clockMs);
  const past = goesOn ? runs.findLastIndex(({ verdict }) => verdict === 'past') : runs.length;
  const end = past < 0 ? known : Math.min(known, past);
  return Math.max(
    0,
    runs.slice(0, end).findLastIndex(({ verdict }) => verdict === 'back'),
  );
}

/** @param clockMs everything that arrived before is known */
export function ripen(draft: Draft, rule: ValueRule, clockMs: number, hearingSince: number): void {
  const since = draft.memory.pending.get(rule.id);
  if (!since || Math.max(since.receivedAt, hearingSince) + rule.forMs > clockMs) return;
  forget(draft, 'pending', rule.id);
  if (!draft.alerts.has(rule.id)) openFor(draft, rule, since);
}
