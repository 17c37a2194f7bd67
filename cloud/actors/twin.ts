/**
 * The twin of one device: the newest value of each metric, the alerts that are open and what its rules remember, and
 * whether its last status message had it online, as a pure state machine.
 *
 *   receive(state, message) → { state, effects }
 *
 * States are values, never changed in place: whoever holds one may write it later (history checkpoints an older
 * one than live shows). Invariants: C (a metric only moves forward in the order of `order.ts`; folding a message
 * again changes nothing), H (nothing a device sends can make this throw).
 */
import type { Kind, Value } from '../../protocol/batch.ts';
import type { Lane } from '../../protocol/subjects.ts';
import { heardAgain, heardBetween, judgeAbsence } from './absence.ts';
import type { JudgedClock } from './clock.ts';
import { clear, type Draft, forget, newDraft, settledDraft } from './draft.ts';
import type { IncidentTransition } from './incident.ts';
import { judgeLate, judgeOnTime, reconcile, ripen, settle } from './judging.ts';
import { isAfter, type ReadingOrder } from './order.ts';
import { connectionIn, type Presence } from './presence.ts';
import type { RuleIndex, TwinRules } from './rule-index.ts';
import {
  type LastHeard,
  NO_ALERTS,
  NO_MEMORY,
  type OpenAlert,
  type RuleMemory,
  type Since,
} from './rule-memory.ts';

export interface MetricState extends ReadingOrder {
  readonly value: Value;
  /** When it arrived, by the gateway's clock. */
  readonly receivedAt: number;
}

/** The message that was heard last, of the device as a whole. */
export interface Heard extends LastHeard {
  readonly gateway: string;
}

export interface TwinState {
  readonly site: string;
  readonly device: string;
  /** Grows by one with every change. */
  readonly version: number;
  /** When the gateway last heard the device, milliseconds since 1970. */
  readonly seenAt: number;
  /** Null only before the first reading. */
  readonly heard: Heard | null;
  readonly metrics: ReadonlyMap<string, MetricState>;
  /** By rule id. */
  readonly alerts: ReadonlyMap<string, OpenAlert>;
  readonly memory: RuleMemory;
  /** Null until a status message said something of the connection. */
  readonly presence: Presence | null;
}

/** One element of a message. `at` is corrected, so it is never far ahead of `receivedAt`. */
export interface Reading {
  readonly at: number;
  readonly receivedAt: number;
  readonly gateway: string;
  readonly lane: Lane;
  /** Of the live lane: the sequence since which that lane has left nothing out to come later. */
  readonly stretch: number;
  /** Whether that sequence arrived a moment before: what an earlier log of the device holds may still come. */
  readonly isNewStretch: boolean;
  /** Whether the gateway was catching up, and this is of long ago. */
  readonly isLate: boolean;
  readonly log: string;
  readonly sequence: number;
  readonly element: number;
  readonly kind: Kind;
  readonly metrics: readonly string[];
  readonly values: readonly Value[];
}

export type TwinMessage =
  | {
      readonly type: 'reading';
      readonly reading: Reading;
      readonly rules: TwinRules;
    }
  /** How far the word of a gateway is complete now. */
  | {
      readonly type: 'clock';
      readonly gateway: string;
      readonly clock: JudgedClock;
      readonly rules: TwinRules;
    }
  /** The rules are others now: what is left of those that are gone is cleared. */
  | { readonly type: 'rules'; readonly index: RuleIndex }
  /** An incident that people know is open, and that the twin, which is older, may not know of. */
  | { readonly type: 'told'; readonly incident: IncidentTransition }
  /** State of the same twin from elsewhere (Redis on activation): the later value of each metric stays. */
  | { readonly type: 'merge'; readonly other: TwinState };

export type TwinEffect = {
  readonly type: 'incident';
  readonly transition: IncidentTransition;
};

export interface TwinOutcome {
  readonly state: TwinState;
  readonly effects: readonly TwinEffect[];
}

