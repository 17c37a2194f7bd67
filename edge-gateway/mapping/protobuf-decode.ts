/**
 * Protobuf payloads into values, by a schema that is data. Pure, and total: it throws {@link Unusable} alone. Nesting,
 * and what a few bytes may grow to, are bounded (F, H).
 *
 * Enums are their names, Timestamp is a time, Duration is seconds, the wrappers (DoubleValue, …) are what they wrap. A
 * field that the schema does not know is passed over, as newer senders may have it.
 */
import { limits } from '../../protocol/limits.ts';
import { type ByteReader, newByteReader } from './byte-reader.ts';
import {
  DECODER_DEPTH_MAX,
  type Decoded,
  type DecodedMap,
  DecodedTime,
  decodeText,
  Unusable,
} from './decoded.ts';
import type { ProtoField, ProtoSchema, Scalar } from './protobuf-schema.ts';
import {
  exact,
  fieldOf,
  type Integer,
  readLengthDelimited,
  readTag,
  readVarint,
  signed,
  skipField,
  WIRE,
  wireOf,
} from './protobuf-wire.ts';

const VALUES_MAX = limits.elementsPerMessageMax * limits.metricsPerElementMax;

interface Decoding {
  readonly schema: ProtoSchema;
  values: number;
}

/** @param message full name of a message of the schema. @throws Unusable */
export function decodeProtobuf(payload: Uint8Array, schema: ProtoSchema, message: string): Decoded {
  return readMessage({ schema, values: 0 }, payload, message, 0);
}

function readMessage(decoding: Decoding, bytes: Uint8Array, name: string, depth: number): Decoded {
  if (depth > DECODER_DEPTH_MAX) throw new Unusable(`nested deeper than ${DECODER_DEPTH_MAX} levels`);
  const fields = decoding.schema.messages[name]!;
  const map: DecodedMap = Object.create(null);
  const reader = newByteReader(bytes, 'Protobuf');
  while (reader.left > 0) {
    const tag = readTag(reader);
    const field = fields[fieldOf(tag)];
    if (field === undefined) skipField(reader, tag);
    else if (field.keys !== null) readEntry(decoding, reader, tag, field, field.keys, map, depth);
    else if (field.repeated) readRepeated(decoding, reader, tag, field, map, depth);
    else map[field.name] = readValue(decoding, reader, tag, field, depth);
  }
  for (const number in fields) {
    const field = fields[number]!;
    if (!field.filled || map[field.name] !== undefined) continue;
    count(decoding);
    map[field.name] = zeroOf(field, decoding.schema);
  }
  return meaningOf(name, map);
}

function count(decoding: Decoding): void {
  if (++decoding.values > VALUES_MAX) throw new Unusable(`more than ${VALUES_MAX} values in one message`);
}

function readRepeated(
  decoding: Decoding,
  reader: ByteReader,
  tag: number,
  field: ProtoField,
  map: DecodedMap,
  depth: number,
): void {
  const known = map[field.name];
  const list: Decoded[] = Array.isArray(known) ? known : [];
  map[field.name] = list;
  const wire = wireOfField(field);
  if (wireOf(tag) !== WIRE.bytes || wire === WIRE.bytes) {
    list.push(readValue(decoding, reader, tag, field, depth));
    return;
  }
  const packed = newByteReader(readLengthDelimited(reader), 'Protobuf');
  while (packed.left > 0) list.push(readValue(decoding, packed, wire, field, depth));
}

function readEntry(
  decoding: Decoding,
  reader: ByteReader,
  tag: number,
  field: ProtoField,
  keyType: Scalar,
  map: DecodedMap,
  depth: number,
): void {
  if (wireOf(tag) !== WIRE.bytes) throw wrongWire(field);
  const entry = newByteReader(readLengthDelimited(reader), 'Protobuf');
  let key: Decoded = keyType === 'string' ? '' : keyType === 'bool' ? false : 0;
  let value: Decoded;
  while (entry.left > 0) {
    const part = readTag(entry);
    if (fieldOf(part) === 1) key = readScalar(entry, part, keyType, field);
    else if (fieldOf(part) === 2) value = readValue(decoding, entry, part, field, depth);
    else skipField(entry, part);
  }
  value ??=
    field.type.is === 'message'
      ? readMessage(decoding, new Uint8Array(), field.type.of, depth + 1)
      : zeroOf(field, decoding.schema);
  const members = (map[field.name] ?? Object.create(null)) as DecodedMap;
  // The last one of a key counts.
  members[String(key)] = value;
  map[field.name] = members;
}

