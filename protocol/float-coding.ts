/**
 * A column of float64 as bits, each value bit for bit. What devices send is nearly always a decimal, so:
 *
 *   decimal   scale (4 bits): value = whole number / 10^scale, the smallest scale that fits all but a few.
 *             Then a flag and the ulps: sensors that compute give 74.93588199999998, which is 74.935882 less one unit in
 *             the last place, and is written so. Then the few that do not fit (-0.0, noise), by place, as `bits`.
 *   bits      the high 32 bits as one column, the low 32 without the zeros they all end in as another: float32 widened
 *             to float64, and slow signals, still come out small; random numbers take their 8 bytes.
 *
 * The encoder reads whole numbers off by multiplying, but only trusts the division that the decoder repeats: IEEE 754
 * rounds it the same everywhere.
 */
import type { BitReader, BitWriter } from './bit-stream.ts';
import { INTEGER_LIMIT, readIntegers, writeIntegers } from './integer-coding.ts';

const SCALE_MAX = 15;
const NO_SCALE = SCALE_MAX + 1;
const powersOfTen = Float64Array.from({ length: SCALE_MAX + 1 }, (_, scale) => Number(`1e${scale}`));
/** A value this near to a decimal is that decimal, corrected. */
const ULPS_MAX = 8;
/** At most one value in this many may be an exception to the column's scale. */
const VALUES_PER_EXCEPTION = 32;

const one = new Float64Array(1);
const oneWords = new Uint32Array(one.buffer);
const other = new Float64Array(1);
const otherWords = new Uint32Array(other.buffer);
const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
const HIGH = LITTLE_ENDIAN ? 1 : 0;
const LOW = 1 - HIGH;

/** @param previous see `integer-coding.ts` */
export function writeNumbers(out: BitWriter, values: Float64Array, previous: Int32Array | null): void {
  if (values.length === 0) return;
  const scale = decimalScale(values);
  out.reserve(16);
  out.write(scale === NO_SCALE ? 0 : 1, 1);
  if (scale === NO_SCALE) writeBits(out, values, previous);
  else writeDecimals(out, values, scale, previous);
}

/** @throws MalformedError on bits that `writeNumbers` cannot have written. */
export function readNumbers(input: BitReader, length: number, previous: Int32Array | null): Float64Array {
  if (length === 0) return new Float64Array(0);
  return input.read(1) === 0 ? readBits(input, length, previous) : readDecimals(input, length, previous);
}

/** Whether every value is a whole number (not -0) that `integer-coding.ts` takes, with room for a difference. */
export function areWhole(values: Float64Array): boolean {
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (!Number.isInteger(value) || Math.abs(value) >= INTEGER_LIMIT / 2 || isNegativeZero(value))
      return false;
  }
  return true;
}

const isNegativeZero = (value: number): boolean => value === 0 && 1 / value < 0;

/** The whole number that `value` is at this scale, or NaN when it is not one, to the ulp. */
function exactDecimal(value: number, power: number): number {
  const whole = Math.round(value * power) + 0;
  const exact = whole / power === value && Math.abs(whole) < INTEGER_LIMIT;
  return exact && (whole !== 0 || !isNegativeZero(value)) ? whole : Number.NaN;
}

/** The whole number that `value` is nearly, or NaN. */
function nearDecimal(value: number, power: number): number {
  const whole = Math.round(value * power) + 0;
  return Math.abs(whole) < INTEGER_LIMIT && Math.abs(ulpsBetween(value, whole / power)) <= ULPS_MAX
    ? whole
    : Number.NaN;
}

/** How many float64 lie from `base` to `value`, counted away from zero; Infinity across zero and for NaN. */
function ulpsBetween(value: number, base: number): number {
  // The sign bits of both zeros differ too, so -0 is never near 0.
  one[0] = value;
  other[0] = base;
  if (oneWords[HIGH]! >>> 31 !== otherWords[HIGH]! >>> 31 || Number.isNaN(value))
    return Number.POSITIVE_INFINITY;
  return (oneWords[HIGH]! - otherWords[HIGH]!) * 2 ** 32 + (oneWords[LOW]! - otherWords[LOW]!);
}

function addUlps(base: number, ulps: number): number {
  one[0] = base;
  const low = oneWords[LOW]! + ulps;
  const carry = Math.floor(low / 2 ** 32);
  oneWords[LOW] = low - carry * 2 ** 32;
  oneWords[HIGH] = oneWords[HIGH]! + carry;
  return one[0];
}

