/**
 * Columns of whole numbers and of numbers, packed one behind the other, pure; read by `holdfast.unpack` in SQL, too.
 *
 *   whole numbers ─▶ series (`series.ts`) in `body`
 *   numbers ──┬────▶ the same, of a power of ten, where that loses nothing, bit for bit
 *             └────▶ `floats`
 */
import { type Integers, LARGEST, packSeries, unpackSeries } from './series.ts';

export interface Columns {
  /** Per column: the series' form, and 32 times its digits. */
  readonly forms: readonly number[];
  readonly bases: readonly number[];
  readonly steps: readonly number[];
  /** Per column: where it begins in `body`, or in `floats` (form `FLOATS`). */
  readonly places: readonly number[];
  readonly body: Uint8Array;
  readonly floats: ArrayLike<number> | null;
}

/** A column in `floats`. */
export const FLOATS = 31;
const DIGITS_UNIT = 32;
const DECIMALS_MAX = 9;

export interface ColumnPacker {
  /** @param digits noted with the column: of which power of ten they are counts */
  integers(values: Integers, digits?: number): void;
  numbers(values: ArrayLike<number>): void;
  packed(): Columns;
}

/** Columns of one length, at least 1. */
export function newColumnPacker(): ColumnPacker {
  const forms: number[] = [];
  const bases: number[] = [];
  const steps: number[] = [];
  const places: number[] = [];
  const parts: Uint8Array[] = [];
  let bytes = 0;
  const floats: number[] = [];

  function integers(values: Integers, digits = 0): void {
    const series = packSeries(values);
    forms.push(series.form + DIGITS_UNIT * digits);
    bases.push(series.base);
    steps.push(series.step);
    places.push(bytes);
    parts.push(series.bytes);
    bytes += series.bytes.length;
  }

  return {
    integers,
    numbers(values) {
      const digits = decimalsOf(values);
      if (digits !== null) return integers(scaled(values, 10 ** digits), digits);
      forms.push(FLOATS);
      bases.push(0);
      steps.push(0);
      places.push(floats.length);
      for (let i = 0; i < values.length; i++) floats.push(values[i]!);
    },
    packed: () => ({
      ...{ forms, bases, steps, places },
      body: joined(parts, bytes),
      floats: floats.length > 0 ? floats : null,
    }),
  };
}

/** @param count of its numbers */
export const integersOf = (
  { forms, bases, steps, places, body }: Columns,
  index: number,
  count: number,
): Float64Array =>
  unpackSeries(
    {
      form: forms[index]! % DIGITS_UNIT,
      base: bases[index]!,
      step: steps[index]!,
      bytes: body.subarray(places[index]!),
    },
    count,
  );

/** Of which power of ten the numbers of a column are counts. */
export const digitsOf = ({ forms }: Columns, index: number): number =>
  Math.floor(forms[index]! / DIGITS_UNIT);

/** @param count of its numbers */
export function numbersOf(columns: Columns, index: number, count: number): Float64Array {
  if (columns.forms[index] === FLOATS) {
    const place = columns.places[index]!;
    return Float64Array.from({ length: count }, (_, i) => columns.floats![place + i]!);
  }
  const values = integersOf(columns, index, count);
  const scale = 10 ** digitsOf(columns, index);
  if (scale !== 1) for (let i = 0; i < values.length; i++) values[i] = values[i]! / scale;
  return values;
}

/** The fewest decimals that all of them have; null when some are no decimals. */
export function decimalsOf(values: ArrayLike<number>): number | null {
  let digits = 0;
  let scale = 1;
  let rose = 0;
  for (let i = 0; i < values.length; i++) {
    while (!isDecimal(values[i]!, scale)) {
      if (digits === DECIMALS_MAX) return null;
      scale = 10 ** ++digits;
      rose = i;
    }
  }
  // With more digits than it needs by itself, an earlier one may be too large, or be another number.
  for (let i = 0; i < rose; i++) if (!isDecimal(values[i]!, scale)) return null;
  return digits;
}

/** Bit for bit: a whole number has no -0. */
function isDecimal(value: number, scale: number): boolean {
  const whole = Math.round(value * scale);
  return Math.abs(whole) <= LARGEST && whole / scale === value && !Object.is(value, -0);
}

/** In a loop of its own: with a function per number it takes three times as long. */
function scaled(values: ArrayLike<number>, scale: number): Float64Array {
  const out = new Float64Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = Math.round(values[i]! * scale);
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
