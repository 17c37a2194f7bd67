/**
 * Sites, what their gateways say of themselves, and the ledger of each log, read from the server's JSON as `model.ts`
 * says: what has another shape is left out (H). Times are milliseconds since 1970.
 */
import { field, isFields, listOf, numberOf, textOf } from './model.ts';

export type DataBudget = {
  readonly bytesMax: number;
  readonly bytesUsed: number;
  readonly resetsAt: number | null;
};

export type Forecast = { readonly fullInSeconds: number | null; readonly drainedInSeconds: number | null };

/** `null` stands for what the gateway did not say. */
export type Gateway = {
  readonly gateway: string;
  /** When it was last heard, if that is too long ago: everything below is of that time. `null` while it is up. */
  readonly silentSince: number | null;
  readonly role: 'active' | 'standby' | null;
  readonly broker: { readonly connected: boolean; readonly reason: string } | null;
  readonly lastHelloAt: number | null;
  readonly unsettledMessages: number | null;
  readonly oldestUnsettledAt: number | null;
  readonly bufferBytes: number | null;
  readonly bufferBytesMax: number | null;
  readonly wireBytesLeft: number | null;
  readonly forecast: Forecast | null;
  readonly dataBudget: DataBudget | null;
  readonly thinnedMessages: number;
  readonly lostMessages: number;
  readonly dropped: number;
};
export type Site = { readonly site: string; readonly twins: number; readonly gateways: readonly Gateway[] };

const readBroker = (value: unknown): Gateway['broker'] =>
  isFields(value)
    ? { connected: field(value, 'connected') === true, reason: textOf(field(value, 'reason')) }
    : null;

function readDataBudget(value: unknown): DataBudget | null {
  if (!isFields(value)) return null;
  const bytesMax = numberOf(field(value, 'bytesMax'));
  const bytesUsed = numberOf(field(value, 'bytesUsed'));
  if (bytesMax === null || bytesUsed === null) return null;
  return { bytesMax, bytesUsed, resetsAt: numberOf(field(value, 'resetsAt')) };
}

const readForecast = (value: unknown): Forecast | null =>
  isFields(value)
    ? {
        fullInSeconds: numberOf(field(value, 'fullInSeconds')),
        drainedInSeconds: numberOf(field(value, 'drainedInSeconds')),
      }
    : null;

function readGateway(fields: { readonly [name: string]: unknown }): Gateway {
  const number = (name: string): number | null => numberOf(field(fields, name));
  const role = field(fields, 'role');
  return {
    gateway: textOf(field(fields, 'gateway')),
    silentSince:
      field(fields, 'link') === 'silent' ? (number('silentSinceMs') ?? number('lastHelloAt') ?? 0) : null,
    role: role === 'active' || role === 'standby' ? role : null,
    broker: readBroker(field(fields, 'broker')),
    lastHelloAt: number('lastHelloAt'),
    unsettledMessages: number('unsettledMessages'),
    oldestUnsettledAt: number('oldestUnsettledAt'),
    bufferBytes: number('bufferBytes'),
    bufferBytesMax: number('bufferBytesMax'),
    wireBytesLeft: number('wireBytesLeft'),
    forecast: readForecast(field(fields, 'forecast')),
    dataBudget: readDataBudget(field(fields, 'dataBudget')),
    thinnedMessages: number('thinnedMessages') ?? 0,
    lostMessages: number('lostMessages') ?? 0,
    dropped: number('dropped') ?? 0,
  };
}

export function readSites(body: unknown): Site[] {
  return listOf(isFields(body) ? field(body, 'sites') : null)
    .filter(isFields)
    .map(fields => ({
      site: textOf(field(fields, 'site')),
      twins: numberOf(field(fields, 'twins')) ?? 0,
      gateways: listOf(field(fields, 'gateways')).filter(isFields).map(readGateway),
    }))
    .filter(({ site }) => site !== '');
}

/**
 * Sites of which nobody is heard, with the time of the last word: their values are old, however new they look. One
 * gateway that is up is enough.
 */
export function silentSites(sites: readonly Site[]): Map<string, number> {
  const silent = new Map<string, number>();
  for (const { site, gateways } of sites) {
    const since = gateways.map(({ silentSince }) => silentSince).filter(at => at !== null);
    if (gateways.length > 0 && since.length === gateways.length) silent.set(site, Math.max(...since));
  }
  return silent;
}

/** What became of messages, in the order in which it is shown. */
export const FATES = ['live', 'late', 'thinned', 'quarantined', 'expired', 'missing', 'lost'] as const;
export type Fate = (typeof FATES)[number];
/** Messages by fate; never negative. */
export type Counts = ReadonlyMap<Fate, number>;

export type SequenceRange = {
  readonly first: number;
  /** Inclusive. */
  readonly last: number;
};
export type LogLedger = {
  readonly logId: string;
  /** When the gateway began it, by its own clock; `null` when the id does not say. */
  readonly startedAt: number | null;
  readonly lastSeenAt: number | null;
  readonly counts: Counts;
  readonly missing: { readonly ranges: readonly SequenceRange[]; readonly more: boolean };
};
export type GatewayLedger = {
  readonly gateway: string;
  /** Newest first. */
  readonly logs: readonly LogLedger[];
  readonly totals: Counts;
};
export type Completeness = { readonly gateways: readonly GatewayLedger[]; readonly truncated: boolean };

function readCounts(value: unknown): Counts {
  const fields = isFields(value) ? value : {};
  return new Map(FATES.map(fate => [fate, Math.max(0, numberOf(field(fields, fate)) ?? 0)]));
}

/** `[5,9),[12,13)…`, as PostgreSQL writes ranges; the `…` says that there are more. */
export function readRanges(text: string): LogLedger['missing'] {
  const ranges = [...text.matchAll(/\[(\d+),(\d+)\)/g)]
    .map(([, from, to]) => ({ first: Number(from), last: Number(to) - 1 }))
    .filter(({ first, last }) => first <= last);
  return { ranges, more: text.endsWith('…') };
}

const DAY_MS = 86_400_000;

/** Log ids begin with the milliseconds since 1970 in 12 hexadecimal digits; a time before 2000 was none. */
export function logStartedAt(logId: string, nowMs: number): number | null {
  if (!/^[0-9a-f]{32}$/.test(logId)) return null;
  const at = Number.parseInt(logId.slice(0, 12), 16);
  return at >= Date.UTC(2000) && at <= nowMs + DAY_MS ? at : null;
}

export function readCompleteness(body: unknown, nowMs: number): Completeness {
  const fields = isFields(body) ? body : {};
  const readLog = (log: { readonly [name: string]: unknown }): LogLedger => {
    const logId = textOf(field(log, 'logId'));
    return {
      logId,
      startedAt: logStartedAt(logId, nowMs),
      lastSeenAt: numberOf(field(log, 'lastSeenAt')),
      counts: readCounts(log),
      missing: readRanges(textOf(field(log, 'missingRanges'))),
    };
  };
  return {
    gateways: listOf(field(fields, 'gateways'))
      .filter(isFields)
      .map(gateway => ({
        gateway: textOf(field(gateway, 'gateway')),
        logs: listOf(field(gateway, 'logs')).filter(isFields).map(readLog),
        totals: readCounts(field(gateway, 'totals')),
      })),
    truncated: field(fields, 'truncated') === true,
  };
}
