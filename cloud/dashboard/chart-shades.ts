/**
 * Where a chart must not be read as if all had come live and whole: shaded stretches, and summaries in the place of
 * readings. Pure; times in milliseconds since 1970, lists ascending by their start.
 */
import type { Span } from './chart-series.ts';
import { SHADE_KINDS, type Shade, type ShadeKind, type Summary } from './history-model.ts';

/** Where both have an interval, `newer` wins. At `summariesMax` the oldest go: history still has them (F). */
export function joinSummaries(
  older: readonly Summary[],
  newer: readonly Summary[],
  summariesMax: number,
): Summary[] {
  if (newer.length === 0) return older.slice(-summariesMax);
  const byInterval = new Map<string, Summary>();
  for (const summary of [...older, ...newer]) byInterval.set(`${summary.from}+${summary.to}`, summary);
  return [...byInterval.values()].sort((a, b) => a.from - b.from || a.to - b.to).slice(-summariesMax);
}

/** Those of which the larger part lies within `[from, to]`. */
export const summariesWithin = (summaries: readonly Summary[], from: number, to: number): Summary[] =>
  summaries.filter(summary => {
    const middle = (summary.from + summary.to) / 2;
    return middle >= from && middle <= to;
  });

/** The finest one that covers a moment. */
export function summaryAt(summaries: readonly Summary[], at: number): Summary | null {
  let finest: Summary | null = null;
  for (const summary of summaries) {
    if (summary.from > at) break;
    if (at >= summary.to) continue;
    if (finest === null || summary.to - summary.from < finest.to - finest.from) finest = summary;
  }
  return finest;
}

/** Summaries that follow one another without a gap, so that a line may join their means. */
export function summaryRuns(summaries: readonly Summary[]): Summary[][] {
  const runs: Summary[][] = [];
  for (const summary of summaries) {
    const run = runs.at(-1);
    const last = run?.at(-1);
    if (run !== undefined && last !== undefined && summary.from <= last.to) run.push(summary);
    else runs.push([summary]);
  }
  return runs;
}

/** The union, ascending and apart. */
export function unionOf(spans: readonly Span[]): Span[] {
  const union: Array<[number, number]> = [];
  for (const [from, to] of [...spans].sort((a, b) => a[0] - b[0])) {
    const last = union.at(-1);
    if (from >= to) continue;
    if (last !== undefined && from <= last[1]) last[1] = Math.max(last[1], to);
    else union.push([from, to]);
  }
  return union;
}

/** What of `spans` lies outside of all of `covered`. */
export function outside(spans: readonly Span[], covered: readonly Span[]): Span[] {
  const cover = unionOf(covered);
  return spans.flatMap(([from, to]): Span[] => {
    const left: Span[] = [];
    let at = from;
    for (const [coverFrom, coverTo] of cover) {
      if (coverTo <= at) continue;
      if (coverFrom >= to) break;
      if (coverFrom > at) left.push([at, coverFrom]);
      at = Math.max(at, coverTo);
    }
    if (at < to) left.push([at, to]);
    return left;
  });
}

/** What of `spans` lies within any of `covered`. */
export const inside = (spans: readonly Span[], covered: readonly Span[]): Span[] =>
  outside(spans, outside(spans, covered));

export const spansOf = (items: ReadonlyArray<{ readonly from: number; readonly to: number }>): Span[] =>
  items.map(({ from, to }) => [from, to]);

export const spansOfKind = (shades: readonly Shade[], kind: ShadeKind, from: number, to: number): Span[] =>
  inside([[from, to]], spansOf(shades.filter(({ what }) => what === kind)));

/** Kinds that occur within `[from, to]`, and for how long, in milliseconds. */
export function shadedMs(shades: readonly Shade[], from: number, to: number): Map<ShadeKind, number> {
  const found = new Map<ShadeKind, number>();
  for (const kind of SHADE_KINDS) {
    const ms = spansOfKind(shades, kind, from, to).reduce((sum, [start, end]) => sum + end - start, 0);
    if (ms > 0) found.set(kind, ms);
  }
  return found;
}

/**
 * Where the shading changed, history changed: a backlog has come in behind the live values, say.
 * @returns the earliest moment from `from` on that is shaded otherwise than before; `null` when none is
 */
export function firstChange(before: readonly Shade[], after: readonly Shade[], from: number): number | null {
  let first = Number.POSITIVE_INFINITY;
  for (const kind of SHADE_KINDS) {
    const a = spansOfKind(before, kind, from, Number.POSITIVE_INFINITY);
    const b = spansOfKind(after, kind, from, Number.POSITIVE_INFINITY);
    for (let i = 0; i < Math.max(a.length, b.length); i += 1) {
      const [fromA, toA] = a[i] ?? [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
      const [fromB, toB] = b[i] ?? [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
      if (fromA === fromB && toA === toB) continue;
      first = Math.min(first, fromA === fromB ? Math.min(toA, toB) : Math.min(fromA, fromB));
      break;
    }
  }
  return Number.isFinite(first) ? first : null;
}

export type PlotFigures = {
  /** Readings, those that were thinned included. */
  readonly count: number;
  readonly thinned: number;
  readonly min: number;
  readonly mean: number;
  readonly max: number;
};

/** Of all readings, whole or summarized; `null` when there are none. */
export function figuresOf(
  values: ReadonlyArray<number | null>,
  summaries: readonly Summary[],
): PlotFigures | null {
  let [count, thinned, sum] = [0, 0, 0];
  let min = Number.POSITIVE_INFINITY;
  let max = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    if (value === null) continue;
    count += 1;
    sum += value;
    min = Math.min(min, value);
    max = Math.max(max, value);
  }
  for (const summary of summaries) {
    thinned += summary.count;
    sum += summary.mean * summary.count;
    min = Math.min(min, summary.min);
    max = Math.max(max, summary.max);
  }
  count += thinned;
  return count === 0 ? null : { count, thinned, min, mean: sum / count, max };
}
