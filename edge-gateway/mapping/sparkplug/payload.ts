/**
 * Payloads of Sparkplug B (org.eclipse.tahu.protobuf.Payload), as far as readings need them. Pure, and total: it throws
 * {@link Unusable} alone (H). Fields that are of no use here (properties, metadata, data sets) are passed over unread.
 *
 * Field numbers: Payload timestamp 1, metrics 2, seq 3, uuid 4, body 5. Metric name 1, alias 2, timestamp 3,
 * datatype 4, is_null 7, and the value in one of 10 to 19.
 */
import { gunzipSync, inflateSync } from 'node:zlib';
import type { Value } from '../../../protocol/batch.ts';
import { limits } from '../../../protocol/limits.ts';
import { newByteReader } from '../byte-reader.ts';
import { decodeText, Unusable } from '../decoded.ts';
import {
  fieldOf,
  type Integer,
  readLengthDelimited,
  readTag,
  readVarint,
  signed,
  skipField,
  WIRE,
  wireOf,
} from '../protobuf-wire.ts';

/** A number where that is exact, else its digits. */
export type Alias = number | string;

export interface SparkplugMetric {
  readonly name: string | null;
  readonly alias: Alias | null;
  /** Milliseconds since 1970 as sent; not yet found to be a time. */
  readonly timestamp: Integer | null;
  /** One of {@link datatypes}; births always say it, data messages rarely. */
  readonly datatype: number | null;
  readonly isNull: boolean;
  readonly value: RawValue | null;
}

/** A value as it travels: integers unsigned, whatever the datatype. */
export type RawValue =
  | { readonly in: 'integer'; readonly value: Integer }
  | { readonly in: 'number'; readonly value: number }
  | { readonly in: 'boolean'; readonly value: boolean }
  | { readonly in: 'text'; readonly value: string }
  | { readonly in: 'other' };

export interface SparkplugPayload {
  readonly timestamp: Integer | null;
  /** 0 to 255; null in deaths of nodes, and in what breaks the rules. */
  readonly seq: number | null;
  readonly metrics: readonly SparkplugMetric[];
}

/** Names of the datatypes by their numbers. */
export const datatypes = [
  'Unknown',
  'Int8',
  'Int16',
  'Int32',
  'Int64',
  'UInt8',
  'UInt16',
  'UInt32',
  'UInt64',
  'Float',
  'Double',
  'Boolean',
  'String',
  'DateTime',
  'Text',
  'UUID',
  'DataSet',
  'Bytes',
  'File',
  'Template',
  'PropertySet',
  'PropertySetList',
] as const;

/** Far above any node's, and decoded in some ten milliseconds. */
const METRICS_MAX = 16_384;
const COMPRESSED = 'SPBV1.0_COMPRESSED';

/** @throws Unusable */
export function decodeSparkplug(payload: Uint8Array): SparkplugPayload {
  if (payload.length === 0) throw new Unusable('payload is empty');
  const outer = readPayload(payload);
  if (outer.uuid !== COMPRESSED || outer.body === null) return outer;
  const algorithm = outer.metrics.find(({ name }) => name === 'algorithm')?.value;
  const inner = readPayload(inflate(outer.body, algorithm?.in === 'text' ? algorithm.value : 'DEFLATE'));
  return { ...inner, seq: inner.seq ?? outer.seq, timestamp: inner.timestamp ?? outer.timestamp };
}

function inflate(body: Uint8Array, algorithm: string): Uint8Array {
  const unpack = algorithm.toUpperCase() === 'GZIP' ? gunzipSync : inflateSync;
  try {
    return unpack(body, { maxOutputLength: 4 * limits.payloadBytesMax });
  } catch (error) {
    throw new Unusable(`a compressed Sparkplug body that cannot be inflated: ${(error as Error).message}`);
  }
}

function readPayload(bytes: Uint8Array): SparkplugPayload & { uuid: string | null; body: Uint8Array | null } {
  const reader = newByteReader(bytes, 'Sparkplug B');
  const metrics: SparkplugMetric[] = [];
  let timestamp: Integer | null = null;
  let seq: number | null = null;
  let uuid: string | null = null;
  let body: Uint8Array | null = null;
  while (reader.left > 0) {
    const tag = readTag(reader);
    if (is(tag, 1, WIRE.varint)) timestamp = readVarint(reader);
    else if (is(tag, 2, WIRE.bytes)) {
      // An empty metric takes two bytes, and a compressed body may hold half a million of them.
      if (metrics.length >= METRICS_MAX) throw new Unusable(`more than ${METRICS_MAX} Sparkplug metrics`);
      metrics.push(readMetric(readLengthDelimited(reader)));
    } else if (is(tag, 3, WIRE.varint)) seq = sequenceOf(readVarint(reader));
    else if (is(tag, 4, WIRE.bytes)) uuid = decodeText(readLengthDelimited(reader));
    else if (is(tag, 5, WIRE.bytes)) body = readLengthDelimited(reader);
    else skipField(reader, tag);
  }
  return { timestamp, seq, metrics, uuid, body };
}

