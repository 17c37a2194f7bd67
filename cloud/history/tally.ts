/**
 * What a transaction settles in other ways than live and whole, counted in messages: per log, and per minute of arrival
 * where that is known. Pure. Each message counts once, by the worst that happened to it: quarantined, lost, thinned,
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

export const NO_COUNTS: StatusCounts = { late: 0, thinned: 0, lost: 0, quarantined: 0, expired: 0 };

export const MINUTE_MS = 60_000;
/** One run is spread over a week at most; what claims to be longer counts within its last week (F). */
export const MINUTES_PER_RUN_MAX = 7 * 24 * 60;

export interface Tally {
  /** @param arrivedAt milliseconds since 1970, or null when nobody knows */
  add(log: number, status: Status, messages: number, arrivedAt: number | null): void;
  /** Spreads the messages evenly over the minutes of a run; a minute that gets none is in it all the same. */
  addRun(log: number, status: Status, messages: number, arrivedFrom: number, arrivedTo: number): void;
  counts(log: number): StatusCounts;
  minutes(): MinuteCount[];
}

/** @param latestMs no arrival lies after it, nor before 1970: a clock that says so is not believed */
export function newTally(nowMs: number, latestMs: number): Tally {
  const byLog = new Map<number, Record<Status, number>>();
  const byMinute = new Map<string, { log: number; minute: number; status: Status; messages: number }>();
  const minuteOf = (at: number) => Math.floor((at >= 0 && at <= latestMs ? at : nowMs) / MINUTE_MS);

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
      if (arrivedAt !== null) countMinute(log, status, minuteOf(arrivedAt), messages);
    },
    addRun(log, status, messages, arrivedFrom, arrivedTo) {
      if (messages === 0) return;
      count(log, status, messages);
      const last = minuteOf(arrivedTo);
      const first = Math.max(Math.min(minuteOf(arrivedFrom), last), last - MINUTES_PER_RUN_MAX + 1);
      const length = last - first + 1;
      const before = (index: number) => Math.floor((messages * index) / length);
      for (let index = 0; index < length; index++) {
        countMinute(log, status, first + index, before(index + 1) - before(index));
      }
    },
    counts: log => byLog.get(log) ?? NO_COUNTS,
    minutes: () => [...byMinute.values()],
  };
}
