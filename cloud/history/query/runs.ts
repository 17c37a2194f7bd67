/**
 * Readings as they come out of history, and how several runs of them become one order; pure.
 *
 *   chunk ─┐
 *          ├─▶ run: messages of one shape, log and kind ─▶ column: one metric of them ─▶ slices in one order
 *   rows ──┘
 *
 * A run keeps its readings in typed arrays, and a slice only names a part of one: what is read is not copied
 * again.
 */
import { type Chunk, type Messages, numbersOf, timesOf, unpackChunk } from '../chunks/chunk.ts';
import type { HotRun } from './hot-rows.ts';
import type { Range } from './micros.ts';

/** Messages of one device, shape, log and kind, in the order of time, sequence and element. */
export interface Run {
  readonly shape: number;
  readonly log: number;
  readonly kind: number;
  /** Microseconds since 2000. */
  readonly at: Float64Array;
  /** Out of a chunk. */
  readonly isCompacted: boolean;
  /** All of its columns: only where more is needed than times and numbers. */
  messages(): Messages;
  /** @param position in the shape, from 1 */
  numbers(position: number): Float64Array;
}

/** One metric of a run. */
export interface Column {
  readonly run: Run;
  readonly metric: string;
  readonly type: 'n' | 'b' | 's';
  /** In the shape, from 1. */
  readonly position: number;
}

/** The readings [from, to) of a column. */
export interface Slice {
  readonly column: Column;
  readonly from: number;
  readonly to: number;
}

export function runOfChunk(chunk: Chunk): Run {
  let whole: Messages | undefined;
  const { shape, log, kind } = chunk;
  return {
    ...{ shape, log, kind },
    at: timesOf(chunk),
    isCompacted: true,
    messages: () => {
      whole ??= unpackChunk(chunk);
      return whole;
    },
    numbers: remembered(position => numbersOf(chunk, position - 1)),
  };
}

export function runOfRows({ shape, log, kind, messages }: HotRun): Run {
  return {
    ...{ shape, log, kind },
    at: Float64Array.from(messages.at),
    isCompacted: false,
    messages: () => messages,
    numbers: remembered(position => Float64Array.from(messages.numbers[position - 1]!)),
  };
}

/** Slices of one column may be many. */
function remembered(decode: (position: number) => Float64Array): (position: number) => Float64Array {
  const known = new Map<number, Float64Array>();
  return position => {
    const found = known.get(position) ?? decode(position);
    known.set(position, found);
    return found;
  };
}

/** The place of the first reading that is not earlier. */
export function placeOf(at: Float64Array, time: number): number {
  let low = 0;
  let high = at.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (at[middle]! < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The readings of the columns that lie within the range, as slices in one order. */
export function* inOneOrder(columns: readonly Column[], range: Range): Generator<Slice> {
  const heads: Head[] = [];
  for (const column of columns) {
    const { at } = column.run;
    const next = placeOf(at, range.from);
    const end = placeOf(at, range.to);
    if (next < end) heads.push({ column, at, next, end });
  }
  while (heads.length > 0) {
    let least = heads[0]!;
    let second: Head | undefined;
    for (const head of heads.slice(1)) {
      if (compare(head, least) < 0) {
        second = least;
        least = head;
      } else if (!second || compare(head, second) < 0) second = head;
    }
    const from = least.next;
    // Up to the one that comes next of all others; at the same time the rest of the order decides.
    least.next = second ? placeOf(least.at, second.at[second.next]!) : least.end;
    least.next = Math.min(Math.max(least.next, from + 1), least.end);
    while (second && least.next < least.end && compare(least, second) < 0) least.next++;
    yield { column: least.column, from, to: least.next };
    if (least.next === least.end) heads.splice(heads.indexOf(least), 1);
  }
}

interface Head {
  readonly column: Column;
  readonly at: Float64Array;
  next: number;
  readonly end: number;
}

function compare(a: Head, b: Head): number {
  const byTime = a.at[a.next]! - b.at[b.next]!;
  if (byTime !== 0) return byTime;
  const [left, right] = [a.column, b.column];
  if (left.run.log !== right.run.log) return left.run.log - right.run.log;
  const [one, other] = [left.run.messages(), right.run.messages()];
  return (
    one.sequence[a.next]! - other.sequence[b.next]! ||
    one.element[a.next]! - other.element[b.next]! ||
    (left.type < right.type ? -1 : left.type > right.type ? 1 : left.position - right.position)
  );
}
