/**
 * What the page knows, and how the server's JSON becomes it. Names of metrics, rules and devices are data that
 * somebody else chose (`__proto__` and `constructor` among them), so they live in Maps, never as keys of plain objects.
 *
 * Everything read here is checked: a part that does not have the agreed shape is left out and the rest goes on
 * (invariant H). All times are milliseconds since 1970.
 */

export type MetricValue = number | string | boolean | null;
export type Reading = { readonly value: MetricValue; readonly at: number };
export type OpenAlert = {
  readonly rule: string;
  readonly metric: string;
  readonly severity: string;
  readonly openedAt: number;
  readonly value: MetricValue;
  readonly threshold: MetricValue;
};

/** What the newest status message or last will says of the connection, and when. */
export type Presence = { readonly online: boolean; readonly at: number };

/** Immutable: a change makes a new object, so identity tells whether anything changed. */
export type Twin = {
  /** `site/device` */
  readonly key: string;
  readonly site: string;
  readonly device: string;
  readonly epoch: number;
  readonly version: number;
  readonly seenAt: number;
  readonly metrics: ReadonlyMap<string, Reading>;
  readonly alerts: ReadonlyMap<string, OpenAlert>;
  /** `null` when the device never said whether it is connected. */
  readonly presence: Presence | null;
  /** Time of the newest value; `null` when the twin has none yet. */
  readonly newestAt: number | null;
};

export type TwinUpdate = {
  readonly key: string;
  readonly site: string;
  readonly device: string;
  readonly epoch: number;
  /** The version this update builds on; 0: it is the whole twin. */
  readonly since: number;
  readonly version: number;
  readonly seenAt: number;
  readonly metrics: ReadonlyMap<string, Reading>;
  /** The full map of open alerts, `null` when it did not change. */
  readonly alerts: ReadonlyMap<string, OpenAlert> | null;
  /** `null` when it did not change. */
  readonly presence: Presence | null;
};

export type PushFrame =
  | { type: 'snapshot'; scope: string; part: number; parts: number; twins: Twin[] }
  | { type: 'update'; twins: TwinUpdate[] }
  /** Incidents opened or cleared; which ones is read again over HTTP. */
  | { type: 'incidents' }
  | { type: 'error'; code: string; detail: string }
  | { type: 'other' };

type Fields = { readonly [name: string]: unknown };

export const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
/** Reads an own field only: `fields.constructor` must not find the one of Object.prototype. */
export const field = (fields: Fields, name: string): unknown =>
  Object.hasOwn(fields, name) ? fields[name] : undefined;
export const numberOf = (value: unknown): number | null =>
  typeof value === 'number' && Number.isFinite(value) ? value : null;
export const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');

export function metricValueOf(value: unknown): MetricValue {
  if (typeof value === 'number' || typeof value === 'string' || typeof value === 'boolean') return value;
  return value === undefined || value === null ? null : JSON.stringify(value);
}

export const twinKey = (site: string, device: string): string => `${site}/${device}`;

function readMetrics(value: unknown): Map<string, Reading> {
  const metrics = new Map<string, Reading>();
  if (!isFields(value)) return metrics;
  for (const [name, reading] of Object.entries(value)) {
    if (!isFields(reading)) continue;
    const at = numberOf(field(reading, 'at'));
    if (at !== null) metrics.set(name, { value: metricValueOf(field(reading, 'value')), at });
  }
  return metrics;
}

function readAlerts(value: unknown): Map<string, OpenAlert> {
  const alerts = new Map<string, OpenAlert>();
  if (!isFields(value)) return alerts;
  for (const [rule, alert] of Object.entries(value)) {
    if (!isFields(alert)) continue;
    alerts.set(rule, {
      rule,
      metric: textOf(field(alert, 'metric')),
      severity: textOf(field(alert, 'severity')) || 'warning',
      openedAt: numberOf(field(alert, 'openedAt')) ?? 0,
      value: metricValueOf(field(alert, 'value')),
      threshold: metricValueOf(field(alert, 'threshold')),
    });
  }
  return alerts;
}

function readPresence(value: unknown): Presence | null {
  const at = isFields(value) ? numberOf(field(value, 'at')) : null;
  const online = isFields(value) ? field(value, 'online') : null;
  return at !== null && typeof online === 'boolean' ? { online, at } : null;
}

export function newestOf(metrics: ReadonlyMap<string, Reading>): number | null {
  let newest: number | null = null;
  for (const { at } of metrics.values()) if (newest === null || at > newest) newest = at;
  return newest;
}

/** `null` when `value` is not a twin. */
export function readTwin(value: unknown): Twin | null {
  if (!isFields(value)) return null;
  const site = textOf(field(value, 'site'));
  const device = textOf(field(value, 'device'));
  const version = numberOf(field(value, 'version'));
  if (site === '' || device === '' || version === null) return null;
  const metrics = readMetrics(field(value, 'metrics'));
  return {
    key: twinKey(site, device),
    site,
    device,
    epoch: numberOf(field(value, 'epoch')) ?? 0,
    version,
    seenAt: numberOf(field(value, 'seenAt')) ?? 0,
    metrics,
    alerts: readAlerts(field(value, 'alerts')),
    presence: readPresence(field(value, 'presence')),
    newestAt: newestOf(metrics),
  };
}

