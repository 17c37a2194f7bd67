/**
 * A twin as JSON, in its two forms: as stored (Redis and the history checkpoint; everything needed to go on from)
 * and as people and dashboards see it.
 */
import type { Value } from '../protocol/batch.ts';
import type { OpenAlert } from './actors/rule.ts';
import type { MetricState, TwinState } from './actors/twin.ts';

/** `[value, at, index into logs, sequence, element]` */
type StoredMetric = [Value, number, number, number, number];

interface StoredTwin {
  epoch: number;
  version: number;
  seenAt: number;
  logs: string[];
  metrics: Record<string, StoredMetric>;
  alerts: Record<string, OpenAlert>;
}

export interface TwinView {
  site: string;
  device: string;
  epoch: number;
  version: number;
  seenAt: number;
  metrics: Record<string, { value: Value; at: number }>;
  alerts: Record<string, OpenAlert>;
}

export function storeTwin(twin: TwinState, epoch: number): string {
  const logs: string[] = [];
  const metrics: Record<string, StoredMetric> = Object.create(null);
  for (const [name, metric] of twin.metrics) {
    let log = logs.indexOf(metric.log);
    if (log < 0) log = logs.push(metric.log) - 1;
    metrics[name] = [metric.value, metric.at, log, metric.sequence, metric.element];
  }
  const stored: StoredTwin = {
    epoch,
    version: twin.version,
    seenAt: twin.seenAt,
    logs,
    metrics,
    alerts: asRecord(twin.alerts),
  };
  return JSON.stringify(stored);
}

export function restoreTwin(site: string, device: string, json: string): TwinState {
  const stored = JSON.parse(json) as StoredTwin;
  const metrics = new Map<string, MetricState>();
  for (const [name, [value, at, log, sequence, element]] of Object.entries(stored.metrics)) {
    metrics.set(name, { value, at, log: stored.logs[log]!, sequence, element });
  }
  return {
    site,
    device,
    version: stored.version,
    seenAt: stored.seenAt,
    metrics,
    alerts: new Map(Object.entries(stored.alerts)),
  };
}

export function viewStoredTwin(site: string, device: string, json: string): TwinView {
  const stored = JSON.parse(json) as StoredTwin;
  const metrics: TwinView['metrics'] = Object.create(null);
  for (const [name, [value, at]] of Object.entries(stored.metrics)) metrics[name] = { value, at };
  const { epoch, version, seenAt, alerts } = stored;
  return { site, device, epoch, version, seenAt, metrics, alerts };
}

/**
 * What changed between two states, as one entry of an `update` message: metrics that moved, and the alerts when
 * they are not the same any more.
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
  return JSON.stringify(fragment);
}

function asRecord<T>(map: ReadonlyMap<string, T>): Record<string, T> {
  const record: Record<string, T> = Object.create(null);
  for (const [key, value] of map) record[key] = value;
  return record;
}
