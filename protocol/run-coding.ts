/**
 * A run of whole numbers as bits, under the code that comes out shortest:
 *
 *   constant  all equal: the value
 *   uniform   even between two bounds: least, step, span, truncated binary code
 *   rice      one tail, from the least value up: least, step, k, Rice code
 *   around    two tails, around the mean: centre, step, k, zigzag, Rice code
 *   sparse    nearly all equal: the value, gaps and exceptions
 *
 * The step is the greatest common divisor: 1000 for times in whole seconds; a bit says whether it is not 1. A Rice code
 * is a quotient of ones ended by a zero, then k low bits; `ESCAPE` ones mean 54 bits verbatim. It is within 2 % of the
 * entropy for geometric and for Gaussian columns, which is why nothing heavier (an arithmetic coder) is here.
 *
 * Reading is bounded by the length asked for: each value takes constant time.
 */
import type { BitReader, BitWriter } from './bit-stream.ts';
import { bitLength, MalformedError } from './bit-stream.ts';

const Code = { constant: 0, uniform: 1, rice: 2, around: 3, sparse: 4 } as const;

const ESCAPE = 22;
const VERBATIM_BITS = 54;
const SHIFT_MAX = 52;
/** Steps that span more than this are never chosen: folding them would not be exact. Plain values always span less. */
const SPAN_MAX = 2 ** 52;
/** A constant, a bound or a centre: sign, length and bits. Only for comparing. */
export const parameterBits = (value: number): number => 7 + bitLength(Math.abs(value));

/** How to write a run of numbers: the code, its parameters and about how many bits it takes. */
export interface Plan {
  readonly code: number;
  readonly base: number;
  /** All values are `base` plus a multiple of it. */
  readonly step: number;
  /** uniform: span; rice, around: k. */
  readonly parameter: number;
  readonly bits: number;
}

export const isConstant = (plan: Plan): boolean => plan.code === Code.constant;

/** A whole number known to lie in 0 ≤ value < span (≤ 2^52), in ⌊log2 span⌋ bits or one more. */
export function writeUniform(out: BitWriter, value: number, span: number): void {
  const bits = bitLength(span) - 1;
  writeTruncated(out, value, bits, powerOfTwo(bits + 1) - span);
}

/** @returns a number below `span`, whatever the bits. */
export function readUniform(input: BitReader, span: number): number {
  const bits = bitLength(span) - 1;
  return readTruncated(input, bits, powerOfTwo(bits + 1) - span);
}

/** Truncated binary code: the least `short` values take `bits` bits, the others one more. */
function writeTruncated(out: BitWriter, value: number, bits: number, short: number): void {
  if (value < short) {
    out.writeWide(value, bits);
    return;
  }
  const half = Math.floor((value + short) / 2);
  out.writeWide(half, bits);
  out.write(value + short - 2 * half, 1);
}

function readTruncated(input: BitReader, bits: number, short: number): number {
  const value = input.readWide(bits);
  return value < short ? value : value * 2 + input.read(1) - short;
}

const powerOfTwo = (exponent: number): number => (exponent < 31 ? 1 << exponent : 2 ** exponent);

/** Chooses the code. @param sparseAllowed false for the parts of a sparse run, which may not nest */
export function planFor(values: Float64Array, length: number, sparseAllowed: boolean): Plan {
  let min = values[0]!;
  let max = min;
  let sum = 0;
  // Boyer and Moore's vote finds the value that more than half have, if there is one.
  let common = min;
  let votes = 0;
  for (let i = 0; i < length; i++) {
    const value = values[i]!;
    if (value < min) min = value;
    if (value > max) max = value;
    sum += value;
    if (value === common) votes++;
    else if (votes === 0) {
      common = value;
      votes = 1;
    } else votes--;
  }
  if (min === max) {
    return { code: Code.constant, base: min, step: 1, parameter: 0, bits: 3 + parameterBits(min) };
  }
  if (max - min >= SPAN_MAX) {
    return { code: Code.uniform, base: min, step: 1, parameter: 0, bits: Number.POSITIVE_INFINITY };
  }
  const step = commonStep(values, length, min);
  const mean = (sum / length - min) / step;
  const centre = min + step * Math.round(mean);
  let spread = 0;
  for (let i = 0; i < length; i++) spread += Math.abs(values[i]! - centre);

  const span = (max - min) / step + 1;
  const head = 4 + parameterBits(min) + (step === 1 ? 0 : parameterBits(step));
  let best: Plan = {
    code: Code.uniform,
    base: min,
    step,
    parameter: span,
    bits: head + bitLength(span) + length * Math.log2(span),
  };
  const consider = (code: number, base: number, parameter: number, bits: number): void => {
    if (bits < best.bits) best = { code, base, step, parameter, bits };
  };
  const rise = bestShift(mean);
  consider(Code.rice, min, rise, head + length * riceBits(mean, rise));
  const folded = (2 * spread) / length / step;
  const swing = bestShift(folded);
  consider(Code.around, centre, swing, head + length * riceBits(folded, swing));

  if (sparseAllowed && votes > 0) {
    let exceptions = 0;
    for (let i = 0; i < length; i++) if (values[i] !== common) exceptions++;
    if (exceptions * 3 < length) {
      const gapBits = Math.log2(length / exceptions) + 1.5;
      const exceptionBits = Math.min(Math.log2(span), Math.log2(1 + (folded * length) / exceptions) + 2);
      consider(Code.sparse, common, exceptions, 60 + head + exceptions * (gapBits + exceptionBits));
    }
  }
  return best;
}

