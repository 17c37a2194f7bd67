/**
 * What the link to the cloud may be used for, as a person writes it: a data budget, hours for the backlog, a rate. Pure.
 */
const KB = 1000;

/** What the link's contract gives, in a day or a calendar month by the box's local time. */
export interface Budget {
  readonly bytesMax: number;
  readonly per: 'day' | 'month';
}

/** Minutes since local midnight; `to` before `from` goes over midnight. */
export interface Hours {
  readonly from: number;
  readonly to: number;
}

export interface LinkTerms {
  /** Null: not metered. */
  readonly budget: Budget | null;
  /** When the backlog may be sent; empty: always. */
  readonly backfillHours: readonly Hours[];
  /** Null: as fast as it goes. */
  readonly bytesPerSecond: number | null;
  /** The longest that telemetry is gathered to spare a budget, milliseconds. */
  readonly gatherMsMax: number;
}

export const UNMETERED: LinkTerms = {
  budget: null,
  backfillHours: [],
  bytesPerSecond: null,
  gatherMsMax: 300_000,
};

export const BUDGET_RULE = 'such as 50MB/day or 1GB/month (kB, MB, GB; at least 100kB)';
export const HOURS_RULE = 'such as 22:00-06:00, several with commas';

const BUDGET = /^(\d+(?:\.\d+)?)\s*(kB|MB|GB)\s*\/\s*(day|month)$/i;
const UNITS: Readonly<Record<string, number>> = { kb: KB, mb: KB ** 2, gb: KB ** 3 };
/** Below it not even the hellos of a day fit. */
const BUDGET_BYTES_MIN = 100 * KB;

/** @returns null when it is none */
export function parseBudget(text: string): Budget | null {
  const match = BUDGET.exec(text.trim());
  if (!match) return null;
  const bytesMax = Math.floor(Number(match[1]) * UNITS[match[2]!.toLowerCase()]!);
  return bytesMax >= BUDGET_BYTES_MIN
    ? { bytesMax, per: match[3]!.toLowerCase() === 'day' ? 'day' : 'month' }
    : null;
}

const TIME = /^([01]?\d|2[0-4]):([0-5]\d)$/;
const MINUTES_OF_DAY = 24 * 60;

/** @returns null when one of them is none */
export function parseHours(text: string): Hours[] | null {
  const all: Hours[] = [];
  for (const part of text.split(',')) {
    const [from, to, ...rest] = part.split('-').map(minutesOf);
    if (from == null || to == null || rest.length > 0 || from === to) return null;
    all.push({ from, to });
  }
  return all;
}

function minutesOf(text: string): number | null {
  const match = TIME.exec(text.trim());
  const minutes = match ? Number(match[1]) * 60 + Number(match[2]) : MINUTES_OF_DAY + 1;
  return minutes <= MINUTES_OF_DAY ? minutes : null;
}

/** Whether local time `at` lies within one of `hours`; always, when there are none. */
export function isWithin(hours: readonly Hours[], at: Date): boolean {
  if (hours.length === 0) return true;
  const minute = at.getHours() * 60 + at.getMinutes();
  return hours.some(({ from, to }) =>
    from < to ? minute >= from && minute < to : minute >= from || minute < to,
  );
}
