/**
 * Threshold rules with hysteresis, pure. A rule and a twin have at most one open alert; its incident id names the
 * reading that opened it, so that a replay after a crash finds the same incident instead of a second one.
 *
 *            value past threshold                     value back past threshold ∓ hysteresis
 *   quiet ───────────────────────────▶ open ──────────────────────────────────────────▶ quiet
 */
import type { ReadingOrder } from './order.ts';

export interface ThresholdRule {
  readonly id: string;
  readonly metric: string;
  readonly comparison: 'above' | 'below';
  readonly threshold: number;
  readonly hysteresis: number;
  readonly severity: 'info' | 'warning' | 'critical';
  /** Where it applies; null means everywhere. */
  readonly site: string | null;
  readonly device: string | null;
}

/** An alert that is open on a twin; part of its live state. */
export interface OpenAlert {
  readonly incident: string;
  readonly metric: string;
  readonly severity: ThresholdRule['severity'];
  readonly threshold: number;
  readonly openedAt: number;
  readonly value: number;
}

export type RuleVerdict = 'open' | 'clear' | 'unchanged';

export const appliesTo = (rule: ThresholdRule, site: string, device: string): boolean =>
  (rule.site === null || rule.site === site) && (rule.device === null || rule.device === device);

export function judge(rule: ThresholdRule, isOpen: boolean, value: number): RuleVerdict {
  const past = rule.comparison === 'above' ? value > rule.threshold : value < rule.threshold;
  if (!isOpen) return past ? 'open' : 'unchanged';
  const back =
    rule.comparison === 'above'
      ? value <= rule.threshold - rule.hysteresis
      : value >= rule.threshold + rule.hysteresis;
  return back ? 'clear' : 'unchanged';
}

export const incidentId = (rule: string, twin: string, opening: ReadingOrder): string =>
  `${rule}:${twin}:${opening.log}:${opening.sequence}.${opening.element}`;
