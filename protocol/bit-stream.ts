/**
 * Bits in bytes, least significant bit first. The writer grows its one buffer and is meant to be used again; the
 * reader never reads past its end: it gives zeros there and `assertInside` tells.
 */

/** What a decoder throws on bytes that no encoder wrote; `decodeBatch` turns it into an outcome. */
export class MalformedError extends Error {}

const CHUNK_BITS = 24;
const CHUNK = 2 ** CHUNK_BITS;

export class BitWriter {
  private bytes = new Uint8Array(4096);
  private position = 0;
  private pending = 0;
  private pendingBits = 0;

  reset(): void {
    this.position = 0;
    this.pending = 0;
    this.pendingBits = 0;
  }

  /** Makes room for `bytes` more; every writer of many values calls it once, so that `write` need not look. */
  reserve(bytes: number): void {
    const needed = this.position + bytes + 16;
    if (needed <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2));
    grown.set(this.bytes.subarray(0, this.position));
    this.bytes = grown;
  }

  /** @param bits 0 to 24; 0 ≤ value < 2^bits */
  write(value: number, bits: number): void {
    this.pending |= value << this.pendingBits;
    this.pendingBits += bits;
    while (this.pendingBits >= 8) {
      this.bytes[this.position++] = this.pending;
      this.pending >>>= 8;
      this.pendingBits -= 8;
    }
  }

  /** @param bits 0 to 54; 0 ≤ value < 2^bits and value ≤ 2^53 */
  writeWide(value: number, bits: number): void {
    let rest = value;
    let left = bits;
    while (left > CHUNK_BITS) {
      const high = Math.floor(rest / CHUNK);
      this.write(rest - high * CHUNK, CHUNK_BITS);
      rest = high;
      left -= CHUNK_BITS;
    }
    this.write(rest, left);
  }

  /** A whole number up to 2^53: its length in 6 bits, then its bits. */
  writeCount(value: number): void {
    this.reserve(8);
    const bits = bitLength(value);
    this.write(bits, 6);
    this.writeWide(value, bits);
  }

  /** A whole number of either sign up to 2^53: its sign, then its magnitude. */
  writeSigned(value: number): void {
    this.reserve(16);
    this.write(value < 0 ? 1 : 0, 1);
    this.writeCount(Math.abs(value));
  }

  /** What was written, the last byte filled up with zeros; valid until the next `reset`. */
  finish(): Uint8Array {
    if (this.pendingBits > 0) this.write(0, 8 - this.pendingBits);
    return this.bytes.subarray(0, this.position);
  }
}

export class BitReader {
  private readonly bytes: Uint8Array;
  private position = 0;
  private pending = 0;
  private pendingBits = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  private refill(): void {
    while (this.pendingBits <= 24) {
      const byte = this.position < this.bytes.length ? this.bytes[this.position]! : 0;
      this.pending |= byte << this.pendingBits;
      this.position++;
      this.pendingBits += 8;
    }
  }

  /** @param bits 0 to 24 */
  read(bits: number): number {
    if (this.pendingBits < bits) this.refill();
    const value = this.pending & ((1 << bits) - 1);
    this.pending = (this.pending >>> bits) | 0;
    this.pendingBits -= bits;
    return value;
  }

  /** @param bits 0 to 54 */
  readWide(bits: number): number {
    let value = 0;
    let weight = 1;
    let left = bits;
    while (left > CHUNK_BITS) {
      value += this.read(CHUNK_BITS) * weight;
      weight *= CHUNK;
      left -= CHUNK_BITS;
    }
    return value + this.read(left) * weight;
  }

  /** How many ones come before the next zero, which is taken too; at `most` ones it stops without a zero. At most 22. */
  readOnes(most: number): number {
    if (this.pendingBits < 24) this.refill();
    const zeros = ~this.pending;
    const ones = zeros === 0 ? 32 : 31 - Math.clz32(zeros & -zeros);
    const taken = ones < most ? ones + 1 : most;
    this.pending = (this.pending >>> taken) | 0;
    this.pendingBits -= taken;
    return Math.min(ones, most);
  }

  /** @throws MalformedError when the number is over `max`. */
  readCount(max: number): number {
    const bits = this.read(6);
    const value = bits <= 54 ? this.readWide(bits) : Number.POSITIVE_INFINITY;
    if (value > max) throw new MalformedError(`a count of ${value} where ${max} is the most`);
    return value;
  }

  readSigned(): number {
    const negative = this.read(1) === 1;
    const magnitude = this.readCount(2 ** 53);
    return negative && magnitude > 0 ? -magnitude : magnitude;
  }

  /** @throws MalformedError when more bits were read than there are. */
  assertInside(): void {
    if (this.bitsRead() > this.bytes.length * 8) throw new MalformedError('the columns end too soon');
  }

  /** @throws MalformedError unless all was read, but for the bits that fill the last byte. */
  assertEnd(): void {
    this.assertInside();
    if (this.bytes.length * 8 - this.bitsRead() >= 8) throw new MalformedError('bytes after the last column');
  }

  private bitsRead(): number {
    return this.position * 8 - this.pendingBits;
  }
}

/** Bits that a whole number ≥ 0 takes; 0 takes none. */
export function bitLength(value: number): number {
  if (value < 2 ** 32) return 32 - Math.clz32(value);
  return 64 - Math.clz32(Math.floor(value / 2 ** 32));
}