/** Readings older than this when they arrive are a backlog: they never page. */
export const LATE_AFTER_MS = 5 * 60_000;
/** Metrics a twin remembers; further names are in history only, and the twin says so by its count. */
export const METRICS_MAX = 1024;

const NO_EFFECTS: readonly TwinEffect[] = [];
const NO_METRICS: ReadonlyMap<string, MetricState> = new Map();

export const newTwin = (site: string, device: string): TwinState => ({
  site,
  device,
  version: 0,
  seenAt: 0,
  heard: null,
  metrics: NO_METRICS,
  alerts: NO_ALERTS,
  memory: NO_MEMORY,
  presence: null,
});

export function receive(state: TwinState, message: TwinMessage): TwinOutcome {
  switch (message.type) {
    case 'reading':
      return receiveReading(state, message.reading, message.rules);
    case 'clock':
      return receiveClock(state, message.gateway, message.clock, message.rules);
    case 'rules':
      return receiveRules(state, message.index);
    case 'told':
      return receiveTold(state, message.incident);
    case 'merge':
      return { state: merge(state, message.other), effects: NO_EFFECTS };
  }
}

function receiveReading(state: TwinState, reading: Reading, rules: TwinRules): TwinOutcome {
  if (reading.metrics.length === 0) return { state, effects: NO_EFFECTS };
  let metrics: Map<string, MetricState> | undefined;
  const { at, receivedAt, gateway, log, sequence, element } = reading;
  const isNewlyHeard = !state.heard || isHeardAfter(reading, state.heard);
  const isLate = reading.isLate || reading.lane === 'backfill' || receivedAt - at > LATE_AFTER_MS;
  // What is behind in its own lane may come again, and be judged already.
  const isBehind = reading.lane === 'live' && !isNewlyHeard;
  const draft = rules.isEmpty ? null : newDraft(state);

  for (let i = 0; i < reading.metrics.length; i++) {
    const metric = reading.metrics[i]!;
    const known = state.metrics.get(metric);
    const isNewest =
      known === undefined ? (metrics ?? state.metrics).size < METRICS_MAX : isAfter(reading, known);
    const ofMetric = draft ? rules.byMetric.get(metric) : undefined;
    if (!isNewest && !ofMetric) continue;
    const now: MetricState = {
      value: reading.values[i]!,
      at,
      log,
      sequence,
      element,
      receivedAt,
    };
    if (isNewest) {
      metrics ??= new Map(state.metrics);
      metrics.set(metric, now);
    }
    if (!draft || !ofMetric) continue;
    for (const rule of ofMetric.absences) {
      if (isNewest && receivedAt >= (known?.receivedAt ?? 0)) heardAgain(draft, rule, known ?? null, now);
      else heardBetween(draft, rule, now);
    }
    const number = asNumber(now);
    if (!number || ofMetric.values.length === 0) continue;
    const before = known ? asNumber(known) : null;
    if (isNewest && !isLate) judgeOnTime(draft, ofMetric.values, number, before, reading);
    else judgeLate(draft, ofMetric.values, number, before, reading, isBehind);
  }

  const presence = presenceAfter(state.presence, reading);
  // What moves nothing is not heard: a thinned run leaves such readings out, and must give the same twin.
  const moves = isNewlyHeard && (metrics !== undefined || presence !== state.presence);
  const heard: Heard | null = moves ? { receivedAt, log, sequence, element, gateway } : state.heard;
  if (draft) {
    for (const rule of rules.absences) {
      if (moves) heardAgain(draft, rule, state.heard, heard!);
      else heardBetween(draft, rule, { receivedAt, log, sequence, element });
    }
  }
  const { alerts, memory } = draft ? settledDraft(draft, state) : state;
  const same =
    !metrics &&
    heard === state.heard &&
    presence === state.presence &&
    alerts === state.alerts &&
    memory === state.memory;
  if (same) return { state, effects: NO_EFFECTS };
  const next: TwinState = {
    site: state.site,
    device: state.device,
    version: state.version + 1,
    seenAt: Math.max(state.seenAt, receivedAt),
    heard,
    metrics: metrics ?? state.metrics,
    alerts,
    memory,
    presence,
  };
  return { state: next, effects: draft ? effectsOf(draft) : NO_EFFECTS };
}

