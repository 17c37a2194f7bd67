/**
 * The points of one metric: history joined with what comes in live, without a gap or a double at the join, and made
 * ready to draw with its gaps as gaps. Pure; times in milliseconds since 1970, ascending.
 */
import type { MetricValue } from './model.ts';

export type Point = readonly [at: number, value: MetricValue];

/** History keeps microseconds: two times this close are one reading seen twice. */
const SAME_TIME_MS = 0.002;
const sameTime = (a: number, b: number): boolean => Math.abs(a - b) < SAME_TIME_MS;

/** Both ascending; where both have a time, `newer` wins. */
export function joinPoints(older: readonly Point[], newer: readonly Point[]): Point[] {
  const joined: Point[] = [];
  let i = 0;
  let j = 0;
  while (i < older.length || j < newer.length) {
    const a = older[i];
    const b = newer[j];
    if (b === undefined || (a !== undefined && a[0] < b[0] && !sameTime(a[0], b[0]))) {
      pushOnce(joined, a as Point);
      i += 1;
    } else {
      if (a !== undefined && sameTime(a[0], b[0])) i += 1;
      pushOnce(joined, b);
      j += 1;
    }
  }
  return joined;
}

function pushOnce(points: Point[], point: Point): void {
  const last = points.at(-1);
  if (last !== undefined && sameTime(last[0], point[0])) points[points.length - 1] = point;
  else points.push(point);
}

/** Adds one live point in place (out of order too). At `pointsMax` the oldest go: history still has them (F). */
export function addLivePoint(points: Point[], point: Point, pointsMax: number): void {
  let index = points.length;
  while (index > 0 && (points[index - 1] as Point)[0] > point[0] - SAME_TIME_MS) index -= 1;
  const next = points[index];
  if (next !== undefined && sameTime(next[0], point[0])) points[index] = point;
  else points.splice(index, 0, point);
  // A tenth at a time, so that a full buffer does not move all its points for each new one.
  if (points.length > pointsMax) points.splice(0, Math.max(1, Math.floor(pointsMax / 10)));
}

/** `null` below three points: two say nothing about a rhythm. */
export function medianSpacing(at: readonly number[]): number | null {
  if (at.length < 3) return null;
  const step = Math.max(1, Math.floor((at.length - 1) / 2_000));
  const distances: number[] = [];
  for (let i = 1; i < at.length; i += step) distances.push((at[i] as number) - (at[i - 1] as number));
  distances.sort((a, b) => a - b);
  return distances[Math.floor(distances.length / 2)] ?? null;
}

export type Span = readonly [from: number, to: number];
export type Drawable = {
  /** Seconds since 1970, as the chart wants them. */
  readonly x: number[];
  /** `null` breaks the line. */
  readonly y: Array<number | null>;
  /** Milliseconds; the silence between the last point and `to` is one of them. */
  readonly gaps: Span[];
};

/** Distances above this many median spacings are gaps. */
const GAP_FACTOR = 5;
/** A metric sent many times a second is not called silent for less. */
const GAP_MS_MIN = 2_000;

/** The numbers within `[from, to]`; whatever is not a number is left out. */
export function drawable(points: readonly Point[], from: number, to: number): Drawable {
  const at: number[] = [];
  const values: number[] = [];
  for (const [time, value] of points) {
    if (typeof value !== 'number' || time < from || time > to) continue;
    at.push(time);
    values.push(value);
  }
  const spacing = medianSpacing(at);
  const gapMs = spacing === null ? Number.POSITIVE_INFINITY : Math.max(GAP_MS_MIN, GAP_FACTOR * spacing);
  const x: number[] = [];
  const y: Array<number | null> = [];
  const gaps: Span[] = [];
  for (let i = 0; i < at.length; i += 1) {
    const time = at[i] as number;
    const before = at[i - 1];
    if (before !== undefined && time - before > gapMs) {
      gaps.push([before, time]);
      x.push((before + time) / 2_000);
      y.push(null);
    }
    x.push(time / 1_000);
    y.push(values[i] as number);
  }
  const last = at.at(-1);
  if (last !== undefined && to - last > gapMs) gaps.push([last, to]);
  return { x, y, gaps };
}

/** Points that stand alone between gaps: a line would not show them. Indices into `y`. */
export function lonePoints(y: ArrayLike<number | null | undefined>): number[] {
  const lone: number[] = [];
  for (let i = 0; i < y.length; i += 1) {
    if (y[i] != null && y[i - 1] == null && y[i + 1] == null) lone.push(i);
  }
  return lone;
}

export type Run = { readonly from: number; readonly to: number; readonly value: MetricValue };

/** For values that are words: runs of the same value, newest first, at most `runsMax`. */
export function valueRuns(points: readonly Point[], runsMax: number): Run[] {
  const runs: Run[] = [];
  for (let i = points.length - 1; i >= 0; i -= 1) {
    const [at, value] = points[i] as Point;
    const run = runs.at(-1);
    if (run !== undefined && run.value === value) runs[runs.length - 1] = { ...run, from: at };
    else if (runs.length === runsMax) break;
    else runs.push({ from: at, to: at, value });
  }
  return runs;
}
