/** Timestamps that devices give, into milliseconds since 1970. Pure. */
import { type Decoded, DecodedTime, Unusable } from './mapping/decoded.ts';

/** `auto` tells seconds, milliseconds and microseconds apart by their size. */
export const timeUnits = ['auto', 's', 'ms', 'us', 'ns', 'iso'] as const;
export type TimeUnit = (typeof timeUnits)[number];

/** The years a timestamp may lie in, as milliseconds: what PostgreSQL and JavaScript both hold, and no more than sense. */
const EARLIEST_MS = Date.UTC(1970, 0, 1);
const LATEST_MS = Date.UTC(9999, 0, 1);

const msPerUnit = { s: 1000, ms: 1, us: 1e-3, ns: 1e-6 };

/** @throws Unusable */
export function readTime(value: Decoded, unit: TimeUnit): number {
  const at = millisecondsOf(value, unit);
  if (at >= EARLIEST_MS && at < LATEST_MS) return at;
  throw new Unusable(
    `timestamp ${shorten(textOf(typeof value === 'bigint' ? Number(value) : value))} is not a time: ${expected[unit]}`,
  );
}

const expected: Record<TimeUnit, string> = {
  auto: 'seconds, milliseconds or microseconds since 1970, or ISO 8601',
  s: 'seconds since 1970',
  ms: 'milliseconds since 1970',
  us: 'microseconds since 1970',
  ns: 'nanoseconds since 1970',
  iso: 'ISO 8601',
};

function millisecondsOf(value: Decoded, unit: TimeUnit): number {
  if (value instanceof DecodedTime) return value.ms;
  if (typeof value === 'bigint') return millisecondsOf(Number(value), unit);
  if (unit === 'auto') {
    if (typeof value === 'number') return scaleTime(value);
    return typeof value === 'string' ? parseTime(value) : Number.NaN;
  }
  if (unit === 'iso') return typeof value === 'string' ? parseTime(value) : Number.NaN;
  if (typeof value === 'string' && /^\d+(\.\d+)?$/.test(value)) return Number(value) * msPerUnit[unit];
  return typeof value === 'number' ? value * msPerUnit[unit] : Number.NaN;
}

const textOf = (value: Decoded): string =>
  typeof value === 'object' && value !== null ? 'that is a list or object' : (JSON.stringify(value) ?? '');

/** `Date.parse` alone would take "12" for a December, and a time without a zone for one of this machine's zone. */
const ISO_8601 = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?$/i;
function parseTime(text: string): number {
  const [, time, , , zone] = ISO_8601.exec(text) ?? [];
  if (!ISO_8601.test(text)) return Number.NaN;
  return Date.parse(time && !zone ? `${text}Z` : text);
}

/** Whether a time that {@link readTime} takes says how far from UTC it is. */
export const hasZone = (text: string): boolean => ISO_8601.exec(text)?.[4] !== undefined;

/** Seconds until the year 5138, else milliseconds until the same, else microseconds. */
function scaleTime(value: number): number {
  if (value < 1e11) return value * 1000;
  return value < 1e14 ? value : value / 1000;
}

const TIMESTAMP_FIRST = /^\s*\{\s*"(?:ts|timestamp)"\s*:\s*["\d]/;
const TIMESTAMP_NAMES = ['ts', 'timestamp'] as const;

/**
 * Whether every element of a JSON payload in the common form carries the device's own time. The usual form, with the time
 * first, needs no parsing.
 */
export function hasOwnTimestamp(payload: Uint8Array): boolean {
  const buffer = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength);
  if (!buffer.includes('"ts"') && !buffer.includes('"timestamp"')) return false;
  const text = buffer.toString('latin1');
  if (TIMESTAMP_FIRST.test(text)) return true;
  try {
    const json: unknown = JSON.parse(text);
    const elements = Array.isArray(json) ? json : [json];
    return elements.length > 0 && elements.every(isStamped);
  } catch {
    return false;
  }
}

function isStamped(element: unknown): boolean {
  if (typeof element !== 'object' || element === null) return false;
  const members = element as Record<string, unknown>;
  return TIMESTAMP_NAMES.some(name => Object.hasOwn(members, name) && members[name] !== null);
}

const shorten = (text: string) => (text.length > 60 ? `${text.slice(0, 60)}…` : text);