function readUpdate(site: string, value: unknown): TwinUpdate | null {
  if (!isFields(value)) return null;
  const device = textOf(field(value, 'device'));
  const version = numberOf(field(value, 'version'));
  const since = numberOf(field(value, 'since'));
  if (device === '' || version === null || since === null) return null;
  return {
    key: twinKey(site, device),
    site,
    device,
    epoch: numberOf(field(value, 'epoch')) ?? 0,
    since,
    version,
    seenAt: numberOf(field(value, 'seenAt')) ?? 0,
    metrics: readMetrics(field(value, 'metrics')),
    alerts: Object.hasOwn(value, 'alerts') ? readAlerts(field(value, 'alerts')) : null,
    presence: readPresence(field(value, 'presence')),
  };
}

export const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
const present = <T>(value: T | null): value is T => value !== null;

/** One text frame of the push link; `null` when it is not JSON or not an object. */
export function readFrame(text: string): PushFrame | null {
  let frame: unknown;
  try {
    frame = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isFields(frame)) return null;
  const twins = listOf(field(frame, 'twins'));
  switch (field(frame, 'type')) {
    case 'snapshot':
      return {
        type: 'snapshot',
        scope: textOf(field(frame, 'scope')),
        part: numberOf(field(frame, 'part')) ?? 1,
        parts: numberOf(field(frame, 'parts')) ?? 1,
        twins: twins.map(readTwin).filter(present),
      };
    case 'update': {
      const site = textOf(field(frame, 'site'));
      return { type: 'update', twins: twins.map(twin => readUpdate(site, twin)).filter(present) };
    }
    case 'incidents':
      return { type: 'incidents' };
    case 'error':
      return { type: 'error', code: textOf(field(frame, 'code')), detail: textOf(field(frame, 'detail')) };
    default:
      return { type: 'other' };
  }
}

export type Incident = OpenAlert & {
  readonly id: string;
  readonly site: string;
  /** Empty when it concerns the whole site. */
  readonly device: string;
  /** One line for people. */
  readonly summary: string;
  readonly acknowledgedAt: number | null;
  readonly acknowledgedBy: string;
  /** `null` while the incident is open. */
  readonly clearedAt: number | null;
  readonly clearedValue: MetricValue;
  /** Known only afterwards, from a backlog. */
  readonly late: boolean;
  /** The site was under maintenance when it opened. */
  readonly maintenance: boolean;
};

/** Open ones first, then newest first. */
export function readIncidents(body: unknown): Incident[] {
  const incidents = listOf(isFields(body) ? field(body, 'incidents') : null)
    .filter(isFields)
    .map(
      (fields): Incident => ({
        id: String(field(fields, 'id') ?? ''),
        rule: textOf(field(fields, 'rule')),
        severity: textOf(field(fields, 'severity')) || 'warning',
        site: textOf(field(fields, 'site')),
        device: textOf(field(fields, 'device')),
        metric: textOf(field(fields, 'metric')),
        openedAt: numberOf(field(fields, 'openedAt')) ?? 0,
        value: metricValueOf(field(fields, 'openedValue')),
        threshold: metricValueOf(field(fields, 'threshold')),
        summary: textOf(field(fields, 'summary')),
        acknowledgedAt: numberOf(field(fields, 'acknowledgedAt')),
        acknowledgedBy: textOf(field(fields, 'acknowledgedBy')),
        late: field(fields, 'late') === true,
        maintenance: field(fields, 'maintenance') === true,
        clearedAt: numberOf(field(fields, 'clearedAt')),
        clearedValue: metricValueOf(field(fields, 'clearedValue')),
      }),
    );
  return incidents.sort(
    (a, b) => Number(b.clearedAt === null) - Number(a.clearedAt === null) || b.openedAt - a.openedAt,
  );
}

export type Quarantined = {
  readonly site: string;
  readonly gateway: string;
  readonly sequence: number | null;
  readonly receivedAt: number | null;
  readonly reason: string;
  readonly topic: string;
  readonly payloadBytes: number | null;
  readonly payload: string;
};

export function readQuarantine(body: unknown): { rows: Quarantined[]; total: number } {
  const rows = listOf(isFields(body) ? field(body, 'quarantined') : null)
    .filter(isFields)
    .map(fields => ({
      site: textOf(field(fields, 'site')),
      gateway: textOf(field(fields, 'gateway')),
      sequence: numberOf(field(fields, 'sequence')),
      receivedAt: numberOf(field(fields, 'receivedAt')),
      reason: textOf(field(fields, 'reason')),
      topic: textOf(field(fields, 'topic')),
      payloadBytes: numberOf(field(fields, 'payloadBytes')),
      payload: textOf(field(fields, 'payload')),
    }));
  return { rows, total: (isFields(body) && numberOf(field(body, 'total'))) || rows.length };
}