/** @param tag its field number is not looked at, so that a wire type will do */
function readValue(
  decoding: Decoding,
  reader: ByteReader,
  tag: number,
  field: ProtoField,
  depth: number,
): Decoded {
  count(decoding);
  const { type } = field;
  if (type.is === 'scalar') return readScalar(reader, tag, type.of, field);
  if (wireOf(tag) !== wireOfField(field)) throw wrongWire(field);
  if (type.is === 'message') return readMessage(decoding, readLengthDelimited(reader), type.of, depth + 1);
  return nameOf(Number(signed(readVarint(reader), 32)), type.of, decoding.schema);
}

/** A number that the enum does not name stays one. */
const nameOf = (number: number, of: string, schema: ProtoSchema): Decoded =>
  schema.enums[of]?.[number] ?? number;

function zeroOf({ type }: ProtoField, schema: ProtoSchema): Decoded {
  if (type.is === 'enum') return nameOf(0, type.of, schema);
  if (type.of === 'string') return '';
  if (type.of === 'bool') return false;
  return type.of === 'bytes' ? undefined : 0;
}

const fixed32 = new Set<string>(['float', 'fixed32', 'sfixed32']);
const fixed64 = new Set<string>(['double', 'fixed64', 'sfixed64']);

function wireOfField({ type }: ProtoField): number {
  if (type.is !== 'scalar') return type.is === 'enum' ? WIRE.varint : WIRE.bytes;
  return wireOfScalar(type.of);
}

function wireOfScalar(type: Scalar): number {
  if (fixed32.has(type)) return WIRE.fixed32;
  if (fixed64.has(type)) return WIRE.fixed64;
  return type === 'string' || type === 'bytes' ? WIRE.bytes : WIRE.varint;
}

const wrongWire = ({ name }: ProtoField): Unusable =>
  new Unusable(`the field "${name}" is not of the schema's type: is this the right message?`);

function readScalar(reader: ByteReader, tag: number, type: Scalar, field: ProtoField): Decoded {
  if (wireOf(tag) !== wireOfScalar(type)) throw wrongWire(field);
  const { view } = reader;
  switch (type) {
    case 'double':
      return view.getFloat64(reader.skip(8), true);
    case 'float':
      return view.getFloat32(reader.skip(4), true);
    case 'fixed32':
      return view.getUint32(reader.skip(4), true);
    case 'sfixed32':
      return view.getInt32(reader.skip(4), true);
    case 'fixed64':
      return exact(view.getBigUint64(reader.skip(8), true));
    case 'sfixed64':
      return exact(view.getBigInt64(reader.skip(8), true));
    case 'int32':
      return signed(readVarint(reader), 32);
    case 'int64':
      return signed(readVarint(reader), 64);
    case 'uint32':
      return Number(BigInt.asUintN(32, BigInt(readVarint(reader))));
    case 'uint64':
      return readVarint(reader);
    case 'sint32':
    case 'sint64':
      return zigzag(readVarint(reader));
    case 'bool':
      return readVarint(reader) !== 0;
    case 'string':
      return decodeText(readLengthDelimited(reader));
    case 'bytes':
      return readLengthDelimited(reader);
  }
}

function zigzag(value: Integer): Integer {
  const wide = BigInt(value);
  return exact((wide & 1n) === 0n ? wide >> 1n : -(wide >> 1n) - 1n);
}

const WRAPPER = /^google\.protobuf\.(Double|Float|Int64|UInt64|Int32|UInt32|Bool|String|Bytes)Value$/;

/** What Google's own messages mean. */
function meaningOf(name: string, map: DecodedMap): Decoded {
  if (!name.startsWith('google.protobuf.')) return map;
  if (WRAPPER.test(name)) return map.value;
  if (name !== 'google.protobuf.Timestamp' && name !== 'google.protobuf.Duration') return map;
  const seconds = Number(map.seconds) + Number(map.nanos) / 1e9;
  return name.endsWith('Duration')
    ? seconds
    : new DecodedTime(Number(map.seconds) * 1000 + Number(map.nanos) / 1e6);
}
