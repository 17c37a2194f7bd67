/**
 * The content of a readings batch, and of the rows that a thinned batch keeps: one msgpack array of
 *
 *   [device prefixes, metric names, distinct strings per string column, messages set aside, columns (bytes)]
 *
 * and in the columns, as one run of bits, in this order: how many rows, devices, shapes · shapes (lengths, members) · types of
 * metrics · device names · per row sequence offset, element, device, kind, flags, shape, receivedAt, at · each metric's values.
 *
 * Values are predicted from the same device's value before, where that pays (`previous`, worked out on both sides
 * from the device column). The decoder knows every length before it makes room for it, and all lengths are bounded (invariant F).
 */
import type { MetricColumn, ReadingsBatch, Rows, SetAside } from './batch.ts';
import { batchBounds, columnLengths } from './batch-rules.ts';
import { BitReader, BitWriter, MalformedError } from './bit-stream.ts';
import { areWhole, readNumbers, writeNumbers } from './float-coding.ts';
import type { LogId } from './ids.ts';
import { INTEGER_LIMIT, integersBits, readIntegers, writeIntegers } from './integer-coding.ts';
import { limits } from './limits.ts';
import { readNames, writeNames } from './name-coding.ts';
import { readRecency, writeRecency } from './order-coding.ts';
import type { Plain } from './plain-msgpack.ts';
import { packPlain, unpackPlain } from './plain-msgpack.ts';
import { previousInColumns, previousRows, rowsOfColumns } from './row-index.ts';

const valueTypes = ['number', 'string', 'boolean'] as const;

/** Texts of devices and metrics, strings (each takes two payload bytes at least) and six items per message set aside. */
const ITEMS_MAX =
  batchBounds.devicesMax + 2 * batchBounds.metricsMax + batchBounds.readingsMax + 7 * batchBounds.setAsideMax;

/** One writer for all batches; a batch's bits are copied out before the next begins. */
const out = new BitWriter();

/** @param batch free of faults (`batchFault`) */
export function encodeBody(batch: ReadingsBatch): Buffer {
  const { devices, metrics, shapes, rows, setAside } = batch;
  out.reset();
  out.writeCount(rows.length);
  out.writeCount(devices.length);
  out.writeCount(shapes.length);
  writeWholes(Float64Array.from(shapes, shape => shape.length));
  writeWholes(Float64Array.from(shapes.flat()));
  writeWholes(Float64Array.from(metrics, ({ type }) => valueTypes.indexOf(type)));
  const prefixes = writeNames(out, devices);
  const previous = writeRows(rows, devices.length);

  const rowsOf = rowsOfColumns(rows.shape, shapes, metrics.length);
  const previousOf = previousInColumns(rows.device, devices.length, previous);
  const strings: string[][] = [];
  for (const [index, column] of metrics.entries()) {
    const before = previousOf(rowsOf(index));
    if (column.type === 'number') {
      writeNumbers(out, column.values, before);
    } else if (column.type === 'boolean') {
      writeWholes(new Float64Array(column.values), before);
    } else {
      const { distinct, indexes } = indexStrings(column.values);
      strings.push(distinct);
      writeWholes(indexes, before);
    }
  }
  return packPlain([
    prefixes,
    metrics.map(({ name }) => name),
    strings,
    setAside.map(message => [
      message.sequenceOffset,
      message.reason,
      message.topic,
      message.receivedAt,
      message.payloadBytes,
      message.payload,
    ]),
    out.finish(),
  ]);
}

/**
 * @returns the batch; its lengths fit one another and its indexes into rows are in range, but the caller still asks `batchFault`
 * @throws MalformedError when the bytes are no body
 */