function receiveClock(state: TwinState, gateway: string, clock: JudgedClock, rules: TwinRules): TwinOutcome {
  const draft = newDraft(state);
  const { completeUntil, hearingSince, standsIn } = clock;
  if (!standsIn) {
    for (const [metric, late] of state.memory.late) {
      if (late.gateway !== gateway || late.arrived >= completeUntil) continue;
      const newest = state.metrics.get(metric);
      const of = rules.byMetric.get(metric)?.values ?? [];
      reconcile(draft, metric, of, newest ? asNumber(newest) : null);
    }
  }
  if (state.heard?.gateway === gateway && !standsIn) {
    for (const [metric, { values }] of rules.byMetric) {
      if (draft.memory.late.has(metric)) continue;
      for (const rule of values) settle(draft, rule, completeUntil);
    }
  }
  if (hearingSince !== null && state.heard?.gateway === gateway) {
    // A step may clear what another has to open: rules are taken from the book, in its order.
    for (const [metric, { values, absences }] of rules.byMetric) {
      for (const rule of values) ripen(draft, rule, completeUntil, hearingSince);
      for (const rule of absences) {
        judgeAbsence(draft, rule, state.metrics.get(metric) ?? null, completeUntil, hearingSince);
      }
    }
    for (const rule of rules.absences) {
      judgeAbsence(draft, rule, state.heard, completeUntil, hearingSince);
    }
  }
  return outcomeOf(state, draft);
}

function receiveRules(state: TwinState, index: RuleIndex): TwinOutcome {
  const draft = newDraft(state);
  for (const [id, alert] of state.alerts) {
    const rule = index.byId(id);
    if (!rule || rule.kind !== alert.kind || rule.metric !== alert.metric)
      clear(draft, id, state.seenAt, null);
  }
  for (const part of ['pending', 'statistics', 'runs', 'recent', 'judged', 'gaps'] as const) {
    for (const id of state.memory[part].keys()) if (!index.byId(id)) forget(draft, part, id);
  }
  return outcomeOf(state, draft);
}

/** People know of it. A twin that has found another one since, without it, had lost it: that one goes on. */
function receiveTold(state: TwinState, incident: IncidentTransition): TwinOutcome {
  const { id, rule, kind, metric, severity, summary, threshold, openedAt, openedValue: value } = incident;
  const alert = state.alerts.get(rule);
  if (metric === null || kind === 'absence' || alert?.incident === id) return { state, effects: NO_EFFECTS };
  const since = [alert?.openedAt, ...(state.memory.recent.get(rule) ?? []).map(({ from }) => from)];
  const next = Math.min(...(since.filter(from => from !== undefined && from > openedAt) as number[]));
  if (Number.isFinite(next)) {
    const transition = { ...incident, clearedAt: next };
    return { state, effects: [{ type: 'incident', transition }] };
  }
  const known = state.metrics.get(metric);
  // One that has come further than its beginning knows what became of it.
  if (alert || (known && known.at >= openedAt)) return { state, effects: NO_EFFECTS };
  const open: OpenAlert = {
    incident: id,
    kind,
    metric,
    severity,
    summary,
    threshold,
    openedAt,
    value,
  };
  const alerts = new Map([...state.alerts, [rule, open]]);
  return { state: { ...state, version: state.version + 1, alerts }, effects: NO_EFFECTS };
}

function outcomeOf(state: TwinState, draft: Draft): TwinOutcome {
  const { alerts, memory } = settledDraft(draft, state);
  if (alerts === state.alerts && memory === state.memory) return { state, effects: NO_EFFECTS };
  return {
    state: { ...state, version: state.version + 1, alerts, memory },
    effects: effectsOf(draft),
  };
}

const effectsOf = ({ transitions }: Draft): readonly TwinEffect[] =>
  transitions.length === 0
    ? NO_EFFECTS
    : transitions.map(transition => ({ type: 'incident', transition }) as const);

