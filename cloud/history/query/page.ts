/** Readings of one series a page at a time, ascending, each with its place in the ledger. */
import type { Pool } from 'pg';
import type { Value } from '../../../protocol/batch.ts';
import { storedDays, withinDays } from './days.ts';
import { millisOf, type Range } from './micros.ts';
import { type Column, placeOf, type Slice } from './runs.ts';
import { readSeries, type Series } from './series.ts';

export interface RawRow {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly value: Value;
  readonly kind: 'telemetry' | 'event' | 'status' | 'location';
  /** As in `holdfast.gateway_log`. */
  readonly log: number;
  readonly sequence: number;
  readonly element: number;
}

/** The place of a reading in the order of its series. */
export interface Cursor {
  /** Microseconds since 2000. */
  readonly at: number;
  readonly log: number;
  readonly sequence: number;
  readonly element: number;
  readonly type: Column['type'];
  readonly position: number;
}

export const cursorText = ({ at, log, sequence, element, type, position }: Cursor): string =>
  [at, log, sequence, element, `${type}${position}`].join('_');

/** @returns null when it is none that was given */
export function parseCursor(text: string): Cursor | null {
  const [, at, log, sequence, element, type, position] =
    /^(-?\d{1,16})_(\d{1,10})_(\d{1,16})_(-?\d{1,5})_([nbs])(\d{1,5})$/.exec(text) ?? [];
  if (at === undefined) return null;
  return {
    at: Number(at),
    log: Number(log),
    sequence: Number(sequence),
    element: Number(element),
    type: type as Column['type'],
    position: Number(position),
  };
}

const KINDS: readonly RawRow['kind'][] = ['telemetry', 'event', 'status', 'location'];

/** @returns `next`, where the page after this one begins; null when there is none */
export async function readPage(
  pool: Pool,
  series: Series,
  asked: Range,
  { limit, after }: { readonly limit: number; readonly after: Cursor | null },
): Promise<{ rows: RawRow[]; next: Cursor | null }> {
  const from = after ? Math.max(asked.from, after.at) : asked.from;
  const days = await storedDays(pool, { from, to: asked.to });
  const range = withinDays({ from, to: asked.to }, days);
  const rows: RawRow[] = [];
  let last: Cursor | null = null;
  if (!range) return { rows, next: null };
  for await (const slices of readSeries(pool, { ...series, range, days })) {
    for (const slice of slices) {
      for (let i = after ? firstAfter(slice, after) : slice.from; i < slice.to; i++) {
        if (rows.length === limit) return { rows, next: last };
        last = cursorOf(slice.column, i);
        rows.push(rowOf(slice.column, i));
      }
    }
  }
  return { rows, next: null };
}

function firstAfter({ column, from, to }: Slice, after: Cursor): number {
  let i = Math.max(from, placeOf(column.run.at, after.at));
  while (i < to && compare(cursorOf(column, i), after) <= 0) i++;
  return i;
}

function cursorOf({ run, type, position }: Column, i: number): Cursor {
  const { sequence, element } = run.messages();
  return { at: run.at[i]!, log: run.log, sequence: sequence[i]!, element: element[i]!, type, position };
}

const compare = (a: Cursor, b: Cursor): number =>
  a.at - b.at ||
  a.log - b.log ||
  a.sequence - b.sequence ||
  a.element - b.element ||
  (a.type < b.type ? -1 : a.type > b.type ? 1 : a.position - b.position);

function rowOf({ run, type, position }: Column, i: number): RawRow {
  const { sequence, element, texts } = run.messages();
  const number = type === 's' ? 0 : run.numbers(position)[i]!;
  return {
    at: millisOf(run.at[i]!),
    value: type === 's' ? texts[position - 1]![i]! : type === 'b' ? number !== 0 : number,
    kind: KINDS[run.kind]!,
    log: run.log,
    sequence: sequence[i]!,
    element: element[i]!,
  };
}