export function decodeBody(
  bytes: Uint8Array,
  logId: LogId,
  firstSequence: number,
  count: number,
): ReadingsBatch {
  const body = unpackPlain(bytes, ITEMS_MAX);
  if (!Array.isArray(body) || body.length !== 5) throw new MalformedError('not an array of five parts');
  const prefixes = textsOf(body[0]);
  const metricNames = textsOf(body[1]);
  const strings = arrayOf(body[2]).map(textsOf);
  const setAside = arrayOf(body[3]).map(setAsideOf);
  if (metricNames.length > batchBounds.metricsMax) throw new MalformedError('too many metrics');
  if (setAside.length > batchBounds.setAsideMax) throw new MalformedError('too many messages set aside');
  const input = new BitReader(bytesOf(body[4]));

  const rowCount = input.readCount(limits.batchRowsMax);
  const deviceCount = input.readCount(batchBounds.devicesMax);
  const shapeCount = input.readCount(batchBounds.shapesMax);
  const shapes = readShapes(input, shapeCount, metricNames.length);
  const types = readIntegers(input, metricNames.length);
  const devices = readNames(input, deviceCount, prefixes);
  if (rowCount > 0 && (deviceCount === 0 || shapeCount === 0)) throw new MalformedError('rows of nothing');
  const { rows, previous } = readRows(input, rowCount, deviceCount, shapeCount, count);

  const lengths = columnLengths(rows.shape, shapes, metricNames.length);
  if (!lengths) throw new MalformedError('more readings than a batch can hold');
  const rowsOf = rowsOfColumns(rows.shape, shapes, metricNames.length);
  const previousOf = previousInColumns(rows.device, deviceCount, previous);
  let stringColumn = 0;
  const metrics = metricNames.map((name, index): MetricColumn => {
    const before = previousOf(rowsOf(index));
    const length = lengths[index]!;
    const type = valueTypes[types[index]!];
    switch (type) {
      case 'number':
        return { name, type, values: readNumbers(input, length, before) };
      case 'boolean':
        return { name, type, values: Uint8Array.from(readBelow(input, length, 2, before)) };
      case 'string': {
        const distinct = strings[stringColumn++] ?? [];
        const indexes = readBelow(input, length, distinct.length, before);
        return { name, type, values: Array.from(indexes, at => distinct[at]!) };
      }
      default:
        throw new MalformedError('a metric of no type');
    }
  });
  if (stringColumn !== strings.length) throw new MalformedError('strings without a column');
  input.assertEnd();
  return {
    settlement: 'raw',
    logId,
    firstSequence,
    count,
    devices,
    metrics,
    shapes,
    rows,
    setAside,
  };
}

function writeRows(rows: Rows, deviceCount: number): Int32Array {
  const previous = previousRows(rows.device, deviceCount);
  writeWholes(new Float64Array(rows.sequenceOffset));
  writeWholes(new Float64Array(rows.element));
  writeRecency(out, rows.device, deviceCount);
  writeWholes(new Float64Array(rows.kind), previous);
  writeWholes(new Float64Array(rows.flags), previous);
  writeWholes(new Float64Array(rows.shape), previous);
  writeNumbers(out, rows.receivedAt, previous);
  writeTimes(rows.at, rows.receivedAt, previous);
  return previous;
}

function readRows(
  input: BitReader,
  length: number,
  deviceCount: number,
  shapeCount: number,
  sequenceCount: number,
) {
  const sequenceOffset = Uint32Array.from(readBelow(input, length, sequenceCount, null));
  const element = Uint16Array.from(readBelow(input, length, limits.elementsPerMessageMax, null));
  const device = readRecency(input, length, deviceCount);
  const previous = previousRows(device, deviceCount);
  const kind = Uint8Array.from(readBelow(input, length, 256, previous));
  const flags = Uint8Array.from(readBelow(input, length, 256, previous));
  const shape = Uint32Array.from(readBelow(input, length, shapeCount, previous));
  const receivedAt = readNumbers(input, length, previous);
  const at = readTimes(input, receivedAt, previous);
  const rows: Rows = { length, sequenceOffset, element, kind, flags, device, shape, at, receivedAt };
  return { rows, previous };
}

