/**
 * Messages of one device and shape as columns, pure: what `message` holds as rows, `chunk` holds as one row of series.
 *
 *   time │ sequence │ element │ number 1 … n │ text 1 … m        (`columns.ts`)
 *
 * Times are whole microseconds, or larger units where all are. Texts are places in `words`.
 */
import { type Columns, digitsOf, integersOf, newColumnPacker, numbersOf as numbersIn } from './columns.ts';
import type { Integers } from './series.ts';

/** What all messages of a chunk share. */
export interface ChunkKey {
  readonly device: number;
  readonly shape: number;
  readonly log: number;
  readonly kind: number;
}

/** Columns, all of one length; in the order of time, sequence and element. */
export interface Messages {
  /** Microseconds since 2000, as PostgreSQL counts. */
  readonly at: Integers;
  readonly sequence: Integers;
  readonly element: Integers;
  readonly numbers: readonly ArrayLike<number>[];
  readonly texts: readonly (readonly string[])[];
  /** The device's own time, in the same unit, where it was not believed. Null when that is so of none. */
  readonly claimedAt: readonly (number | null)[] | null;
}

export interface Chunk extends ChunkKey, Columns {
  readonly at: number;
  readonly until: number;
  readonly messages: number;
  /** How many of the columns are numbers. */
  readonly numbers: number;
  readonly words: readonly string[] | null;
  readonly claimedAt: readonly (number | null)[] | null;
}

/** Microseconds, milliseconds, seconds, by the digits that are left out. */
const TIME_DIGITS = [6, 3, 0] as const;
const FIXED_COLUMNS = 3;

/** More messages than this make another chunk: one of them costs reading all. */
export const MESSAGES_PER_CHUNK = 4096;

/** @param messages at least one, at most `MESSAGES_PER_CHUNK` */
export function packChunk(key: ChunkKey, messages: Messages): Chunk {
  const { at, sequence, element } = messages;
  const count = at.length;
  const columns = newColumnPacker();
  const [first, last] = [at[0]!, at[count - 1]!];
  const timeDigits = TIME_DIGITS.find(digits => isMultiple(at, 10 ** digits)) ?? 0;
  columns.integers(since(at, first, 10 ** timeDigits), timeDigits);
  columns.integers(sequence);
  columns.integers(element);
  for (const values of messages.numbers) columns.numbers(values);
  const words = new Map<string, number>();
  for (const texts of messages.texts) {
    columns.integers(
      texts.map(text => {
        const known = words.get(text) ?? words.size;
        words.set(text, known);
        return known;
      }),
    );
  }
  return {
    ...key,
    at: first,
    until: last,
    messages: count,
    numbers: messages.numbers.length,
    ...columns.packed(),
    words: words.size > 0 ? [...words.keys()] : null,
    claimedAt: messages.claimedAt,
  };
}

export function unpackChunk(chunk: Chunk): Messages {
  const textsFrom = FIXED_COLUMNS + chunk.numbers;
  const texts = chunk.forms.length - textsFrom;
  return {
    at: timesOf(chunk),
    sequence: integersOf(chunk, 1, chunk.messages),
    element: integersOf(chunk, 2, chunk.messages),
    numbers: Array.from({ length: chunk.numbers }, (_, position) => numbersOf(chunk, position)),
    texts: Array.from({ length: texts }, (_, position) =>
      Array.from(integersOf(chunk, textsFrom + position, chunk.messages), word => chunk.words![word]!),
    ),
    claimedAt: chunk.claimedAt,
  };
}

/** Microseconds since 2000. */
export function timesOf(chunk: Chunk): Float64Array {
  const scale = 10 ** digitsOf(chunk, 0);
  const times = integersOf(chunk, 0, chunk.messages);
  for (let i = 0; i < times.length; i++) times[i] = chunk.at + times[i]! * scale;
  return times;
}

/** @param position of the number in the shape, from 0 */
export const numbersOf = (chunk: Chunk, position: number): Float64Array =>
  numbersIn(chunk, FIXED_COLUMNS + position, chunk.messages);

function isMultiple(values: Integers, unit: number): boolean {
  const first = values[0]!;
  for (let i = 1; i < values.length; i++) if ((values[i]! - first) % unit !== 0) return false;
  return true;
}

function since(values: Integers, first: number, unit: number): Float64Array {
  const out = new Float64Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = (values[i]! - first) / unit;
  return out;
}
