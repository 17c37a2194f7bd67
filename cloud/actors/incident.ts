/** What the rules and the link judgement say of an incident: it opened, or it cleared. Pure data. */

export type Severity = 'info' | 'warning' | 'critical';
export type RuleKind = 'threshold' | 'range' | 'rate' | 'absence' | 'anomaly';
export type IncidentKind = RuleKind | 'link';

/**
 * An incident as history keeps it. The id names its cause, so that a replay after a crash finds the same incident
 * instead of a second one; of two transitions with one id the one that cleared is the later.
 */
export interface IncidentTransition {
  /**
   * `${rule}:${site}/${device}:${log}:${sequence}.${element}` of the reading that opened it, for an absence of the last
   * reading that was heard; of a dead link `link:${site}/${gateway}:${completeUntil}`.
   */
  readonly id: string;
  /** The rule's id; `link` for a dead link. */
  readonly rule: string;
  readonly kind: IncidentKind;
  readonly severity: Severity;
  readonly site: string;
  /** Null when it concerns the site: a dead link. */
  readonly device: string | null;
  /** Null when it concerns no single metric. */
  readonly metric: string | null;
  /** One line for people, "temperature 31.2 is above 30", at most 200 characters. */
  readonly summary: string;
  readonly threshold: number | null;
  /** Milliseconds since 1970, as are all times here. */
  readonly openedAt: number;
  readonly openedValue: number | null;
  /** Null while it is open. */
  readonly clearedAt: number | null;
  readonly clearedValue: number | null;
  /** Known only afterwards, from backfill: leaves a closed incident and pages nobody. */
  readonly late: boolean;
}
