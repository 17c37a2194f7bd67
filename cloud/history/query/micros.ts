/** Times of the long memory, pure: whole microseconds since 2000, as PostgreSQL counts. */

export const HOUR_US = 3_600_000_000;
export const DAY_US = 24 * HOUR_US;

const EPOCH_MS = Date.UTC(2000, 0, 1);
/** No reading is later, and up to here all sums of microseconds are exact. */
const LATEST_MS = Date.UTC(2200, 0, 1);
const EARLIEST_MS = Date.UTC(1800, 0, 1);

/** Microseconds since 2000; the end is not included. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

/** @param fromMs, toMs milliseconds since 1970, both ends included */
export const rangeOf = (fromMs: number, toMs: number): Range => ({
  from: Math.ceil(microsOf(clamped(fromMs))),
  to: Math.floor(microsOf(clamped(toMs))) + 1,
});

const clamped = (ms: number): number => Math.min(Math.max(ms, EARLIEST_MS), LATEST_MS);

export const microsOf = (ms: number): number => (ms - EPOCH_MS) * 1000;

export const millisOf = (us: number): number => EPOCH_MS + us / 1000;

/** As PostgreSQL reads it, to the microsecond. */
export function timestampOf(us: number): string {
  const seconds = Math.floor(us / 1e6);
  const rest = String(us - seconds * 1e6).padStart(6, '0');
  return `${new Date(EPOCH_MS + seconds * 1000).toISOString().slice(0, 19)}.${rest}Z`;
}

/** `YYYYMMDD`, by UTC, as tables are named. */
export const dayOf = (us: number): string =>
  new Date(millisOf(us)).toISOString().slice(0, 10).replaceAll('-', '');