/** A bit says whether the times are written as they are or by their distance from `receivedAt`. */
function writeTimes(at: Float64Array, receivedAt: Float64Array, previous: Int32Array): void {
  out.reserve(16);
  if (areWhole(at) && areWhole(receivedAt)) {
    const distance = at.map((time, i) => time - receivedAt[i]!);
    if (integersBits(distance, distance.length, previous) <= integersBits(at, at.length, previous)) {
      out.write(1, 1);
      writeIntegers(out, distance, distance.length, previous);
      return;
    }
  }
  out.write(0, 1);
  writeNumbers(out, at, previous);
}

function readTimes(input: BitReader, receivedAt: Float64Array, previous: Int32Array): Float64Array {
  if (input.read(1) === 0) return readNumbers(input, receivedAt.length, previous);
  const distance = readIntegers(input, receivedAt.length, previous);
  for (let i = 0; i < distance.length; i++) {
    if (Math.abs(distance[i]!) >= INTEGER_LIMIT) throw new MalformedError('a time out of all bounds');
    distance[i]! += receivedAt[i]!;
  }
  return distance;
}

function writeWholes(values: Float64Array, previous: Int32Array | null = null): void {
  writeIntegers(out, values, values.length, previous);
}

/** @throws MalformedError unless 0 ≤ value < bound for all. */
export function readBelow(
  input: BitReader,
  length: number,
  bound: number,
  previous: Int32Array | null,
): Float64Array {
  const values = readIntegers(input, length, previous);
  for (let i = 0; i < length; i++) {
    if (!(values[i]! >= 0 && values[i]! < bound)) throw new MalformedError('an index out of range');
  }
  return values;
}

function readShapes(input: BitReader, count: number, metricCount: number): number[][] {
  const lengths = readBelow(input, count, limits.metricsPerElementMax + 1, null);
  const memberCount = lengths.reduce((sum, length) => sum + length, 0);
  if (memberCount > batchBounds.readingsMax) throw new MalformedError('shapes that are too long');
  const members = readBelow(input, memberCount, metricCount, null);
  let next = 0;
  return Array.from(lengths, length => {
    next += length;
    return Array.from(members.subarray(next - length, next));
  });
}

function indexStrings(values: readonly string[]): { distinct: string[]; indexes: Float64Array } {
  const indexOf = new Map<string, number>();
  const indexes = new Float64Array(values.length);
  for (const [i, value] of values.entries()) {
    let index = indexOf.get(value);
    if (index === undefined) {
      index = indexOf.size;
      indexOf.set(value, index);
    }
    indexes[i] = index;
  }
  return { distinct: [...indexOf.keys()], indexes };
}

function arrayOf(part: Plain | undefined): readonly Plain[] {
  if (!Array.isArray(part)) throw new MalformedError('a part that is no array');
  return part;
}

function textOf(part: Plain | undefined): string {
  if (typeof part !== 'string') throw new MalformedError('a part that is no text');
  return part;
}

function numberOf(part: Plain | undefined): number {
  if (typeof part !== 'number') throw new MalformedError('a part that is no number');
  return part;
}

export function bytesOf(part: Plain | undefined): Uint8Array {
  if (!(part instanceof Uint8Array)) throw new MalformedError('a part that is not bytes');
  return part;
}

export const textsOf = (part: Plain | undefined): string[] => arrayOf(part).map(textOf);

function setAsideOf(part: Plain): SetAside {
  const [sequenceOffset, reason, topic, receivedAt, payloadBytes, payload] = arrayOf(part);
  return {
    sequenceOffset: numberOf(sequenceOffset),
    reason: textOf(reason),
    topic: textOf(topic),
    receivedAt: numberOf(receivedAt),
    payloadBytes: numberOf(payloadBytes),
    // A copy, so that keeping a few bytes does not keep the whole batch.
    payload: Uint8Array.from(bytesOf(payload)),
  };
}
