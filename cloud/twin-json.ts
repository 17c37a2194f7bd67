/**
 * A twin as JSON, in its two forms: as stored (Redis and the history checkpoint; everything needed to go on from)
 * and as people and dashboards see it.
 */
import type { Value } from '../protocol/batch.ts';
import type { Presence } from './actors/presence.ts';
import { NO_ALERTS, NO_MEMORY, type OpenAlert, type RuleMemory } from './actors/rule-memory.ts';
import type { Heard, MetricState, TwinState } from './actors/twin.ts';

/** Metrics that came in one element of one message: `[at, log, sequence, element, {name: value}, receivedAt]`. */
type StoredReading = [number, string, number, number, Record<string, Value>, number];

interface StoredTwin {
  /** Stands first: {@link isSameStored} leaves it out. */
  epoch: number;
  version: number;
  seenAt: number;
  readings: StoredReading[];
  alerts: Record<string, OpenAlert>;
  /** `[receivedAt, log, sequence, element, gateway]` */
  heard?: [number, string, number, number, string];
  /** Left out while the rules have nothing to remember; its parts likewise. */
  memory?: { [Part in keyof RuleMemory]?: Record<string, unknown> };
  /** Left out while nothing is known. */
  presence?: Presence;
}

/** What the device's newest status message says of its connection, and when; null when none ever did. */
export type PresenceView = { readonly online: boolean; readonly at: number } | null;

export interface TwinView {
  site: string;
  device: string;
  epoch: number;
  version: number;
  seenAt: number;
  metrics: Record<string, { value: Value; at: number }>;
  alerts: Record<string, OpenAlert>;
  presence: PresenceView;
}

export function storeTwin(twin: TwinState, epoch: number): string {
  const readings: StoredReading[] = [];
  for (const [name, { value, at, log, sequence, element, receivedAt }] of twin.metrics) {
    let reading = readings.findLast(
      r => r[2] === sequence && r[3] === element && r[1] === log && r[0] === at,
    );
    if (!reading) {
      reading = [at, log, sequence, element, Object.create(null), receivedAt];
      readings.push(reading);
    }
    reading[4][name] = value;
  }
  const stored: StoredTwin = {
    epoch,
    version: twin.version,
    seenAt: twin.seenAt,
    readings,
    alerts: asRecord(twin.alerts),
    ...(twin.heard && { heard: storeHeard(twin.heard) }),
    ...(twin.memory !== NO_MEMORY && { memory: storeMemory(twin.memory) }),
    ...(twin.presence && { presence: twin.presence }),
  };
  return JSON.stringify(stored);
}

/** Whether two texts are of the same state, stored under whatever epoch. False says nothing. */
export const isSameStored = (one: string, other: string): boolean =>
  one.slice(one.indexOf(',')) === other.slice(other.indexOf(','));

/** @returns null when the text is no stored twin: it counts as not stored, and must not stop its site (H) */
export function restoreTwin(site: string, device: string, json: string): TwinState | null {
  try {
    return restored(site, device, JSON.parse(json) as StoredTwin);
  } catch {
    return null;
  }
}

function restored(site: string, device: string, stored: StoredTwin): TwinState {
  const metrics = new Map<string, MetricState>();
  for (const [at, log, sequence, element, values, receivedAt] of stored.readings) {
    for (const [name, value] of Object.entries(values))
      metrics.set(name, { value, at, log, sequence, element, receivedAt });
  }
  return {
    site,
    device,
    version: stored.version,
    seenAt: stored.seenAt,
    heard: stored.heard ? restoreHeard(stored.heard) : null,
    metrics,
    alerts: mapOf(stored.alerts, NO_ALERTS),
    memory: stored.memory ? restoreMemory(stored.memory) : NO_MEMORY,
    presence: stored.presence ?? null,
  };
}

const storeHeard = ({ receivedAt, log, sequence, element, gateway }: Heard): StoredTwin['heard'] & {} => [
  receivedAt,
  log,
  sequence,
  element,
  gateway,
];

function restoreHeard([receivedAt, log, sequence, element, gateway]: StoredTwin['heard'] & {}): Heard {
  return { receivedAt, log, sequence, element, gateway };
}

function storeMemory(memory: RuleMemory): StoredTwin['memory'] & {} {
  const parts = Object.entries(memory) as [keyof RuleMemory, ReadonlyMap<string, unknown>][];
  return Object.fromEntries(
    parts.filter(([, map]) => map.size > 0).map(([part, map]) => [part, asRecord(map)]),
  );
}

function restoreMemory(stored: StoredTwin['memory'] & {}): RuleMemory {
  const part = <Part extends keyof RuleMemory>(name: Part): RuleMemory[Part] =>
    mapOf(stored[name] ?? {}, NO_MEMORY[name] as ReadonlyMap<string, unknown>) as RuleMemory[Part];
  return {
    pending: part('pending'),
    statistics: part('statistics'),
    late: part('late'),
    runs: part('runs'),
    recent: part('recent'),
    judged: part('judged'),
    gaps: part('gaps'),
  };
}

/** @param empty shared by all that are */
function mapOf<T>(record: Record<string, T>, empty: ReadonlyMap<string, T>): ReadonlyMap<string, T> {
  const entries = Object.entries(record);
  return entries.length === 0 ? empty : new Map(entries);
}

export function viewStoredTwin(site: string, device: string, json: string): TwinView {
  const stored = JSON.parse(json) as StoredTwin;
  const metrics: TwinView['metrics'] = Object.create(null);
  for (const [at, , , , values] of stored.readings) {
    for (const [name, value] of Object.entries(values)) metrics[name] = { value, at };
  }
  const { epoch, version, seenAt, alerts } = stored;
  return { site, device, epoch, version, seenAt, metrics, alerts, presence: viewPresence(stored.presence) };
}

const viewPresence = (presence: Presence | null | undefined): PresenceView =>
  presence ? { online: presence.online, at: presence.at } : null;

/**
 * What changed between two states, as one entry of an `update` message: metrics that moved, and the alerts and the
 * presence when they are not the same any more.
 */
export function updateFragment(before: TwinState | null, after: TwinState, epoch: number): string {
  const metrics: TwinView['metrics'] = Object.create(null);
  for (const [name, metric] of after.metrics) {
    if (before?.metrics.get(name) !== metric) metrics[name] = { value: metric.value, at: metric.at };
  }
  const fragment: Record<string, unknown> = {
    device: after.device,
    epoch,
    since: before?.version ?? 0,
    version: after.version,
    seenAt: after.seenAt,
    metrics,
  };
  if (before?.alerts !== after.alerts && (before || after.alerts.size > 0)) {
    fragment.alerts = asRecord(after.alerts);
  }
  if (after.presence && before?.presence !== after.presence) {
    fragment.presence = viewPresence(after.presence);
  }
  return JSON.stringify(fragment);
}

function asRecord<T>(map: ReadonlyMap<string, T>): Record<string, T> {
  const record: Record<string, T> = Object.create(null);
  for (const [key, value] of map) record[key] = value;
  return record;
}
