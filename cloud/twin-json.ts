/**
 * A twin as JSON, in its two forms: as stored (Redis and the history checkpoint; everything needed to go on from)
 * and as people and dashboards see it.
 */
import type { Value } from '../protocol/batch.ts';
import type { Presence } from './actors/presence.ts';
import type { OpenAlert } from './actors/rule.ts';
import type { MetricState, TwinState } from './actors/twin.ts';

/** Metrics that came in one element of one message: `[at, log, sequence, element, {name: value}]`. */
type StoredReading = [number, string, number, number, Record<string, Value>];

interface StoredTwin {
  epoch: number;
  version: number;
  seenAt: number;
  readings: StoredReading[];
  alerts: Record<string, OpenAlert>;
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
  for (const [name, { value, at, log, sequence, element }] of twin.metrics) {
    let reading = readings.findLast(
      r => r[2] === sequence && r[3] === element && r[1] === log && r[0] === at,
    );
    if (!reading) {
      reading = [at, log, sequence, element, Object.create(null)];
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
    ...(twin.presence && { presence: twin.presence }),
  };
  return JSON.stringify(stored);
}

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
  for (const [at, log, sequence, element, values] of stored.readings) {
    for (const [name, value] of Object.entries(values))
      metrics.set(name, { value, at, log, sequence, element });
  }
  return {
    site,
    device,
    version: stored.version,
    seenAt: stored.seenAt,
    metrics,
    alerts: new Map(Object.entries(stored.alerts)),
    presence: stored.presence ?? null,
  };
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