/** The greatest step that leads from `min` to every value: 1000 for times in whole seconds. */
function commonStep(values: Float64Array, length: number, min: number): number {
  let step = 0;
  for (let i = 0; i < length && step !== 1; i++) {
    let rest = values[i]! - min;
    while (rest !== 0) [step, rest] = [rest, step % rest];
  }
  return step;
}

/** Bits that a Rice code takes per value, for values ≥ 0 of that mean that fall off like a geometric series. */
const riceBits = (mean: number, shift: number): number =>
  shift + 1 + 1 / Math.expm1(Math.max(2 ** shift / mean, 1e-6));

function bestShift(mean: number): number {
  const shift = Math.min(SHIFT_MAX, Math.max(1, bitLength(Math.floor(mean))));
  return riceBits(mean, shift) < riceBits(mean, shift - 1) ? shift : shift - 1;
}

export function writeRun(out: BitWriter, plan: Plan, values: Float64Array, length: number): void {
  const { code, base, step, parameter } = plan;
  out.write(code, 3);
  out.writeSigned(base);
  if (code === Code.constant) return;
  if (code === Code.sparse) {
    writeSparse(out, base, parameter, values, length);
    return;
  }
  out.write(step === 1 ? 0 : 1, 1);
  if (step !== 1) out.writeCount(step);
  if (code === Code.uniform) {
    out.writeCount(parameter);
    const bits = bitLength(parameter) - 1;
    const short = powerOfTwo(bits + 1) - parameter;
    for (let i = 0; i < length; i++) writeTruncated(out, (values[i]! - base) / step, bits, short);
    return;
  }
  out.write(parameter, 6);
  for (let i = 0; i < length; i++) {
    const offset = (values[i]! - base) / step;
    // Zigzag: 0, -1, 1, -2, 2 … as 0, 1, 2, 3, 4 …
    const folded = code === Code.rice ? offset : offset < 0 ? -2 * offset - 1 : 2 * offset;
    writeRice(out, folded, parameter);
  }
}

function writeRice(out: BitWriter, value: number, shift: number): void {
  const weight = powerOfTwo(shift);
  const ones = Math.floor(value / weight);
  if (ones >= ESCAPE) {
    out.write((1 << ESCAPE) - 1, ESCAPE);
    out.writeWide(value, VERBATIM_BITS);
  } else if (ones + 1 + shift <= 24) {
    out.write(((1 << ones) - 1) | ((value - ones * weight) << (ones + 1)), ones + 1 + shift);
  } else {
    out.write((1 << ones) - 1, ones + 1);
    out.writeWide(value - ones * weight, shift);
  }
}

function readRice(input: BitReader, shift: number): number {
  const ones = input.readOnes(ESCAPE);
  return ones === ESCAPE ? input.readWide(VERBATIM_BITS) : ones * powerOfTwo(shift) + input.readWide(shift);
}

/** Fills `values` from `start` to `end`. @throws MalformedError on bits that `writeRun` cannot have written. */
export function readRun(
  input: BitReader,
  values: Float64Array,
  start: number,
  end: number,
  sparseAllowed = true,
): void {
  const code = input.read(3);
  const base = input.readSigned();
  if (code === Code.constant) {
    values.fill(base, start, end);
    return;
  }
  if (code === Code.sparse && sparseAllowed) {
    readSparse(input, base, values, start, end);
    return;
  }
  const step = input.read(1) === 0 ? 1 : input.readCount(SPAN_MAX);
  if (code === Code.uniform) {
    const span = input.readCount(SPAN_MAX);
    if (span < 1) throw new MalformedError('an empty span');
    const bits = bitLength(span) - 1;
    const short = powerOfTwo(bits + 1) - span;
    for (let i = start; i < end; i++) values[i] = base + step * readTruncated(input, bits, short);
    return;
  }
  const shift = input.read(6);
  if (shift > SHIFT_MAX) throw new MalformedError(`a Rice code of ${shift} bits`);
  if (code === Code.rice) {
    for (let i = start; i < end; i++) values[i] = base + step * readRice(input, shift);
  } else if (code === Code.around) {
    for (let i = start; i < end; i++) {
      const folded = readRice(input, shift);
      const half = Math.floor(folded / 2);
      values[i] = base + step * (folded === 2 * half ? half : -half - 1);
    }
  } else {
    throw new MalformedError(`no code has the number ${code}`);
  }
}

/** The common value, then how many exceptions, the gaps before each, and the exceptions themselves. */
function writeSparse(
  out: BitWriter,
  common: number,
  count: number,
  values: Float64Array,
  length: number,
): void {
  const gaps = new Float64Array(count);
  const exceptions = new Float64Array(count);
  let found = 0;
  let next = 0;
  for (let i = 0; i < length; i++) {
    if (values[i] === common) continue;
    gaps[found] = i - next;
    exceptions[found++] = values[i]!;
    next = i + 1;
  }
  out.writeCount(count);
  if (count === 0) return;
  writeRun(out, planFor(gaps, count, false), gaps, count);
  writeRun(out, planFor(exceptions, count, false), exceptions, count);
}

function readSparse(
  input: BitReader,
  common: number,
  values: Float64Array,
  start: number,
  end: number,
): void {
  values.fill(common, start, end);
  const count = input.readCount(end - start);
  if (count === 0) return;
  const gaps = new Float64Array(count);
  const exceptions = new Float64Array(count);
  readRun(input, gaps, 0, count, false);
  readRun(input, exceptions, 0, count, false);
  let position = start - 1;
  for (let i = 0; i < count; i++) {
    position += gaps[i]! + 1;
    if (!(gaps[i]! >= 0 && position < end)) throw new MalformedError('an exception outside its column');
    values[position] = exceptions[i]!;
  }
}
