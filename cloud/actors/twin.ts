/**
 * The twin of one device: the newest value of each metric, the alerts that are open, and whether its last status
 * message had it online, as a pure state machine.
 *
 *   receive(state, message) → { state, effects }
 *
 * States are values, never changed in place: whoever holds one may write it later (history checkpoints an older
 * one than live shows). Invariants: C (a metric only moves forward in the order of `order.ts`; folding a message
 * again changes nothing), H (nothing a device sends can make this throw).
 */
import type { Kind, Value } from '../../protocol/batch.ts';
import { isAfter, type ReadingOrder } from './order.ts';
import { connectionIn, type Presence } from './presence.ts';
import { appliesTo, incidentId, judge, type OpenAlert, type ThresholdRule } from './rule.ts';

export interface MetricState extends ReadingOrder {
  readonly value: Value;
}

export interface TwinState {
  readonly site: string;
  readonly device: string;
  /** Grows by one with every visible change. */
  readonly version: number;
  /** When the gateway last heard the device, milliseconds since 1970. */
  readonly seenAt: number;
  readonly metrics: ReadonlyMap<string, MetricState>;
  /** By rule id. */
  readonly alerts: ReadonlyMap<string, OpenAlert>;
  /** Null until a status message said something of the connection. */
  readonly presence: Presence | null;
}

/** One element of a message. `at` is corrected, so it is never far ahead of `receivedAt`. */
export interface Reading {
  readonly at: number;
  readonly receivedAt: number;
  readonly log: string;
  readonly sequence: number;
  readonly element: number;
  readonly kind: Kind;
  readonly metrics: readonly string[];
  readonly values: readonly Value[];
}

export type TwinMessage =
  | { readonly type: 'reading'; readonly reading: Reading; readonly rules: readonly ThresholdRule[] }
  /** State of the same twin from elsewhere (Redis on activation): the later value of each metric stays. */
  | { readonly type: 'merge'; readonly other: TwinState };

/** An incident as history keeps it; `clearedAt` is null while it is open. */
export interface IncidentTransition {
  readonly id: string;
  readonly rule: string;
  readonly severity: ThresholdRule['severity'];
  readonly site: string;
  readonly device: string;
  readonly metric: string;
  readonly threshold: number;
  readonly openedAt: number;
  readonly openedValue: number;
  readonly clearedAt: number | null;
  readonly clearedValue: number | null;
}

export type TwinEffect = { readonly type: 'incident'; readonly transition: IncidentTransition };

export interface TwinOutcome {
  readonly state: TwinState;
  readonly effects: readonly TwinEffect[];
}

/** Readings older than this when they arrive are a backlog: they never open an alert. */
export const LATE_AFTER_MS = 5 * 60_000;
/** Metrics a twin remembers; further names are in history only, and the twin says so by its count. */
export const METRICS_MAX = 1024;

const NO_EFFECTS: readonly TwinEffect[] = [];

export const newTwin = (site: string, device: string): TwinState => ({
  site,
  device,
  version: 0,
  seenAt: 0,
  metrics: new Map(),
  alerts: new Map(),
  presence: null,
});

export function receive(state: TwinState, message: TwinMessage): TwinOutcome {
  switch (message.type) {
    case 'reading':
      return receiveReading(state, message.reading, message.rules);
    case 'merge':
      return { state: merge(state, message.other), effects: NO_EFFECTS };
  }
}

function receiveReading(state: TwinState, reading: Reading, rules: readonly ThresholdRule[]): TwinOutcome {
  let metrics: Map<string, MetricState> | undefined;
  let alerts: Map<string, OpenAlert> | undefined;
  let effects: TwinEffect[] | undefined;
  const onTime = reading.receivedAt - reading.at <= LATE_AFTER_MS;

  for (let i = 0; i < reading.metrics.length; i++) {
    const metric = reading.metrics[i]!;
    const known = state.metrics.get(metric);
    if (known === undefined ? (metrics ?? state.metrics).size >= METRICS_MAX : !isAfter(reading, known)) {
      continue;
    }
    const value = reading.values[i]!;
    metrics ??= new Map(state.metrics);
    metrics.set(metric, {
      value,
      at: reading.at,
      log: reading.log,
      sequence: reading.sequence,
      element: reading.element,
    });
    if (!onTime || typeof value !== 'number') continue;

    for (const rule of rules) {
      if (rule.metric !== metric || !appliesTo(rule, state.site, state.device)) continue;
      const open = (alerts ?? state.alerts).get(rule.id);
      const verdict = judge(rule, open !== undefined, value);
      if (verdict === 'unchanged') continue;
      alerts ??= new Map(state.alerts);
      effects ??= [];
      if (verdict === 'open') {
        const opened = openAlert(rule, state, reading, value);
        alerts.set(rule.id, opened);
        effects.push({ type: 'incident', transition: transitionOf(rule.id, state, opened, null, null) });
      } else if (open) {
        alerts.delete(rule.id);
        effects.push({ type: 'incident', transition: transitionOf(rule.id, state, open, reading.at, value) });
      }
    }
  }

  const presence = presenceAfter(state.presence, reading);
  if (!metrics && presence === state.presence) return { state, effects: NO_EFFECTS };
  return {
    state: {
      site: state.site,
      device: state.device,
      version: state.version + 1,
      seenAt: Math.max(state.seenAt, reading.receivedAt),
      metrics: metrics ?? state.metrics,
      alerts: alerts ?? state.alerts,
      presence,
    },
    effects: effects ?? NO_EFFECTS,
  };
}

function presenceAfter(known: Presence | null, reading: Reading): Presence | null {
  if (reading.kind !== 'status' || (known && !isAfter(reading, known))) return known;
  const online = connectionIn(reading.metrics, reading.values);
  if (online === null) return known;
  const { at, log, sequence, element } = reading;
  return { online, at, log, sequence, element };
}

/** The join of two states of one twin: per metric the later reading; alerts of the state that has seen more. */
function merge(state: TwinState, other: TwinState): TwinState {
  const metrics = new Map(state.metrics);
  for (const [name, theirs] of other.metrics) {
    const ours = metrics.get(name);
    if (!ours || isAfter(theirs, ours)) metrics.set(name, theirs);
  }
  return {
    site: state.site,
    device: state.device,
    version: Math.max(state.version, other.version),
    seenAt: Math.max(state.seenAt, other.seenAt),
    metrics,
    alerts: other.version > state.version ? other.alerts : state.alerts,
    presence: laterOf(state.presence, other.presence),
  };
}

const laterOf = (a: Presence | null, b: Presence | null): Presence | null =>
  a && b ? (isAfter(b, a) ? b : a) : (a ?? b);

const openAlert = (rule: ThresholdRule, state: TwinState, reading: Reading, value: number): OpenAlert => ({
  incident: incidentId(rule.id, `${state.site}/${state.device}`, reading),
  metric: rule.metric,
  severity: rule.severity,
  threshold: rule.threshold,
  openedAt: reading.at,
  value,
});

const transitionOf = (
  rule: string,
  state: TwinState,
  alert: OpenAlert,
  clearedAt: number | null,
  clearedValue: number | null,
): IncidentTransition => ({
  id: alert.incident,
  rule,
  severity: alert.severity,
  site: state.site,
  device: state.device,
  metric: alert.metric,
  threshold: alert.threshold,
  openedAt: alert.openedAt,
  openedValue: alert.value,
  clearedAt,
  clearedValue,
});
