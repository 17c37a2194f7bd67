/**
 * Messages of one device and shape as columns, pure: what `message` holds as rows, `chunk` holds as one row of series.
 *
 *   time │ sequence │ element │ number 1 … n │ text 1 … m        (`series.ts`)
 *
 * Times are whole microseconds, or larger units where all are. Numbers are whole numbers of a power of ten where that loses
 * nothing, bit for bit; a column that has others is in `floats`. Texts are places in `words`.
 */
import { type Integers, LARGEST, packSeries, unpackSeries } from './series.ts';

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

export interface Chunk extends ChunkKey {
  readonly at: number;
  readonly until: number;
  readonly messages: number;
  /** How many of the columns are numbers. */
  readonly numbers: number;
  /** Per column: the series' form, and 32 times its digits. */
  readonly forms: readonly number[];
  readonly bases: readonly number[];
  readonly steps: readonly number[];
  /** Per column: where it begins in `body`, or in `floats` (form `FLOATS`). */
  readonly places: readonly number[];
  readonly body: Uint8Array;
  readonly floats: ArrayLike<number> | null;
  readonly words: readonly string[] | null;
  readonly claimedAt: readonly (number | null)[] | null;
}

/** A column in `floats`. */
export const FLOATS = 31;
const DIGITS_UNIT = 32;
/** Microseconds, milliseconds, seconds, by the digits that are left out. */
const TIME_DIGITS = [6, 3, 0] as const;
const DECIMALS_MAX = 9;
const FIXED_COLUMNS = 3;

/** More messages than this make another chunk: one of them costs reading all. */
export const MESSAGES_PER_CHUNK = 4096;

/** @param messages at least one, at most `MESSAGES_PER_CHUNK` */
export function packChunk(key: ChunkKey, messages: Messages): Chunk {
  const { at, sequence, element } = messages;
  const count = at.length;
  const forms: number[] = [];
  const bases: number[] = [];
  const steps: number[] = [];
  const places: number[] = [];
  const parts: Uint8Array[] = [];
  let bytes = 0;
  const floats: number[] = [];
  function add(values: Integers, digits = 0): void {
    const series = packSeries(values);
    forms.push(series.form + DIGITS_UNIT * digits);
    bases.push(series.base);
    steps.push(series.step);
    places.push(bytes);
    parts.push(series.bytes);
    bytes += series.bytes.length;
  }

  const [first, last] = [at[0]!, at[count - 1]!];
  const timeDigits = TIME_DIGITS.find(digits => isMultiple(at, 10 ** digits)) ?? 0;
  add(
    mapped(at, value => (value - first) / 10 ** timeDigits),
    timeDigits,
  );
  add(sequence);
  add(element);
  for (const values of messages.numbers) {
    const digits = decimalsOf(values);
    if (digits !== null)
      add(
        mapped(values, value => Math.round(value * 10 ** digits)),
        digits,
      );
    else {
      forms.push(FLOATS);
      bases.push(0);
      steps.push(0);
      places.push(floats.length);
      for (let i = 0; i < count; i++) floats.push(values[i]!);
    }
  }
  const words = new Map<string, number>();
  for (const texts of messages.texts) {
    add(
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
    forms,
    bases,
    steps,
    places,
    body: joined(parts, bytes),
    floats: floats.length > 0 ? floats : null,
    words: words.size > 0 ? [...words.keys()] : null,
    claimedAt: messages.claimedAt,
  };
}

export function unpackChunk(chunk: Chunk): Messages {
  const textsFrom = FIXED_COLUMNS + chunk.numbers;
  const texts = chunk.forms.length - textsFrom;
  return {
    at: timesOf(chunk),
    sequence: columnOf(chunk, 1),
    element: columnOf(chunk, 2),
    numbers: Array.from({ length: chunk.numbers }, (_, position) => numbersOf(chunk, position)),
    texts: Array.from({ length: texts }, (_, position) =>
      Array.from(columnOf(chunk, textsFrom + position), word => chunk.words![word]!),
    ),
    claimedAt: chunk.claimedAt,
  };
}

/** Microseconds since 2000. */
export function timesOf(chunk: Chunk): Float64Array {
  const scale = 10 ** Math.floor(chunk.forms[0]! / DIGITS_UNIT);
  const times = columnOf(chunk, 0);
  for (let i = 0; i < times.length; i++) times[i] = chunk.at + times[i]! * scale;
  return times;
}

/** @param position of the number in the shape, from 0 */
export function numbersOf(chunk: Chunk, position: number): Float64Array {
  const index = FIXED_COLUMNS + position;
  const form = chunk.forms[index]!;
  if (form === FLOATS) {
    const place = chunk.places[index]!;
    return Float64Array.from({ length: chunk.messages }, (_, i) => chunk.floats![place + i]!);
  }
  const values = columnOf(chunk, index);
  const scale = 10 ** Math.floor(form / DIGITS_UNIT);
  if (scale !== 1) for (let i = 0; i < values.length; i++) values[i] = values[i]! / scale;
  return values;
}

const columnOf = ({ forms, bases, steps, places, body, messages }: Chunk, index: number): Float64Array =>
  unpackSeries(
    {
      form: forms[index]! % DIGITS_UNIT,
      base: bases[index]!,
      step: steps[index]!,
      bytes: body.subarray(places[index]!),
    },
    messages,
  );

/** The fewest decimals that all of them have; null when some are no decimals. */
function decimalsOf(values: ArrayLike<number>): number | null {
  let digits = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    for (;;) {
      const whole = Math.round(value * 10 ** digits);
      if (isDecimal(value, whole, digits)) break;
      if (digits === DECIMALS_MAX) return null;
      digits++;
    }
  }
  // With more digits than it needs by itself, one of them may be too large, or be another number.
  for (let i = 0; i < values.length; i++) {
    const whole = Math.round(values[i]! * 10 ** digits);
    if (!isDecimal(values[i]!, whole, digits)) return null;
  }
  return digits;
}

/** Bit for bit: a whole number has no -0. */
const isDecimal = (value: number, whole: number, digits: number): boolean =>
  Math.abs(whole) <= LARGEST && whole / 10 ** digits === value && !Object.is(value, -0);

function isMultiple(values: Integers, unit: number): boolean {
  const first = values[0]!;
  for (let i = 1; i < values.length; i++) if ((values[i]! - first) % unit !== 0) return false;
  return true;
}

function mapped(values: ArrayLike<number>, change: (value: number) => number): Float64Array {
  const out = new Float64Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = change(values[i]!);
  return out;
}

function joined(parts: readonly Uint8Array[], bytes: number): Uint8Array {
  const out = new Uint8Array(bytes);
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}
