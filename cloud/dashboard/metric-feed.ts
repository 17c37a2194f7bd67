/**
 * All points of one metric over one range, kept current: history by HTTP, newer ones live, joined by time; with them
 * the summaries of what was thinned, and the stretches that are late, thinned, lost or missing.
 *
 *   load ─▶ every few seconds: shades of the whole range ─▶ history's newest end, or from where the shading changed
 *
 * History may run behind the live values when the page opens, the push link conflates for slow readers, and after a cut
 * a backlog comes in behind the live values: the shading tells where.
 */
import { getJson, type Outcome, type Problem, paths, serverNow } from './api.ts';
import { addLivePoint, joinPoints, type Point } from './chart-series.ts';
import { firstChange, joinSummaries } from './chart-shades.ts';
import { type HistoryPage, readHistory, type Shade, type Summary } from './history-model.ts';
import type { Live } from './live.ts';
import { type MetricValue, twinKey } from './model.ts';

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
  summaries(): readonly Summary[];
  shades(): readonly Shade[];
  state(): FeedState;
  stop(): void;
};

export type FeedSubject = {
  readonly site: string;
  readonly device: string;
  readonly metric: string;
  readonly rangeMs: number;
};

/** Of the points or the summaries of a page cut short: where the older ones end; `null` when the page is whole. */
function cutShortAt({ points, summaries, truncated }: HistoryPage): number | null {
  if (!truncated) return null;
  const cut = [
    points.length >= PAGE_POINTS ? points[0]?.[0] : undefined,
    summaries.length >= PAGE_POINTS ? summaries[0]?.from : undefined,
  ].filter(at => at !== undefined);
  return cut.length === 0 ? null : Math.max(...cut);
}

/** @param onChange called when points or state changed, possibly many times a second */
export function startMetricFeed(live: Live, subject: FeedSubject, onChange: () => void): MetricFeed {
  const { site, device, metric, rangeMs } = subject;
  const key = twinKey(site, device);
  const abort = new AbortController();
  let points: Point[] = [];
  let summaries: readonly Summary[] = [];
  let shades: readonly Shade[] = [];
  let state: FeedState = { phase: 'loading' };
  let historyUntil = 0;
  let liveAt = Number.NaN;
  let timer: ReturnType<typeof setTimeout> | null = null;

  const ask = (from: number, to: number, pointsMax: number): Promise<Outcome<HistoryPage>> =>
    getJson(paths.history(site, device, metric, from, to, pointsMax), readHistory, abort.signal);

  function enter(next: FeedState): void {
    state = next;
    onChange();
  }
  function later(work: () => Promise<void>, delayMs: number): void {
    if (!abort.signal.aborted) timer = setTimeout(() => void work(), delayMs);
  }
  /** Live points win over history's copy of them: they are the same reading. */
  function join(page: HistoryPage): void {
    points = joinPoints(page.points, points);
    if (points.length > POINTS_MAX) points.splice(0, points.length - POINTS_MAX);
    summaries = joinSummaries(summaries, page.summaries, POINTS_MAX);
    historyUntil = Math.max(historyUntil, page.points.at(-1)?.[0] ?? 0);
  }

  type Fetched = {
    readonly pages: number;
    readonly truncatedBefore: number | null;
    readonly problem: Problem | null;
  };

  /** All of history since `from`, the newest first, a page at a time. */
  async function fetchSince(
    from: number,
    onPage: (page: HistoryPage, fetched: Fetched) => void,
  ): Promise<Fetched> {
    let to = serverNow() + AHEAD_MS;
    let fetched: Fetched = { pages: 0, truncatedBefore: null, problem: null };
    while (fetched.pages < PAGES_MAX) {
      const outcome = await ask(from, to, PAGE_POINTS);
      if (abort.signal.aborted) return fetched;
      if (!outcome.ok) {
        // No history for a metric that is only just being written is not a failure.
        return outcome.problem.status === 404 ? fetched : { ...fetched, problem: outcome.problem };
      }
      join(outcome.value);
      const oldest = cutShortAt(outcome.value);
      fetched = { pages: fetched.pages + 1, truncatedBefore: oldest, problem: null };
      onPage(outcome.value, fetched);
      if (oldest === null) break;
      to = oldest; // both ends are included, and a time seen twice is joined into one
    }
    return fetched;
  }

  async function load(): Promise<void> {
    const fetched = await fetchSince(serverNow() - rangeMs, (page, { pages, truncatedBefore }) => {
      // The first page is asked for over the whole range.
      if (pages === 1) shades = page.shades;
      enter({ phase: 'ready', truncatedBefore, problem: null });
    });
    if (abort.signal.aborted) return;
    const { pages, truncatedBefore, problem } = fetched;
    if (pages === 0 && problem !== null) {
      enter({ phase: 'failed', problem });
      return later(load, 5_000);
    }
    enter({ phase: 'ready', truncatedBefore, problem });
    later(refreshTail, 2_000);
  }

  async function refreshTail(): Promise<void> {
    if (!document.hidden) {
      const problem = await refresh();
      if (abort.signal.aborted) return;
      if (state.phase === 'ready') enter({ ...state, problem });
    }
    later(refreshTail, TAIL_INTERVAL_MS);
  }

  async function refresh(): Promise<Problem | null> {
    const from = serverNow() - rangeMs;
    const asked = await ask(from, serverNow() + AHEAD_MS, 1);
    if (abort.signal.aborted) return null;
    if (!asked.ok && asked.problem.status !== 404) return asked.problem;
    const shadesNow = asked.ok ? asked.value.shades : [];
    const changedAt = firstChange(shades, shadesNow, from);
    const since = Math.max(from, Math.min(historyUntil, changedAt ?? historyUntil));
    const { problem } = await fetchSince(since, () => {});
    // Kept until what it tells of has been fetched: a failure asks for the same again.
    if (problem === null) shades = shadesNow;
    return problem;
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
    summaries: () => summaries,
    shades: () => shades,
    state: () => state,
    stop(): void {
      abort.abort();
      release();
      if (timer !== null) clearTimeout(timer);
    },
  };
}
