/**
 * Rules and what they say of one value, pure. A verdict knows no time and no state:
 *
 *   back ····· clears │ between ····· keeps as it is │ past ····· the condition holds
 *
 * What follows from verdicts (`judging.ts`): a condition that held for `forMs` opens an incident, a value that is back by
 * the hysteresis clears it. A rule and a twin have at most one open incident.
 */
import type { Severity } from './incident.ts';
import type { ReadingOrder } from './order.ts';
import { deviationOf, type Statistics } from './statistics.ts';

/** Where a rule applies: all that is named must fit, null fits everything. */
export interface RuleScope {
  readonly site: string | null;
  readonly device: string | null;
  readonly deviceType: string | null;
  readonly tag: string | null;
}

/** What the registry knows of a device. */
export interface Traits {
  readonly type: string | null;
  readonly tags: readonly string[];
  readonly groups: readonly string[];
  /** Nothing is expected of it any more. */
  readonly retired?: boolean;
}

interface CommonRule extends RuleScope {
  readonly id: string;
  readonly severity: Severity;
  /** How long the condition must hold without a break, milliseconds; 0: a single reading opens. Of an absence: the silence. */
  readonly forMs: number;
}

interface MetricRule extends CommonRule {
  readonly metric: string;
  /** The value must come back by this much before the incident clears. */
  readonly hysteresis: number;
}

export interface ThresholdRule extends MetricRule {
  readonly kind: 'threshold';
  readonly comparison: 'above' | 'below';
  readonly threshold: number;
}

/** Outside of low … high. */
export interface RangeRule extends MetricRule {
  readonly kind: 'range';
  readonly low: number;
  readonly high: number;
}

/** Change from one reading to the next, over the time between them. */
export interface RateRule extends MetricRule {
  readonly kind: 'rate';
  readonly direction: 'rising' | 'falling' | 'either';
  /** Change per `perMs`, not negative. */
  readonly threshold: number;
  readonly perMs: number;
}

/** Further from what is usual than `deviations` standard deviations; clears at half of that. See `statistics.ts`. */
export interface AnomalyRule extends MetricRule {
  readonly kind: 'anomaly';
  readonly deviations: number;
  /** Readings that count for what is usual, about. */
  readonly window: number;
  /** Readings before it says anything. */
  readonly warmup: number;
  /** The least standard deviation that is believed, in the metric's unit. */
  readonly floor: number;
}

/** No reading of the device, or of the metric if one is named, for `forMs`. */
export interface AbsenceRule extends CommonRule {
  readonly kind: 'absence';
  readonly metric: string | null;
}

export type ValueRule = ThresholdRule | RangeRule | RateRule | AnomalyRule;
export type Rule = ValueRule | AbsenceRule;

export type Verdict = 'past' | 'between' | 'back';

/** A number and when it was so. */
export interface NumberAt {
  readonly value: number;
  readonly at: number;
}

/**
 * @param previous the reading of the metric before this one; null when there is none or it is no number
 * @param statistics of an anomaly rule, as they were before this value
 * @returns null when nothing can be said yet
 */
export function judge(
  rule: ValueRule,
  now: NumberAt,
  previous: NumberAt | null,
  statistics: Statistics | undefined,
): Verdict | null {
  switch (rule.kind) {
    case 'threshold':
      return rule.comparison === 'above'
        ? side(now.value - rule.threshold, rule.hysteresis)
        : side(rule.threshold - now.value, rule.hysteresis);
    case 'range':
      return side(Math.max(now.value - rule.high, rule.low - now.value), rule.hysteresis);
    case 'rate': {
      const rate = rateOf(rule, now, previous);
      return rate === null ? null : side(directed(rule, rate) - rule.threshold, rule.hysteresis);
    }
    case 'anomaly': {
      if (!statistics || statistics.count < rule.warmup) return null;
      const deviation = Math.abs(deviationOf(statistics, now.value, rule.floor));
      return side(deviation - rule.deviations, rule.deviations / 2);
    }
  }
}

/** @param excess how far past the bound; not positive: not past */
function side(excess: number, hysteresis: number): Verdict {
  if (excess > 0) return 'past';
  return excess <= -hysteresis ? 'back' : 'between';
}

function rateOf(rule: RateRule, now: NumberAt, previous: NumberAt | null): number | null {
  if (!previous || now.at <= previous.at) return null;
  const rate = ((now.value - previous.value) / (now.at - previous.at)) * rule.perMs;
  return Number.isFinite(rate) ? rate : null;
}

const directed = (rule: RateRule, rate: number): number =>
  rule.direction === 'rising' ? rate : rule.direction === 'falling' ? -rate : Math.abs(rate);

const SUMMARY_CHARACTERS_MAX = 200;
const UNITS: ReadonlyMap<number, string> = new Map([
  [1000, 'second'],
  [60_000, 'minute'],
  [3_600_000, 'hour'],
]);

/** One line for people on why the incident opened. */
export function summaryOf(rule: ValueRule, value: number): string {
  const { metric } = rule;
  const held = rule.forMs > 0 ? ` for ${durationText(rule.forMs)}` : '';
  return bounded(`${metric} ${reason(rule, value)}${held}`);
}

function reason(rule: ValueRule, value: number): string {
  const shown = numberText(value);
  switch (rule.kind) {
    case 'threshold':
      return `${shown} is ${rule.comparison} ${numberText(rule.threshold)}`;
    case 'range':
      return `${shown} is outside of ${numberText(rule.low)} to ${numberText(rule.high)}`;
    case 'rate': {
      const verb = { rising: 'rose to', falling: 'fell to', either: 'went to' }[rule.direction];
      const unit = UNITS.get(rule.perMs) ?? durationText(rule.perMs);
      return `${verb} ${shown} by more than ${numberText(rule.threshold)} per ${unit}`;
    }
    case 'anomaly':
      return `${shown} is unusual, more than ${numberText(rule.deviations)} deviations off`;
  }
}

export const absenceSummary = (rule: AbsenceRule, device: string): string =>
  bounded(
    rule.metric === null
      ? `${device} has not been heard for ${durationText(rule.forMs)}`
      : `${rule.metric} has not come for ${durationText(rule.forMs)}`,
  );

const bounded = (text: string): string =>
  text.length <= SUMMARY_CHARACTERS_MAX
    ? text
    : `${text.slice(0, SUMMARY_CHARACTERS_MAX - 1).toWellFormed()}…`;

const numberText = (value: number): string => String(Number(value.toPrecision(6)));

/** "90 s", "5 min", "2 h". */
export function durationText(ms: number): string {
  if (ms % 3_600_000 === 0) return `${ms / 3_600_000} h`;
  if (ms % 60_000 === 0) return `${ms / 60_000} min`;
  return `${ms / 1000} s`;
}

/** The bound that a person would look for beside the value; null when there is no single one. */
export const thresholdOf = (rule: Rule): number | null =>
  rule.kind === 'threshold' || rule.kind === 'rate'
    ? rule.threshold
    : rule.kind === 'anomaly'
      ? rule.deviations
      : null;

export const incidentId = (rule: string, twin: string, opening: Omit<ReadingOrder, 'at'>): string =>
  `${rule}:${twin}:${opening.log}:${opening.sequence}.${opening.element}`;
