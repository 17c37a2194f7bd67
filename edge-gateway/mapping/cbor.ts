/**
 * CBOR into values, after RFC 8949, indefinite lengths included. Pure, and total: it throws {@link Unusable} alone,
 * and allocates nothing on an announced length that the payload cannot hold (F, H).
 *
 * Tags: 1 is a time, 2 and 3 big integers, 4 decimal fractions (RFC 8428 allows them in SenML); any other tag
 * is passed over, as RFC 8949 (3.4) has it for a decoder that does not know one: tag 0 leaves a time as ISO 8601 text.
 */
import { type ByteReader, newByteReader } from './byte-reader.ts';
import {
  DECODER_DEPTH_MAX,
  type Decoded,
  type DecodedMap,
  DecodedTime,
  decodeText,
  setMember,
  Unusable,
} from './decoded.ts';

const NAME = 'CBOR';
const BREAK = 0xff;
const INDEFINITE = 31;

/** @throws Unusable */
export function decodeCbor(payload: Uint8Array): Decoded {
  const reader = newByteReader(payload, NAME);
  const value = readItem(reader, 0);
  if (reader.left > 0) throw new Unusable(`payload is not ${NAME}: ${reader.left} bytes after its end`);
  return value;
}

function readItem(reader: ByteReader, depth: number): Decoded {
  if (depth > DECODER_DEPTH_MAX) throw new Unusable(`nested deeper than ${DECODER_DEPTH_MAX} levels`);
  const initial = reader.u8();
  const major = initial >> 5;
  const info = initial & 31;
  if (major === 7) return readSimple(reader, info);
  if (info === INDEFINITE) return readIndefinite(reader, major, depth);
  const argument = readArgument(reader, info);
  if (major === 0) return argument;
  if (major === 1) return typeof argument === 'bigint' ? -1n - argument : -1 - argument;
  if (major === 6) return readTagged(argument, readItem(reader, depth + 1));
  const length = Number(argument);
  if (length * (major === 5 ? 2 : 1) > reader.left) {
    throw new Unusable(`payload is not ${NAME}: it ends too early`);
  }
  if (major === 2) return reader.take(length);
  if (major === 3) return decodeText(reader.take(length));
  if (major === 4) {
    const array: Decoded[] = [];
    for (let i = 0; i < length; i++) array.push(readItem(reader, depth + 1));
    return array;
  }
  const map: DecodedMap = Object.create(null);
  for (let i = 0; i < length; i++) readMember(reader, map, depth);
  return map;
}

function readMember(reader: ByteReader, map: DecodedMap, depth: number): void {
  const key = readItem(reader, depth + 1);
  setMember(map, key, readItem(reader, depth + 1));
}

/** A bigint only where a number would not be exact. */
function readArgument(reader: ByteReader, info: number): number | bigint {
  const { view } = reader;
  if (info < 24) return info;
  if (info === 24) return reader.u8();
  if (info === 25) return view.getUint16(reader.skip(2));
  if (info === 26) return view.getUint32(reader.skip(4));
  if (info === 27) {
    const value = view.getBigUint64(reader.skip(8));
    return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;
  }
  throw new Unusable(`payload is not ${NAME}: additional information ${info} is reserved`);
}

function readSimple(reader: ByteReader, info: number): Decoded {
  const { view } = reader;
  if (info === 20 || info === 21) return info === 21;
  if (info === 22) return null;
  if (info === 23) return undefined;
  if (info === 25) return halfFloat(view.getUint16(reader.skip(2)));
  if (info === 26) return view.getFloat32(reader.skip(4));
  if (info === 27) return view.getFloat64(reader.skip(8));
  throw new Unusable(
    info === INDEFINITE
      ? `payload is not ${NAME}: a break where a value should be`
      : 'a CBOR simple value that has no meaning here',
  );
}

function halfFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function readIndefinite(reader: ByteReader, major: number, depth: number): Decoded {
  const more = (): boolean => {
    if (reader.peek() !== BREAK) return true;
    reader.u8();
    return false;
  };
  if (major === 2 || major === 3) {
    const chunks: Uint8Array[] = [];
    while (more()) {
      const initial = reader.u8();
      if (initial >> 5 !== major || (initial & 31) === INDEFINITE) {
        throw new Unusable(`payload is not ${NAME}: a chunk of another type`);
      }
      chunks.push(reader.take(Number(readArgument(reader, initial & 31))));
      if (major === 3) decodeText(chunks.at(-1)!);
    }
    const bytes = Buffer.concat(chunks);
    return major === 2 ? bytes : decodeText(bytes);
  }
  if (major === 4) {
    const array: Decoded[] = [];
    while (more()) array.push(readItem(reader, depth + 1));
    return array;
  }
  if (major === 5) {
    const map: DecodedMap = Object.create(null);
    while (more()) readMember(reader, map, depth);
    return map;
  }
  throw new Unusable(`payload is not ${NAME}: an integer or tag of indefinite length`);
}

/** Digits of a decimal fraction's exponent and bytes of a big integer: beyond, no 64-bit float holds the value anyway. */
const EXPONENT_MAX = 1100;
const BIG_INTEGER_BYTES_MAX = 128;

function readTagged(tag: number | bigint, content: Decoded): Decoded {
  if (tag === 1 && typeof content === 'number') return new DecodedTime(content * 1000);
  if ((tag === 2 || tag === 3) && content instanceof Uint8Array) {
    if (content.length > BIG_INTEGER_BYTES_MAX) throw new Unusable(`an integer of ${content.length} bytes`);
    const magnitude = content.length === 0 ? 0n : BigInt(`0x${Buffer.from(content).toString('hex')}`);
    return tag === 2 ? magnitude : -1n - magnitude;
  }
  if (tag === 4 && Array.isArray(content) && content.length === 2) {
    const [exponent, mantissa] = content;
    if (typeof exponent === 'number' && Math.abs(exponent) <= EXPONENT_MAX && isInteger(mantissa)) {
      return Number(`${mantissa}e${exponent}`);
    }
  }
  if (tag === 1 || tag === 2 || tag === 3 || tag === 4) {
    throw new Unusable(`payload is not ${NAME}: tag ${tag} on something else`);
  }
  return content;
}

const isInteger = (value: Decoded): value is number | bigint =>
  typeof value === 'bigint' || Number.isSafeInteger(value);
