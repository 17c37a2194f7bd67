/**
 * A dictionary of device names in any order. Fleets number their devices, so a name is split into a prefix and
 * the decimal digits at its end: `dev-0042` is (`dev-`, 4 digits, 42). The names are written in sorted order, where numbers
 * rise by small steps, and then the permutation that puts them back. Prefixes travel as text, apart.
 */
import type { BitReader, BitWriter } from './bit-stream.ts';
import { MalformedError } from './bit-stream.ts';
import { readIntegers, writeIntegers } from './integer-coding.ts';
import { readPermutation, writePermutation } from './order-coding.ts';

const DIGITS_MAX = 15;

/** @returns the distinct prefixes, for the text part of the batch */
export function writeNames(out: BitWriter, names: readonly string[]): string[] {
  const length = names.length;
  const prefixIndex = new Map<string, number>();
  const prefixes = new Float64Array(length);
  const widths = new Float64Array(length);
  const numbers = new Float64Array(length);
  for (let i = 0; i < length; i++) {
    const name = names[i]!;
    const width = digitsAtEnd(name);
    const prefix = name.slice(0, name.length - width);
    let index = prefixIndex.get(prefix);
    if (index === undefined) {
      index = prefixIndex.size;
      prefixIndex.set(prefix, index);
    }
    prefixes[i] = index;
    widths[i] = width;
    numbers[i] = width === 0 ? 0 : Number(name.slice(-width));
  }
  const sorted = sortedNames(prefixes, widths, numbers);
  for (const column of [prefixes, widths, numbers]) {
    const inOrder = new Float64Array(length);
    for (let rank = 0; rank < length; rank++) inOrder[rank] = column[sorted[rank]!]!;
    writeIntegers(out, inOrder, length);
  }
  const order = new Uint32Array(length);
  for (let rank = 0; rank < length; rank++) order[sorted[rank]!] = rank;
  writePermutation(out, order);
  return [...prefixIndex.keys()];
}

/** The indexes of the names in the order of prefix, width, number. */
function sortedNames(prefixes: Float64Array, widths: Float64Array, numbers: Float64Array): Uint32Array {
  const length = prefixes.length;
  const sorted = new Uint32Array(length);
  const keys = new Float64Array(length);
  let largest = 0;
  for (let i = 0; i < length; i++) largest = Math.max(largest, numbers[i]!);
  const weight = largest + 1;
  let largestKey = 0;
  for (let i = 0; i < length; i++) {
    keys[i] = ((prefixes[i]! * (DIGITS_MAX + 1) + widths[i]!) * weight + numbers[i]!) * length + i;
    largestKey = Math.max(largestKey, keys[i]!);
  }
  if (largestKey < Number.MAX_SAFE_INTEGER) {
    // All of a name in one number, its index at the end: sorting numbers is several times faster than comparing names.
    keys.sort();
    for (let rank = 0; rank < length; rank++) sorted[rank] = keys[rank]! % length;
    return sorted;
  }
  for (let i = 0; i < length; i++) sorted[i] = i;
  return sorted.sort(
    (a, b) => prefixes[a]! - prefixes[b]! || widths[a]! - widths[b]! || numbers[a]! - numbers[b]!,
  );
}

/** @throws MalformedError on bits that `writeNames` cannot have written. */
export function readNames(input: BitReader, length: number, prefixes: readonly string[]): string[] {
  const prefixIndex = readIntegers(input, length);
  const widths = readIntegers(input, length);
  const numbers = readIntegers(input, length);
  const order = readPermutation(input, length);
  input.assertInside();
  const names: string[] = new Array(length);
  for (let i = 0; i < length; i++) {
    const rank = order[i]!;
    const prefix = prefixes[prefixIndex[rank]!];
    const width = widths[rank]!;
    const number = numbers[rank]!;
    if (prefix === undefined) throw new MalformedError('a name without its prefix');
    if (!(width >= 0 && width <= DIGITS_MAX && number >= 0 && number < 10 ** width)) {
      throw new MalformedError('a name whose number does not fit');
    }
    const digits = String(number);
    if (width === 0) names[i] = prefix;
    else names[i] = prefix + (digits.length === width ? digits : digits.padStart(width, '0'));
  }
  return names;
}

function digitsAtEnd(name: string): number {
  let start = name.length;
  while (start > 0 && name.length - start < DIGITS_MAX) {
    const code = name.charCodeAt(start - 1);
    if (code < 48 || code > 57) break;
    start--;
  }
  return name.length - start;
}
