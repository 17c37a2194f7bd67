/**
 * The wire format of Protocol Buffers (https://protobuf.dev/programming-guides/encoding): tags, varints, lengths. Total:
 * it throws {@link Unusable} alone (H), and allocates nothing on an announced length that the payload cannot hold (F).
 */
import type { ByteReader } from './byte-reader.ts';
import { DECODER_DEPTH_MAX, Unusable } from './decoded.ts';

export const WIRE = { varint: 0, fixed64: 1, bytes: 2, startGroup: 3, endGroup: 4, fixed32: 5 } as const;

/** Numbers are exact; a bigint stands only where a number would not be. */
export type Integer = number | bigint;

/** @returns an unsigned integer of at most 64 bits */
export function readVarint(reader: ByteReader): Integer {
  let value = 0;
  let factor = 1;
  // Seven groups of seven bits stay exact in a number.
  for (let group = 0; group < 7; group++) {
    const byte = reader.u8();
    value += (byte & 0x7f) * factor;
    if (byte < 0x80) return value;
    factor *= 128;
  }
  let high = 0n;
  for (let group = 7; group < 10; group++) {
    const byte = reader.u8();
    high |= BigInt(byte & 0x7f) << BigInt(7 * (group - 7));
    if (byte < 0x80) return exact(BigInt.asUintN(64, BigInt(value) | (high << 49n)));
  }
  throw new Unusable('payload is not Protobuf: an integer of more than 10 bytes');
}

/** The same integer, as a number where that is exact. */
export const exact = (value: bigint): Integer =>
  value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER)
    ? Number(value)
    : value;

/** The low `bits` of an integer, read as two's complement. */
export function signed(value: Integer, bits: 8 | 16 | 32 | 64): Integer {
  if (bits === 64 || typeof value === 'bigint') return exact(BigInt.asIntN(bits, BigInt(value)));
  const rest = value % 2 ** bits;
  return rest >= 2 ** (bits - 1) ? rest - 2 ** bits : rest;
}

/** @returns the tag: three bits of wire type below the field's number. @throws Unusable */
export function readTag(reader: ByteReader): number {
  const tag = readVarint(reader);
  if (typeof tag === 'number' && tag >= 8 && tag < 2 ** 32) return tag;
  throw new Unusable('payload is not Protobuf: a field without a number');
}

export const fieldOf = (tag: number): number => tag >>> 3;
export const wireOf = (tag: number): number => tag & 7;

/** @throws Unusable when the bytes are not there */
export function readLengthDelimited(reader: ByteReader): Uint8Array {
  const length = readVarint(reader);
  if (typeof length !== 'number' || length > reader.left) {
    throw new Unusable('payload is not Protobuf: it ends too early');
  }
  return reader.take(length);
}

/** Passes over a field that nobody knows. @throws Unusable */
export function skipField(reader: ByteReader, tag: number, depth = 0): void {
  switch (wireOf(tag)) {
    case WIRE.varint:
      readVarint(reader);
      return;
    case WIRE.fixed64:
      reader.skip(8);
      return;
    case WIRE.bytes:
      readLengthDelimited(reader);
      return;
    case WIRE.fixed32:
      reader.skip(4);
      return;
    case WIRE.startGroup:
      skipGroup(reader, fieldOf(tag), depth + 1);
      return;
    default:
      throw new Unusable(`payload is not Protobuf: wire type ${wireOf(tag)}`);
  }
}

function skipGroup(reader: ByteReader, field: number, depth: number): void {
  if (depth > DECODER_DEPTH_MAX) throw new Unusable(`nested deeper than ${DECODER_DEPTH_MAX} levels`);
  for (;;) {
    const tag = readTag(reader);
    if (wireOf(tag) !== WIRE.endGroup) skipField(reader, tag, depth);
    else if (fieldOf(tag) === field) return;
    else throw new Unusable('payload is not Protobuf: a group that ends as another');
  }
}
