/**
 * Absence of a device or of one of its metrics, pure. That nothing came is known only as far as the gateway's clock
 * vouches for (`clock.ts`), so silence alone opens nothing:
 *
 *   heard ─the clock passed forMs─▶ open ─heard─▶ quiet
 *   heard ─heard again after forMs─▶ gap ─the backlog is over, nothing lay in it─▶ left behind closed
 *
 * What the backlog brings is cut out of the gaps, and what is left of them is judged when the clock has passed.
 */
import { clear, type Draft, forget, leaveClosedAbsence, openAbsence, remember } from './draft.ts';
import type { AbsenceRule } from './rule.ts';
import { GAPS_MAX, type Gap, type LastHeard } from './rule-memory.ts';

/** Heard later than ever before. @param before the last time before, null if there was none */
export function heardAgain(draft: Draft, rule: AbsenceRule, before: LastHeard | null, now: LastHeard): void {
  if (draft.alerts.has(rule.id)) {
    clear(draft, rule.id, now.receivedAt, null);
    return;
  }
  if (!before || now.receivedAt - before.receivedAt < rule.forMs) return;
  const gaps = draft.memory.gaps.get(rule.id) ?? [];
  if (gaps.length < GAPS_MAX)
    remember(draft, 'gaps', rule.id, [...gaps, { from: before, to: now.receivedAt }]);
}

/** Something came that was heard earlier: it may lie in a gap. */
export function heardBetween(draft: Draft, rule: AbsenceRule, now: LastHeard): void {
  const gaps = draft.memory.gaps.get(rule.id);
  if (!gaps) return;
  const at = gaps.findIndex(gap => gap.from.receivedAt < now.receivedAt && now.receivedAt < gap.to);
  if (at < 0) return;
  const { from, to } = gaps[at]!;
  const parts: Gap[] = [
    { from, to: now.receivedAt },
    { from: now, to },
  ].filter(part => part.to - part.from.receivedAt >= rule.forMs);
  const left = gaps.toSpliced(at, 1, ...parts).slice(0, GAPS_MAX);
  if (left.length === 0) forget(draft, 'gaps', rule.id);
  else remember(draft, 'gaps', rule.id, left);
}

/**
 * @param heard the last time it was heard, null if it never was
 * @param clockMs everything that arrived before is known
 * @param hearingSince since when the gateway hears its devices without a break: before, silence means nothing
 */
export function judgeAbsence(
  draft: Draft,
  rule: AbsenceRule,
  heard: LastHeard | null,
  clockMs: number,
  hearingSince: number,
): void {
  const beginOf = (from: LastHeard) => Math.max(from.receivedAt, hearingSince) + rule.forMs;
  const gaps = draft.memory.gaps.get(rule.id);
  if (gaps) {
    const left = gaps.filter(gap => gap.to >= clockMs);
    for (const { from, to } of gaps) {
      const openedAt = beginOf(from);
      if (to < clockMs && openedAt <= to) leaveClosedAbsence(draft, rule, from, openedAt, to);
    }
    if (left.length === 0) forget(draft, 'gaps', rule.id);
    else if (left.length < gaps.length) remember(draft, 'gaps', rule.id, left);
  }
  if (!heard || draft.alerts.has(rule.id)) return;
  const openedAt = beginOf(heard);
  if (openedAt <= clockMs) openAbsence(draft, rule, heard, openedAt);
}
