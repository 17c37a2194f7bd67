/** How times, ages and figures are written. Pure; the reader's zone comes from the runtime. */
import type { MetricValue } from './model.ts';

/** A value older than this is stale, and looks it. */
export const STALE_AFTER_MS = 60_000;
/** Clocks differ a little; a value this far ahead still counts as new. */
const AHEAD_TOLERANCE_MS = 5_000;

export type Freshness = 'fresh' | 'recent' | 'stale' | 'ahead' | 'none';

/**
 * A value from the future is not fresh: its clock is wrong, and it says so. Nor is one behind a gateway that nobody has
 * heard since `silentSince`: it only has not been replaced.
 */
export function freshness(at: number | null, nowMs: number, silentSince: number | null = null): Freshness {
  if (at === null) return 'none';
  const age = nowMs - at;
  if (age < -AHEAD_TOLERANCE_MS) return 'ahead';
  if (age >= STALE_AFTER_MS || silentSince !== null) return 'stale';
  return age < 10_000 ? 'fresh' : 'recent';
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** `850 ms`, `3 s`, `2 min`, `1 h 5 min`, `3 d 4 h`: rounded down, so that a duration never claims more than passed. */
export function formatDuration(durationMs: number): string {
  const ms = Math.max(0, durationMs);
  if (ms < SECOND) return `${Math.floor(ms)} ms`;
  if (ms < MINUTE) return `${Math.floor(ms / SECOND)} s`;
  if (ms < HOUR) return `${Math.floor(ms / MINUTE)} min`;
  const [large, small, largeUnit, smallUnit] = ms < DAY ? [HOUR, MINUTE, 'h', 'min'] : [DAY, HOUR, 'd', 'h'];
  const rest = Math.floor((ms % large) / small);
  const head = `${Math.floor(ms / large)} ${largeUnit}`;
  return rest === 0 || ms >= 10 * DAY ? head : `${head} ${rest} ${smallUnit}`;
}

/** `now`, `3 s ago`, `2 min ahead`, `never`. */
export function formatAge(at: number | null, nowMs: number): string {
  if (at === null) return 'never';
  const age = nowMs - at;
  if (age < -AHEAD_TOLERANCE_MS) return `${formatDuration(-age)} ahead`;
  return age < SECOND ? 'now' : `${formatDuration(age)} ago`;
}

/** Up to six significant digits, no trailing zeros, no grouping: a value is data, not prose. */
export function formatNumber(value: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e9 || size < 1e-4)) return value.toExponential(3).replace('e+', 'e');
  return String(Number(value.toPrecision(6)));
}

export function formatValue(value: MetricValue): string {
  if (value === null) return '–';
  if (typeof value === 'number') return formatNumber(value);
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  return value;
}

const counts = new Intl.NumberFormat('en');
export const formatCount = (count: number): string => counts.format(count);

export function formatBytes(bytes: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let size = bytes;
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

const two = (value: number): string => String(value).padStart(2, '0');

/** `14:03:22` today, `2025-11-21 14:03:22` on another day, in the reader's zone. */
export function formatTime(at: number, nowMs: number): string {
  const date = new Date(at);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return new Date(nowMs).toDateString() === date.toDateString() ? time : `${day} ${time}`;
}

/** One line of at most `charsMax` characters; control characters become dots, so that a payload cannot draw. */
export function excerpt(text: string, charsMax: number): string {
  const line = [...text.slice(0, charsMax * 2)]
    .map(char => (char < ' ' || char === '\u007f' ? '·' : char))
    .join('');
  return line.length > charsMax ? `${line.slice(0, charsMax)}…` : line;
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** The label of one tick of a time axis: as fine as the distance of its ticks asks for, the day at midnight. */
export function formatTick(at: number, incrementSeconds: number): string {
  const date = new Date(at);
  const midnight = date.getHours() === 0 && date.getMinutes() === 0 && date.getSeconds() === 0;
  if (incrementSeconds >= 86_400 || (midnight && incrementSeconds >= 60)) {
    return `${date.getDate()} ${MONTHS[date.getMonth()]}`;
  }
  const minutes = `${two(date.getHours())}:${two(date.getMinutes())}`;
  return incrementSeconds >= 60 ? minutes : `${minutes}:${two(date.getSeconds())}`;
}
