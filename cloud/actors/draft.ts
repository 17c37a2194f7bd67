/**
 * The next state of one twin's rules while one message is folded: maps are copied when first changed, and what comes of it
 * is a value again. Lives no longer than the message.
 */
import type { IncidentTransition } from './incident.ts';
import {
  type AbsenceRule,
  absenceSummary,
  incidentId,
  type Rule,
  summaryOf,
  thresholdOf,
  type ValueRule,
} from './rule.ts';
import {
  compactMemory,
  type LastHeard,
  NO_ALERTS,
  type OpenAlert,
  type RuleMemory,
  type Since,
} from './rule-memory.ts';

export interface Draft {
  readonly site: string;
  readonly device: string;
  alerts: ReadonlyMap<string, OpenAlert>;
  memory: { -readonly [Part in keyof RuleMemory]: RuleMemory[Part] };
  readonly transitions: IncidentTransition[];
  /** Maps that are this draft's own. */
  readonly own: Set<ReadonlyMap<string, unknown>>;
}

export function newDraft(twin: {
  readonly site: string;
  readonly device: string;
  readonly alerts: ReadonlyMap<string, OpenAlert>;
  readonly memory: RuleMemory;
}): Draft {
  const { site, device, alerts, memory } = twin;
  return { site, device, alerts, memory: { ...memory }, transitions: [], own: new Set() };
}

/** @returns the maps of before where nothing has changed */
export function settledDraft(
  draft: Draft,
  before: { readonly alerts: ReadonlyMap<string, OpenAlert>; readonly memory: RuleMemory },
): { alerts: ReadonlyMap<string, OpenAlert>; memory: RuleMemory } {
  const alerts = draft.alerts.size === 0 ? NO_ALERTS : draft.alerts;
  const parts = Object.keys(draft.memory) as (keyof RuleMemory)[];
  const changed = parts.some(part => draft.memory[part] !== before.memory[part]);
  return {
    alerts: draft.alerts === before.alerts ? before.alerts : alerts,
    memory: changed ? compactMemory(draft.memory) : before.memory,
  };
}

function ownMap<T>(draft: Draft, map: ReadonlyMap<string, T>): Map<string, T> {
  if (draft.own.has(map)) return map as Map<string, T>;
  const copy = new Map(map);
  draft.own.add(copy);
  return copy;
}

type PartValue<Part extends keyof RuleMemory> =
  RuleMemory[Part] extends ReadonlyMap<string, infer T> ? T : never;

export function remember<Part extends keyof RuleMemory>(
  draft: Draft,
  part: Part,
  key: string,
  value: PartValue<Part>,
): void {
  const map = ownMap(draft, draft.memory[part] as ReadonlyMap<string, PartValue<Part>>);
  map.set(key, value);
  draft.memory[part] = map as never;
}

export function forget(draft: Draft, part: keyof RuleMemory, key: string): void {
  if (!draft.memory[part].has(key)) return;
  const map = ownMap(draft, draft.memory[part] as ReadonlyMap<string, unknown>);
  map.delete(key);
  draft.memory[part] = map as never;
}

const twinOf = (draft: Draft): string => `${draft.site}/${draft.device}`;

const valueAlert = (draft: Draft, rule: ValueRule, since: Since): OpenAlert => ({
  incident: incidentId(rule.id, twinOf(draft), since),
  kind: rule.kind,
  metric: rule.metric,
  severity: rule.severity,
  summary: summaryOf(rule, since.value),
  threshold: thresholdOf(rule),
  openedAt: since.at,
  value: since.value,
});

const absenceAlert = (draft: Draft, rule: AbsenceRule, heard: LastHeard, openedAt: number): OpenAlert => ({
  incident: incidentId(rule.id, twinOf(draft), heard),
  kind: rule.kind,
  metric: rule.metric,
  severity: rule.severity,
  summary: absenceSummary(rule, draft.device),
  threshold: null,
  openedAt,
  value: null,
});

function tell(
  draft: Draft,
  rule: string,
  alert: OpenAlert,
  cleared: { readonly at: number; readonly value: number | null } | null,
  late: boolean,
): void {
  draft.transitions.push({
    id: alert.incident,
    rule,
    kind: alert.kind,
    severity: alert.severity,
    site: draft.site,
    device: draft.device,
    metric: alert.metric,
    summary: alert.summary,
    threshold: alert.threshold,
    openedAt: alert.openedAt,
    openedValue: alert.value,
    clearedAt: cleared?.at ?? null,
    clearedValue: cleared?.value ?? null,
    late,
  });
}

function put(draft: Draft, rule: Rule, alert: OpenAlert): void {
  const alerts = ownMap(draft, draft.alerts);
  alerts.set(rule.id, alert);
  draft.alerts = alerts;
  tell(draft, rule.id, alert, null, false);
}

export const open = (draft: Draft, rule: ValueRule, since: Since): void =>
  put(draft, rule, valueAlert(draft, rule, since));

export const openAbsence = (draft: Draft, rule: AbsenceRule, heard: LastHeard, openedAt: number): void =>
  put(draft, rule, absenceAlert(draft, rule, heard, openedAt));

/** Nothing when none is open. */
export function clear(draft: Draft, rule: string, at: number, value: number | null): void {
  const alert = draft.alerts.get(rule);
  if (!alert) return;
  const alerts = ownMap(draft, draft.alerts);
  alerts.delete(rule);
  draft.alerts = alerts;
  tell(draft, rule, alert, { at: Math.max(at, alert.openedAt), value }, false);
}

/** It was over before anybody knew. */
export const leaveClosed = (draft: Draft, rule: ValueRule, since: Since, end: Since): void =>
  tell(draft, rule.id, valueAlert(draft, rule, since), end, true);

export const leaveClosedAbsence = (
  draft: Draft,
  rule: AbsenceRule,
  heard: LastHeard,
  openedAt: number,
  clearedAt: number,
): void =>
  tell(draft, rule.id, absenceAlert(draft, rule, heard, openedAt), { at: clearedAt, value: null }, true);
