/**
 * A column of whole numbers as bits. Each column is tried under three predictions and takes the one that leaves the least
 * to write; what is left is written as `run-coding.ts` does.
 *
 *   plain     none
 *   delta     the value before it; the first apart
 *   grouped   the value before it in its group; the first of each group apart, as a column of their own
 *
 * `previous[i]` is the index of the value before i in i's group (the same device), or -1. Values are safe integers with
 * |value| < 2^51 (`INTEGER_LIMIT`).
 */
import type { BitReader, BitWriter } from './bit-stream.ts';
import { bitLength, MalformedError } from './bit-stream.ts';
import { isConstant, type Plan, parameterBits, planFor, readRun, writeRun } from './run-coding.ts';

/** Integers in a column are below this in magnitude, so that differences and spans stay exact. */
export const INTEGER_LIMIT = 2 ** 51;

const Prediction = { plain: 0, delta: 1, grouped: 2 } as const;

/** Buffers for the columns in hand, grown to the longest seen; a column's length is bounded by the batch limits. */
const scratch = {
  deltas: new Float64Array(1024),
  firsts: new Float64Array(1024),
  rest: new Float64Array(1024),
};

function buffer(name: keyof typeof scratch, length: number): Float64Array {
  if (scratch[name].length < length) scratch[name] = new Float64Array(2 ** bitLength(length));
  return scratch[name];
}

/** @param values whole numbers below {@link INTEGER_LIMIT} in magnitude; their number is not written */
export function writeIntegers(
  out: BitWriter,
  values: Float64Array,
  length: number,
  previous: Int32Array | null = null,
): void {
  if (length === 0) return;
  const { prediction, plan } = chooseCoding(values, length, previous);
  out.reserve(length * 10 + 64);
  out.write(prediction, 2);
  if (prediction === Prediction.delta) {
    out.writeSigned(values[0]!);
    writeRun(out, plan, differences(values, length), length - 1);
  } else if (prediction === Prediction.grouped) {
    const firsts = splitGroups(values, length, previous!);
    writeIntegers(out, buffer('firsts', 0), firsts);
    writeRun(out, plan, buffer('rest', 0), length - firsts);
  } else {
    writeRun(out, plan, values, length);
  }
}

/** About how many bits `writeIntegers` would take. */
export function integersBits(values: Float64Array, length: number, previous: Int32Array | null): number {
  return length === 0 ? 0 : chooseCoding(values, length, previous).bits;
}

/** @throws MalformedError on bits that `writeIntegers` cannot have written. */
export function readIntegers(
  input: BitReader,
  length: number,
  previous: Int32Array | null = null,
): Float64Array {
  const values = new Float64Array(length);
  if (length === 0) return values;
  const prediction = input.read(2);
  if (prediction === Prediction.plain) {
    readRun(input, values, 0, length);
  } else if (prediction === Prediction.delta) {
    values[0] = input.readSigned();
    readRun(input, values, 1, length);
    for (let i = 1; i < length; i++) values[i]! += values[i - 1]!;
  } else if (prediction === Prediction.grouped && previous) {
    let firstCount = 0;
    for (let i = 0; i < length; i++) if (previous[i]! < 0) firstCount++;
    const firsts = readIntegers(input, firstCount);
    const rest = buffer('rest', length - firstCount);
    readRun(input, rest, 0, length - firstCount);
    for (let i = 0, first = 0, next = 0; i < length; i++) {
      const before = previous[i]!;
      values[i] = before < 0 ? firsts[first++]! : values[before]! + rest[next++]!;
    }
  } else {
    throw new MalformedError(`no prediction has the number ${prediction} here`);
  }
  input.assertInside();
  return values;
}

function chooseCoding(values: Float64Array, length: number, previous: Int32Array | null) {
  const plain = planFor(values, length, true);
  let best: { prediction: number; plan: Plan; bits: number } = {
    prediction: Prediction.plain,
    plan: plain,
    bits: plain.bits,
  };
  if (isConstant(plain) || length < 3) return best;

  const delta = planFor(differences(values, length), length - 1, true);
  const deltaBits = delta.bits + parameterBits(values[0]!);
  if (deltaBits < best.bits) best = { prediction: Prediction.delta, plan: delta, bits: deltaBits };

  if (previous) {
    const firsts = splitGroups(values, length, previous);
    // With one group it is the delta again, with none that repeats, plain.
    if (firsts > 1 && firsts < length) {
      const rest = planFor(buffer('rest', 0), length - firsts, true);
      const bits = rest.bits + planFor(buffer('firsts', 0), firsts, true).bits;
      if (bits < best.bits) best = { prediction: Prediction.grouped, plan: rest, bits };
    }
  }
  return best;
}

function differences(values: Float64Array, length: number): Float64Array {
  const deltas = buffer('deltas', length);
  for (let i = 1; i < length; i++) deltas[i - 1] = values[i]! - values[i - 1]!;
  return deltas;
}

/** Leaves the first value of each group in `firsts`, the steps within groups in `rest`; @returns how many groups. */
function splitGroups(values: Float64Array, length: number, previous: Int32Array): number {
  const firsts = buffer('firsts', length);
  const rest = buffer('rest', length);
  let groups = 0;
  for (let i = 0; i < length; i++) {
    const before = previous[i]!;
    if (before < 0) firsts[groups++] = values[i]!;
    else rest[i - groups] = values[i]! - values[before]!;
  }
  return groups;
}
