/**
 * What a transaction settles in other ways than live and whole, counted in messages: per log, and per minute of arrival
 * where that is known; a thinned run is one entry, however long it is (F). Pure. Each message counts once, by the worst that happened to it: quarantined, lost, thinned,
 * expired, late (settled through the backfill lane).
 */
export type Status = 'late' | 'thinned' | 'lost' | 'quarantined' | 'expired';
export type StatusCounts = Readonly<Record<Status, number>>;

export interface MinuteCount {
  readonly log: number;
  /** Minutes since 1970. */
  readonly minute: number;
  readonly status: Status;
  readonly messages: number;
}

/** Messages of a run, spread evenly over its minutes; PostgreSQL writes it out, one row per minute. */
export interface RunCount {
  readonly log: number;
  readonly status: Status;
  readonly messages: number;
  /** First minute since 1970, and how many follow one another from there. */
  readonly minute: number;
  readonly minutes: number;
}

export const NO_COUNTS: StatusCounts = { late: 0, thinned: 0, lost: 0, quarantined: 0, expired: 0 };

export const MINUTE_MS = 60_000;
/** One run is spread over a week at most; what claims to be longer counts within its last week (F). */
export const MINUTES_PER_RUN_MAX = 7 * 24 * 60;

export interface Tally {
  /** @param arrivedAt milliseconds since 1970, or null when nobody knows */
  add(log: number, status: Status, messages: number, arrivedAt: number | null): void;
  /** Of a run only its times are known: its messages lie evenly in all its minutes. */
  addRun(log: number, status: Status, messages: number, arrivedFrom: number, arrivedTo: number): void;
  counts(log: number): StatusCounts;
  minutes(): MinuteCount[];
  runs(): readonly RunCount[];
}

/**
 * The minute of an arrival, since 1970.
 * @param latestMs no arrival lies after it, nor before 1970: a clock that says so is not believed
 */
const minuteOf = (at: number, nowMs: number, latestMs: number): number =>
  Math.floor((at >= 0 && at <= latestMs ? at : nowMs) / MINUTE_MS);

/** The minutes of a run, of which there may be {@link MINUTES_PER_RUN_MAX}; parameters as of {@link minuteOf}. */
export function minutesOfRun(
  { arrivedFrom, arrivedTo }: { readonly arrivedFrom: number; readonly arrivedTo: number },
  nowMs: number,
  latestMs: number,
): { minute: number; minutes: number } {
  const last = minuteOf(arrivedTo, nowMs, latestMs);
  const first = Math.min(minuteOf(arrivedFrom, nowMs, latestMs), last);
  const minutes = Math.min(last - first + 1, MINUTES_PER_RUN_MAX);
  return { minute: last - minutes + 1, minutes };
}

/** @param latestMs no arrival lies after it */
export function newTally(nowMs: number, latestMs: number): Tally {
  const byLog = new Map<number, Record<Status, number>>();
  const byMinute = new Map<string, { log: number; minute: number; status: Status; messages: number }>();
  const runs: RunCount[] = [];

  function count(log: number, status: Status, messages: number): void {
    const counts = byLog.get(log) ?? { ...NO_COUNTS };
    counts[status] += messages;
    byLog.set(log, counts);
  }
  function countMinute(log: number, status: Status, minute: number, messages: number): void {
    const key = `${log} ${minute} ${status}`;
    const known = byMinute.get(key);
    if (known) known.messages += messages;
    else byMinute.set(key, { log, minute, status, messages });
  }

  return {
    add(log, status, messages, arrivedAt) {
      if (messages === 0) return;
      count(log, status, messages);
      if (arrivedAt !== null) countMinute(log, status, minuteOf(arrivedAt, nowMs, latestMs), messages);
    },
    addRun(log, status, messages, arrivedFrom, arrivedTo) {
      if (messages === 0) return;
      count(log, status, messages);
      runs.push({ log, status, messages, ...minutesOfRun({ arrivedFrom, arrivedTo }, nowMs, latestMs) });
    },
    counts: log => byLog.get(log) ?? NO_COUNTS,
    minutes: () => [...byMinute.values()],
    runs: () => runs,
  };
}
