/**
 * Orders as numbers. Both codes keep a list, name an item by its place in it and then move it, so that what is likely
 * has a small number:
 *
 *   permutation   the item leaves the list: n items take log2(n!) bits, the least there is.
 *   recency       the item goes to the end of the list: devices that report in turn give place 0 each time, a few that
 *                 overtake each other give 1, 2, 3.
 *
 * A Fenwick tree over the slots of the list finds place of slot and slot of place in log time.
 */
import type { BitReader, BitWriter } from './bit-stream.ts';
import { MalformedError } from './bit-stream.ts';
import { readIntegers, writeIntegers } from './integer-coding.ts';
import { readUniform, writeUniform } from './run-coding.ts';

/** @param order holds 0 … length - 1, each once */
export function writePermutation(out: BitWriter, order: Uint32Array): void {
  out.reserve(16 + order.length * 4);
  const sorted = order.every((item, i) => item === i);
  out.write(sorted ? 0 : 1, 1);
  if (sorted) return;
  const slots = createSlots(order.length, order.length);
  for (let i = 0; i < order.length; i++) {
    writeUniform(out, placeOf(slots, order[i]!), order.length - i);
    shift(slots, order[i]!, -1);
  }
}

export function readPermutation(input: BitReader, length: number): Uint32Array {
  const order = new Uint32Array(length);
  if (input.read(1) === 0) {
    for (let i = 0; i < length; i++) order[i] = i;
    return order;
  }
  const slots = createSlots(length, length);
  for (let i = 0; i < length; i++) {
    const item = slotAt(slots, readUniform(input, length - i));
    order[i] = item;
    shift(slots, item, -1);
  }
  return order;
}

/** @param items each below `kinds` */
export function writeRecency(out: BitWriter, items: Uint32Array, kinds: number): void {
  const slots = createSlots(kinds + items.length, kinds);
  const slotOf = Uint32Array.from({ length: kinds }, (_, kind) => kind);
  const places = new Float64Array(items.length);
  for (let i = 0; i < items.length; i++) {
    const slot = slotOf[items[i]!]!;
    places[i] = placeOf(slots, slot);
    shift(slots, slot, -1);
    shift(slots, kinds + i, 1);
    slotOf[items[i]!] = kinds + i;
  }
  writeIntegers(out, places, places.length);
}

/** @throws MalformedError on bits that `writeRecency` cannot have written. */
export function readRecency(input: BitReader, length: number, kinds: number): Uint32Array {
  const places = readIntegers(input, length);
  const slots = createSlots(kinds + length, kinds);
  const itemIn = new Uint32Array(kinds + length);
  for (let kind = 0; kind < kinds; kind++) itemIn[kind] = kind;
  const items = new Uint32Array(length);
  for (let i = 0; i < length; i++) {
    const place = places[i]!;
    if (!(place >= 0 && place < kinds)) throw new MalformedError('an item that is not in the list');
    const slot = slotAt(slots, place);
    const item = itemIn[slot]!;
    items[i] = item;
    shift(slots, slot, -1);
    shift(slots, kinds + i, 1);
    itemIn[kinds + i] = item;
  }
  return items;
}

/** A Fenwick tree: entry i (from 1) holds how many of the slots (i - lowest bit of i, i] are taken. */
function createSlots(length: number, taken: number): Int32Array {
  const tree = new Int32Array(length + 1);
  for (let i = 1; i <= length; i++) {
    const first = i - (i & -i);
    tree[i] = Math.max(0, Math.min(i, taken) - first);
  }
  return tree;
}

function shift(tree: Int32Array, slot: number, by: number): void {
  for (let i = slot + 1; i < tree.length; i += i & -i) tree[i]! += by;
}

/** How many taken slots come before `slot`. */
function placeOf(tree: Int32Array, slot: number): number {
  let place = 0;
  for (let i = slot; i > 0; i -= i & -i) place += tree[i]!;
  return place;
}

/** The taken slot that `place` taken slots come before. */
function slotAt(tree: Int32Array, place: number): number {
  let slot = 0;
  let left = place;
  for (let step = 1 << (31 - Math.clz32(tree.length)); step > 0; step >>= 1) {
    const next = slot + step;
    if (next < tree.length && tree[next]! <= left) {
      slot = next;
      left -= tree[next]!;
    }
  }
  return slot;
}
