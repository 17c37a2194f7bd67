/**
 * All points of one metric over one range, kept current: history by HTTP, newer ones live, joined by time.
 *
 * History is asked again for its newest end every few seconds: it may run behind the live values when the page opens,
 * the push link conflates for slow readers, and after a cut link the silence in between is filled from it.
 */
import { getJson, type Outcome, type Problem, paths, serverNow } from './api.ts';
import { addLivePoint, joinPoints, type Point } from './chart-series.ts';
import type { Live } from './live.ts';
import { type HistoryPage, type MetricValue, readHistory, twinKey } from './model.ts';

const PAGE_POINTS = 20_000;
/** A truncated range is completed backwards up to here; beyond it the chart says since when it shows points. */
const PAGES_MAX = 5;
/** At the bound (F) the oldest points leave the chart; history still has them. */
const POINTS_MAX = PAGE_POINTS * (PAGES_MAX + 1);
const TAIL_INTERVAL_MS = 10_000;
/** Room for readings whose device clock runs ahead. */
const AHEAD_MS = 300_000;

export type FeedState =
  | { readonly phase: 'loading' }
  | { readonly phase: 'ready'; readonly truncatedBefore: number | null; readonly problem: Problem | null }
  | { readonly phase: 'failed'; readonly problem: Problem };

export type MetricFeed = {
  points(): readonly Point[];
  state(): FeedState;
  stop(): void;
};

export type FeedSubject = {
  readonly site: string;
  readonly device: string;
  readonly metric: string;
  readonly rangeMs: number;
};

/** @param onChange called when points or state changed, possibly many times a second */
export function startMetricFeed(live: Live, subject: FeedSubject, onChange: () => void): MetricFeed {
  const { site, device, metric, rangeMs } = subject;
  const key = twinKey(site, device);
  const abort = new AbortController();
  let points: Point[] = [];
  let state: FeedState = { phase: 'loading' };
  let historyUntil = 0;
  let liveAt = Number.NaN;
  let timer: ReturnType<typeof setTimeout> | null = null;

  const fetchPage = (from: number, to: number): Promise<Outcome<HistoryPage>> =>
    getJson(paths.history(site, device, metric, from, to, PAGE_POINTS), readHistory, abort.signal);

  function enter(next: FeedState): void {
    state = next;
    onChange();
  }
  function later(work: () => Promise<void>, delayMs: number): void {
    if (!abort.signal.aborted) timer = setTimeout(() => void work(), delayMs);
  }
  /** Live points win over history's copy of them: they are the same reading. */
  function join(page: readonly Point[]): void {
    points = joinPoints(page, points);
    historyUntil = Math.max(historyUntil, page.at(-1)?.[0] ?? 0);
  }

  async function load(): Promise<void> {
    const from = serverNow() - rangeMs;
    let to = serverNow() + AHEAD_MS;
    let truncatedBefore: number | null = null;
    for (let pages = 1; pages <= PAGES_MAX; pages += 1) {
      const outcome = await fetchPage(from, to);
      if (abort.signal.aborted) return;
      if (!outcome.ok) {
        // No history for a metric that is only just being written is not a failure.
        if (outcome.problem.status === 404) break;
        enter(
          pages === 1
            ? { phase: 'failed', problem: outcome.problem }
            : { phase: 'ready', truncatedBefore, problem: outcome.problem },
        );
        return later(pages === 1 ? load : refreshTail, 5_000);
      }
      join(outcome.value.points);
      const oldest = outcome.value.points[0]?.[0];
      truncatedBefore = outcome.value.truncated && oldest !== undefined ? oldest : null;
      enter({ phase: 'ready', truncatedBefore, problem: null });
      if (truncatedBefore === null) break;
      to = truncatedBefore; // both ends are included, and a time seen twice is joined into one
    }
    if (state.phase === 'loading') enter({ phase: 'ready', truncatedBefore, problem: null });
    later(refreshTail, 2_000);
  }

  async function refreshTail(): Promise<void> {
    const now = serverNow();
    if (!document.hidden) {
      const outcome = await fetchPage(Math.max(historyUntil, now - rangeMs), now + AHEAD_MS);
      if (abort.signal.aborted) return;
      if (outcome.ok) join(outcome.value.points);
      const problem = outcome.ok || outcome.problem.status === 404 ? null : outcome.problem;
      if (state.phase === 'ready') enter({ ...state, problem });
    }
    later(refreshTail, TAIL_INTERVAL_MS);
  }

  function take(value: MetricValue, at: number): void {
    if (at === liveAt) return;
    liveAt = at;
    addLivePoint(points, [at, value], POINTS_MAX);
    onChange();
  }
  const release = live.onTwins(twins => {
    for (const twin of twins) {
      const reading = twin.key === key ? twin.metrics.get(metric) : undefined;
      if (reading !== undefined) take(reading.value, reading.at);
    }
  });
  const held = live.fleet.twins.get(key)?.metrics.get(metric);
  if (held !== undefined) take(held.value, held.at);
  void load();

  return {
    points: () => points,
    state: () => state,
    stop(): void {
      abort.abort();
      release();
      if (timer !== null) clearTimeout(timer);
    },
  };
}