/** The least scale that fits all values but the exceptions allowed, or `NO_SCALE`. */
function decimalScale(values: Float64Array): number {
  const exceptionsMax = Math.floor(values.length / VALUES_PER_EXCEPTION);
  const misfits = new Uint32Array(NO_SCALE + 1);
  let scale = 0;
  let power = 1;
  let above = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (!Number.isNaN(exactDecimal(value, power)) || !Number.isNaN(nearDecimal(value, power))) continue;
    misfits[leastScale(value, scale + 1)]!++;
    above++;
    while (above > exceptionsMax) {
      scale++;
      if (scale === NO_SCALE) return NO_SCALE;
      above -= misfits[scale]!;
      power = powersOfTen[scale]!;
    }
  }
  return scale;
}

function leastScale(value: number, from: number): number {
  for (let scale = from; scale <= SCALE_MAX; scale++) {
    if (!Number.isNaN(nearDecimal(value, powersOfTen[scale]!))) return scale;
  }
  return NO_SCALE;
}

function writeDecimals(
  out: BitWriter,
  values: Float64Array,
  scale: number,
  previous: Int32Array | null,
): void {
  const length = values.length;
  const power = powersOfTen[scale]!;
  const wholes = new Float64Array(length);
  let ulps: Float64Array | null = null;
  const exceptionAt: number[] = [];
  for (let i = 0; i < length; i++) {
    const value = values[i]!;
    let whole = exactDecimal(value, power);
    if (Number.isNaN(whole)) {
      whole = nearDecimal(value, power);
      if (Number.isNaN(whole)) {
        exceptionAt.push(i);
        whole = i > 0 ? wholes[i - 1]! : 0;
      } else {
        ulps ??= new Float64Array(length);
        ulps[i] = ulpsBetween(value, whole / power);
      }
    }
    wholes[i] = whole;
  }
  out.write(scale, 4);
  writeIntegers(out, wholes, length, previous);
  out.reserve(16);
  out.write(ulps ? 1 : 0, 1);
  if (ulps) writeIntegers(out, ulps, length);
  out.write(exceptionAt.length > 0 ? 1 : 0, 1);
  if (exceptionAt.length > 0) {
    out.writeCount(exceptionAt.length);
    writeIntegers(out, Float64Array.from(exceptionAt), exceptionAt.length);
    writeBits(
      out,
      Float64Array.from(exceptionAt, at => values[at]!),
      null,
    );
  }
}

function readDecimals(input: BitReader, length: number, previous: Int32Array | null): Float64Array {
  const power = powersOfTen[input.read(4)]!;
  const values = readIntegers(input, length, previous);
  if (power !== 1) for (let i = 0; i < length; i++) values[i]! /= power;
  if (input.read(1) === 1) {
    const ulps = readIntegers(input, length);
    for (let i = 0; i < length; i++) if (ulps[i] !== 0) values[i] = addUlps(values[i]!, ulps[i]!);
  }
  if (input.read(1) === 1) {
    const count = input.readCount(length);
    const exceptionAt = readIntegers(input, count);
    const exceptions = readBits(input, count, null);
    // A place outside the column is no property of a typed array: the write has no effect.
    for (let i = 0; i < count; i++) values[exceptionAt[i]!] = exceptions[i]!;
  }
  return values;
}

/** How many zero bits all low words end in (6 bits), the high words, the low words without those zeros. */
function writeBits(out: BitWriter, values: Float64Array, previous: Int32Array | null): void {
  const length = values.length;
  const words = new Uint32Array(values.buffer, values.byteOffset, length * 2);
  const highs = new Float64Array(length);
  const lows = new Float64Array(length);
  let anyLow = 0;
  for (let i = 0; i < length; i++) {
    highs[i] = words[2 * i + HIGH]!;
    anyLow |= words[2 * i + LOW]!;
  }
  const zeros = anyLow === 0 ? 32 : 31 - Math.clz32(anyLow & -anyLow);
  if (zeros < 32) for (let i = 0; i < length; i++) lows[i] = words[2 * i + LOW]! >>> zeros;
  out.reserve(16);
  out.write(zeros, 6);
  writeIntegers(out, highs, length, previous);
  writeIntegers(out, lows, length);
}

function readBits(input: BitReader, length: number, previous: Int32Array | null): Float64Array {
  const zeros = input.read(6);
  const highs = readIntegers(input, length, previous);
  const lows = readIntegers(input, length);
  const values = new Float64Array(length);
  const words = new Uint32Array(values.buffer);
  for (let i = 0; i < length; i++) {
    words[2 * i + HIGH] = highs[i]!;
    words[2 * i + LOW] = zeros < 32 ? lows[i]! << zeros : 0;
  }
  return values;
}