/**
 * When the twin is to be looked at again, by the clock of each gateway that has a say: nothing of it changes earlier unless
 * it is heard. Empty for most.
 */
export function nextLooks(state: TwinState, rules: TwinRules): { gateway: string; dueMs: number }[] {
  const looks: { gateway: string; dueMs: number }[] = [];
  for (const late of state.memory.late.values()) {
    looks.push({ gateway: late.gateway, dueMs: late.arrived + 1 });
  }
  const { heard } = state;
  if (!heard || rules.isEmpty) return looks;
  let dueMs = Number.POSITIVE_INFINITY;
  for (const rule of rules.absences) {
    if (!state.alerts.has(rule.id)) dueMs = Math.min(dueMs, heard.receivedAt + rule.forMs);
  }
  for (const [metric, { values, absences }] of rules.byMetric) {
    for (const rule of values) {
      const since = state.memory.pending.get(rule.id);
      if (since) dueMs = Math.min(dueMs, since.receivedAt + rule.forMs);
      const last = state.memory.runs.get(rule.id)?.at(-1);
      if (last && !since && !state.alerts.has(rule.id)) dueMs = Math.min(dueMs, last.first.receivedAt + 1);
    }
    const newest = absences.length > 0 ? state.metrics.get(metric) : undefined;
    if (!newest) continue;
    for (const rule of absences) {
      if (!state.alerts.has(rule.id)) dueMs = Math.min(dueMs, newest.receivedAt + rule.forMs);
    }
  }
  for (const incidents of state.memory.recent.values()) {
    for (const { receivedAt } of incidents) dueMs = Math.min(dueMs, receivedAt + 1);
  }
  for (const gaps of state.memory.gaps.values()) {
    for (const gap of gaps) dueMs = Math.min(dueMs, gap.to + 1);
  }
  if (dueMs < Number.POSITIVE_INFINITY) looks.push({ gateway: heard.gateway, dueMs });
  return looks;
}

/** Whether nothing of it waits for a clock or a person, so that it may leave memory until it is heard again. */
export const mayRest = ({ alerts, memory }: TwinState): boolean =>
  alerts.size === 0 &&
  memory.pending.size + memory.late.size + memory.runs.size + memory.recent.size + memory.gaps.size === 0;

const asNumber = (metric: MetricState): Since | null =>
  typeof metric.value === 'number' ? (metric as Since) : null;

/** Arrival counts, and of what arrived at the same time the order of readings. */
function isHeardAfter(a: LastHeard, b: LastHeard): boolean {
  if (a.receivedAt !== b.receivedAt) return a.receivedAt > b.receivedAt;
  return isAfter({ ...a, at: 0 }, { ...b, at: 0 });
}

function presenceAfter(known: Presence | null, reading: Reading): Presence | null {
  if (reading.kind !== 'status' || (known && !isAfter(reading, known))) return known;
  const online = connectionIn(reading.metrics, reading.values);
  if (online === null) return known;
  const { at, log, sequence, element } = reading;
  return { online, at, log, sequence, element };
}

/** The join of two states of one twin: per metric the later reading; what the rules know, of the state that has seen more. */
function merge(state: TwinState, other: TwinState): TwinState {
  const metrics = new Map(state.metrics);
  for (const [name, theirs] of other.metrics) {
    const ours = metrics.get(name);
    if (!ours || isAfter(theirs, ours)) metrics.set(name, theirs);
  }
  const further = other.version > state.version ? other : state;
  return {
    site: state.site,
    device: state.device,
    version: Math.max(state.version, other.version),
    seenAt: Math.max(state.seenAt, other.seenAt),
    heard: laterHeard(state.heard, other.heard),
    metrics,
    alerts: further.alerts,
    memory: further.memory,
    presence: laterOf(state.presence, other.presence),
  };
}

const laterHeard = (a: Heard | null, b: Heard | null): Heard | null =>
  a && b ? (isHeardAfter(b, a) ? b : a) : (a ?? b);

const laterOf = (a: Presence | null, b: Presence | null): Presence | null =>
  a && b ? (isAfter(b, a) ? b : a) : (a ?? b);