const is = (tag: number, field: number, wire: number): boolean =>
  fieldOf(tag) === field && wireOf(tag) === wire;

/** Some libraries count to 256 or beyond instead of wrapping; that is no sequence. */
const sequenceOf = (seq: Integer): number | null => (typeof seq === 'number' && seq <= 255 ? seq : null);

function readMetric(bytes: Uint8Array): SparkplugMetric {
  const reader = newByteReader(bytes, 'Sparkplug B');
  let name: string | null = null;
  let alias: Alias | null = null;
  let timestamp: Integer | null = null;
  let datatype: number | null = null;
  let isNull = false;
  let value: RawValue | null = null;
  while (reader.left > 0) {
    const tag = readTag(reader);
    if (is(tag, 1, WIRE.bytes)) name = decodeText(readLengthDelimited(reader));
    else if (is(tag, 2, WIRE.varint)) alias = aliasOf(readVarint(reader));
    else if (is(tag, 3, WIRE.varint)) timestamp = readVarint(reader);
    else if (is(tag, 4, WIRE.varint)) datatype = Number(readVarint(reader));
    else if (is(tag, 7, WIRE.varint)) isNull = readVarint(reader) !== 0;
    else if (is(tag, 10, WIRE.varint)) {
      value = { in: 'integer', value: Number(BigInt.asUintN(32, BigInt(readVarint(reader)))) };
    } else if (is(tag, 11, WIRE.varint)) value = { in: 'integer', value: readVarint(reader) };
    else if (is(tag, 12, WIRE.fixed32))
      value = { in: 'number', value: shortest(reader.view.getFloat32(reader.skip(4), true)) };
    else if (is(tag, 13, WIRE.fixed64))
      value = { in: 'number', value: reader.view.getFloat64(reader.skip(8), true) };
    else if (is(tag, 14, WIRE.varint)) value = { in: 'boolean', value: readVarint(reader) !== 0 };
    else if (is(tag, 15, WIRE.bytes)) value = { in: 'text', value: decodeText(readLengthDelimited(reader)) };
    else {
      if (fieldOf(tag) >= 16 && fieldOf(tag) <= 19) value = { in: 'other' };
      skipField(reader, tag);
    }
  }
  // An empty name is how some libraries leave it out.
  return { name: name === '' ? null : name, alias, timestamp, datatype, isNull, value };
}

const aliasOf = (alias: Integer): Alias => (typeof alias === 'bigint' ? String(alias) : alias);

/** What a person reads in a 32-bit float: 21.4 and not 21.399999618530273. The same float comes of both. */
export function shortest(value: number): number {
  for (let digits = 6; digits <= 8; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Object.is(Math.fround(short), value)) return short;
  }
  return value;
}

export type MetricValue =
  | { readonly is: 'value'; readonly value: Value }
  /** A null: there is no value at this time. */
  | { readonly is: 'absent' }
  /** No number, text or boolean. */
  | { readonly is: 'leftOut'; readonly reason: string };

const ABSENT: MetricValue = { is: 'absent' };

/** The value of a metric of this datatype. */
export function metricValue(raw: RawValue | null, isNull: boolean, datatype: number): MetricValue {
  if (isNull || raw === null) return ABSENT;
  if (raw.in === 'text' || raw.in === 'boolean') return { is: 'value', value: raw.value };
  if (raw.in === 'number') {
    if (Number.isFinite(raw.value)) return { is: 'value', value: raw.value };
    return { is: 'leftOut', reason: String(raw.value) };
  }
  const type = datatypes[datatype];
  if (raw.in === 'other') return { is: 'leftOut', reason: type ?? `datatype ${datatype}` };
  const integer = integerOf(raw.value, type);
  if (typeof integer === 'number') {
    return { is: 'value', value: type === 'Boolean' ? integer !== 0 : integer };
  }
  const number = Number(integer);
  if (BigInt(number) === integer) return { is: 'value', value: number };
  return { is: 'leftOut', reason: `${integer}, which no 64-bit float holds exactly` };
}

function integerOf(value: Integer, type: (typeof datatypes)[number] | undefined): Integer {
  if (type === 'Int8') return signed(value, 8);
  if (type === 'Int16') return signed(value, 16);
  if (type === 'Int32') return signed(value, 32);
  if (type === 'Int64') return signed(value, 64);
  return value;
}

/** An integer may be signed or not: only the datatype says so. Every other value says what it is. */
export const needsDatatype = ({ value, datatype, isNull }: SparkplugMetric): boolean =>
  datatype === null && !isNull && value?.in === 'integer';
