/**
 * MessagePack into values, after https://github.com/msgpack/msgpack/blob/master/spec.md. Pure, and total: it throws
 * {@link Unusable} alone. Written out rather than taken from msgpackr, because a payload comes from anybody: here no
 * extension runs code, no key is renamed, a key that comes twice is seen, and nothing is allocated on an announced
 * length that the payload cannot hold (F, H).
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

const NAME = 'msgpack';
const TIMESTAMP = -1;

/** @throws Unusable */
export function decodeMsgpack(payload: Uint8Array): Decoded {
  const reader = newByteReader(payload, NAME);
  const value = readValue(reader, 0);
  if (reader.left > 0) throw new Unusable(`payload is not ${NAME}: ${reader.left} bytes after its end`);
  return value;
}

function readValue(reader: ByteReader, depth: number): Decoded {
  const { view } = reader;
  const type = reader.u8();
  if (type <= 0x7f) return type;
  if (type <= 0x8f) return readMap(reader, type & 0x0f, depth);
  if (type <= 0x9f) return readArray(reader, type & 0x0f, depth);
  if (type <= 0xbf) return decodeText(reader.take(type & 0x1f));
  if (type >= 0xe0) return type - 0x100;
  const length = (bytes: 1 | 2 | 4): number => unsigned(view, reader.skip(bytes), bytes);
  switch (type) {
    case 0xc0:
      return null;
    case 0xc2:
      return false;
    case 0xc3:
      return true;
    case 0xc4:
      return reader.take(length(1));
    case 0xc5:
      return reader.take(length(2));
    case 0xc6:
      return reader.take(length(4));
    case 0xc7:
      return readExtension(reader, length(1));
    case 0xc8:
      return readExtension(reader, length(2));
    case 0xc9:
      return readExtension(reader, length(4));
    case 0xca:
      return view.getFloat32(reader.skip(4));
    case 0xcb:
      return view.getFloat64(reader.skip(8));
    case 0xcc:
      return length(1);
    case 0xcd:
      return length(2);
    case 0xce:
      return length(4);
    case 0xcf:
      return view.getBigUint64(reader.skip(8));
    case 0xd0:
      return view.getInt8(reader.skip(1));
    case 0xd1:
      return view.getInt16(reader.skip(2));
    case 0xd2:
      return view.getInt32(reader.skip(4));
    case 0xd3:
      return view.getBigInt64(reader.skip(8));
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
      return readExtension(reader, 1 << (type - 0xd4));
    case 0xd9:
      return decodeText(reader.take(length(1)));
    case 0xda:
      return decodeText(reader.take(length(2)));
    case 0xdb:
      return decodeText(reader.take(length(4)));
    case 0xdc:
      return readArray(reader, length(2), depth);
    case 0xdd:
      return readArray(reader, length(4), depth);
    case 0xde:
      return readMap(reader, length(2), depth);
    case 0xdf:
      return readMap(reader, length(4), depth);
    default:
      throw new Unusable(`payload is not ${NAME}: no value starts with byte 0x${type.toString(16)}`);
  }
}

function unsigned(view: DataView, at: number, bytes: 1 | 2 | 4): number {
  if (bytes === 1) return view.getUint8(at);
  return bytes === 2 ? view.getUint16(at) : view.getUint32(at);
}

function readArray(reader: ByteReader, count: number, depth: number): Decoded[] {
  enter(reader, count, depth);
  const array: Decoded[] = [];
  for (let i = 0; i < count; i++) array.push(readValue(reader, depth + 1));
  return array;
}

function readMap(reader: ByteReader, count: number, depth: number): DecodedMap {
  enter(reader, 2 * count, depth);
  const map: DecodedMap = Object.create(null);
  for (let i = 0; i < count; i++) {
    const key = readValue(reader, depth + 1);
    setMember(map, key, readValue(reader, depth + 1));
  }
  return map;
}

/** Every value takes a byte at least. */
function enter(reader: ByteReader, values: number, depth: number): void {
  if (depth >= DECODER_DEPTH_MAX) throw new Unusable(`nested deeper than ${DECODER_DEPTH_MAX} levels`);
  if (values > reader.left) throw new Unusable(`payload is not ${NAME}: it ends too early`);
}

function readExtension(reader: ByteReader, length: number): Decoded {
  const type = reader.view.getInt8(reader.skip(1));
  const { view } = reader;
  const at = reader.skip(length);
  if (type !== TIMESTAMP) throw new Unusable(`msgpack extension type ${type} has no meaning here`);
  if (length === 4) return new DecodedTime(view.getUint32(at) * 1000);
  if (length === 8) {
    const packed = view.getBigUint64(at);
    return new DecodedTime(Number(packed & 0x3_ffff_ffffn) * 1000 + Number(packed >> 34n) / 1e6);
  }
  if (length === 12) {
    return new DecodedTime(Number(view.getBigInt64(at + 4)) * 1000 + view.getUint32(at) / 1e6);
  }
  throw new Unusable(`a msgpack timestamp of ${length} bytes`);
}
