/**
 * What history says of one metric over a range: its readings, what is left of those that were thinned, and the
 * stretches in which the picture is not whole. Checked as in `model.ts`: what has another shape is left out (H).
 */
import { field, isFields, listOf, type MetricValue, metricValueOf, numberOf } from './model.ts';

/** What became of the readings of one interval that a gateway had no room for; times in milliseconds. */
export type Summary = {
  readonly from: number;
  /** Exclusive. */
  readonly to: number;
  readonly min: number;
  readonly max: number;
  readonly mean: number;
  readonly count: number;
};

/** In the order in which they are drawn and named: the worst last, so on top. */
export const SHADE_KINDS = ['late', 'thinned', 'missing', 'lost'] as const;
export type ShadeKind = (typeof SHADE_KINDS)[number];
/** Milliseconds since 1970; `to` is exclusive. */
export type Shade = { readonly from: number; readonly to: number; readonly what: ShadeKind };

export type HistoryPage = {
  readonly points: ReadonlyArray<readonly [at: number, value: MetricValue]>;
  readonly summaries: readonly Summary[];
  readonly shades: readonly Shade[];
  readonly truncated: boolean;
};

function readSummary(value: unknown): Summary | null {
  const [from, intervalMs, min, max, mean, count] = listOf(value).map(numberOf);
  if (from == null || intervalMs == null || intervalMs <= 0 || count == null) return null;
  if (min == null || max == null || mean == null || min > max) return null;
  return { from, to: from + intervalMs, min, max, mean, count };
}

function readShade(value: unknown): Shade | null {
  if (!isFields(value)) return null;
  const what = SHADE_KINDS.find(kind => kind === field(value, 'what'));
  const from = numberOf(field(value, 'from'));
  const to = numberOf(field(value, 'to'));
  return what === undefined || from === null || to === null || from >= to ? null : { from, to, what };
}

const present = <T>(value: T | null): value is T => value !== null;

export function readHistory(body: unknown): HistoryPage {
  const fields = isFields(body) ? body : {};
  const points: Array<readonly [number, MetricValue]> = [];
  for (const point of listOf(field(fields, 'points'))) {
    const at = Array.isArray(point) ? numberOf(point[0]) : null;
    if (at !== null) points.push([at, metricValueOf((point as unknown[])[1])]);
  }
  return {
    points,
    summaries: listOf(field(fields, 'summaries')).map(readSummary).filter(present),
    shades: listOf(field(fields, 'shades')).map(readShade).filter(present),
    truncated: field(fields, 'truncated') === true,
  };
}
