/**
 * The content of a thinned batch: one msgpack array of
 *
 *   [index into `thinningIntervalsMs`, device prefixes, metric names, columns (bytes), body of the kept rows (`batch-body.ts`)]
 *
 * and in the columns, as one run of bits: how many devices · device names · receivedFrom, receivedTo · how many summaries each
 * metric has · then, metric by metric:
 *
 *   cells      a bit says "those of the metric before"; else device and number of the interval, a column each
 *   counts     a bit says "those of the metric before"; else a column
 *   extremes   all minima, then all maxima, as one column: a minimum is predicted from the same device's interval
 *              before, a maximum from its own minimum
 *   means      a bit says whether they are decimals written by their distance from the middle of their extremes
 *
 * Summaries stand in the order of (metric, device, from), which `batch-rules.ts` asks for: so the metric column need not travel,
 * the metrics of one kind of device share their cells, and none can come twice. The decoder knows every length before
 * it makes room for it, and all lengths are bounded (invariant F).
 */
import type { Summaries, ThinnedBatch } from './batch.ts';
import { thinningIntervalsMs } from './batch.ts';
import { bytesOf, decodeBody, encodeBody, readBelow, textsOf } from './batch-body.ts';
import { batchBounds } from './batch-rules.ts';
import { BitReader, BitWriter, MalformedError } from './bit-stream.ts';
import { readNumbers, writeNumbers } from './float-coding.ts';
import type { LogId } from './ids.ts';
import { INTEGER_LIMIT, readIntegers, writeIntegers } from './integer-coding.ts';
import { readNames, writeNames } from './name-coding.ts';
import { packPlain, unpackPlain } from './plain-msgpack.ts';

/** Five parts, and the texts of two of them. */
const ITEMS_MAX = 6 + batchBounds.devicesMax + batchBounds.summariesMax;

/** Decimals that a column of means may have to be written as whole numbers. */
const MEAN_SCALE_MAX = 15;
const powersOfTen = Float64Array.from({ length: MEAN_SCALE_MAX + 1 }, (_, scale) => Number(`1e${scale}`));

/** One writer for all batches; a batch's bits are copied out before the next begins. */
const out = new BitWriter();

/** @param batch free of faults (`batchFault`) */
export function encodeThinnedBody(batch: ThinnedBatch): Buffer {
  const { intervalMs, receivedFrom, receivedTo, summaries, kept } = batch;
  const keptBody = encodeBody(kept);
  out.reset();
  out.writeCount(summaries.devices.length);
  const prefixes = writeNames(out, summaries.devices);
  writeNumbers(out, Float64Array.of(receivedFrom, receivedTo), null);
  const lengths = new Float64Array(summaries.metrics.length);
  for (let i = 0; i < summaries.length; i++) lengths[summaries.metric[i]!]!++;
  writeIntegers(out, lengths, lengths.length);

  let before: Summaries | null = null;
  let start = 0;
  for (const length of lengths) {
    const own = slice(summaries, start, start + length);
    if (length > 0) before = writeMetric(own, before, intervalMs);
    start += length;
  }
  const interval = thinningIntervalsMs.indexOf(intervalMs as (typeof thinningIntervalsMs)[number]);
  return packPlain([interval, prefixes, [...summaries.metrics], out.finish(), keptBody]);
}

/**
 * @returns the batch; its lengths fit one another and its indexes are in range, but the caller still asks `batchFault`
 * @throws MalformedError when the bytes are no body
 */
export function decodeThinnedBody(
  bytes: Uint8Array,
  logId: LogId,
  firstSequence: number,
  count: number,
): ThinnedBatch {
  const body = unpackPlain(bytes, ITEMS_MAX);
  if (!Array.isArray(body) || body.length !== 5) throw new MalformedError('not an array of five parts');
  const intervalMs = typeof body[0] === 'number' ? thinningIntervalsMs[body[0]] : undefined;
  if (intervalMs === undefined) throw new MalformedError('an interval that is not known');
  const prefixes = textsOf(body[1]);
  const metrics = textsOf(body[2]);
  if (metrics.length > batchBounds.summariesMax) throw new MalformedError('too many metrics');

  const input = new BitReader(bytesOf(body[3]));
  const devices = readNames(input, input.readCount(batchBounds.devicesMax), prefixes);
  const [receivedFrom, receivedTo] = readNumbers(input, 2, null);
  const lengths = readBelow(input, metrics.length, batchBounds.summariesMax + 1, null);
  const length = lengths.reduce((sum, one) => sum + one, 0);
  if (length > batchBounds.summariesMax) throw new MalformedError('too many summaries');
  const summaries: Summaries = {
    length,
    devices,
    metrics,
    device: new Uint32Array(length),
    metric: new Uint32Array(length),
    from: new Float64Array(length),
    minimum: new Float64Array(length),
    maximum: new Float64Array(length),
    mean: new Float64Array(length),
    count: new Uint32Array(length),
  };
  let before: Summaries | null = null;
  let start = 0;
  for (let metric = 0; metric < metrics.length; metric++) {
    const end = start + lengths[metric]!;
    if (end > start) {
      const own = slice(summaries, start, end);
      own.metric.fill(metric);
      readMetric(input, own, before, intervalMs);
      before = own;
    }
    start = end;
  }
  input.assertEnd();
  const kept = decodeBody(bytesOf(body[4]), logId, firstSequence, count);
  return {
    settlement: 'thinned',
    logId,
    firstSequence,
    count,
    intervalMs,
    receivedFrom: receivedFrom!,
    receivedTo: receivedTo!,
    summaries,
    kept,
  };
}

/** A view of some of the summaries, sharing their memory. */
function slice(summaries: Summaries, start: number, end: number): Summaries {
  return {
    length: end - start,
    devices: summaries.devices,
    metrics: summaries.metrics,
    device: summaries.device.subarray(start, end),
    metric: summaries.metric.subarray(start, end),
    from: summaries.from.subarray(start, end),
    minimum: summaries.minimum.subarray(start, end),
    maximum: summaries.maximum.subarray(start, end),
    mean: summaries.mean.subarray(start, end),
    count: summaries.count.subarray(start, end),
  };
}

/** @returns `own`, which is `before` to the next metric */
function writeMetric(own: Summaries, before: Summaries | null, intervalMs: number): Summaries {
  const { length, device, from, minimum, maximum, mean, count } = own;
  const sameCells = before !== null && areEqual(device, before.device) && areEqual(from, before.from);
  if (!writeSame(sameCells, before !== null)) {
    writeIntegers(out, new Float64Array(device), length);
    const intervals = from.map(time => time / intervalMs);
    writeIntegers(out, intervals, length, previousOf(device));
  }
  const sameLength = before !== null && before.length === length;
  if (!writeSame(sameLength && areEqual(count, before.count), sameLength)) {
    writeIntegers(out, new Float64Array(count), length);
  }
  const extremes = new Float64Array(2 * length);
  extremes.set(minimum);
  extremes.set(maximum, length);
  const previous = previousOf(device);
  writeNumbers(out, extremes, previousOfExtremes(previous));
  writeMeans(mean, minimum, maximum, previous);
  return own;
}

function readMetric(input: BitReader, own: Summaries, before: Summaries | null, intervalMs: number): void {
  const { length, device, from, minimum, maximum, mean, count } = own;
  if (before !== null && input.read(1) === 1) {
    if (before.length !== length) throw new MalformedError('cells of another number');
    device.set(before.device);
    from.set(before.from);
  } else {
    device.set(readBelow(input, length, own.devices.length, null));
    const intervalsMax = batchBounds.summaryTimeMax / intervalMs + 1;
    from.set(readBelow(input, length, intervalsMax, previousOf(device)));
    for (let i = 0; i < length; i++) from[i]! *= intervalMs;
  }
  if (before !== null && before.length === length && input.read(1) === 1) count.set(before.count);
  else count.set(readBelow(input, length, 2 ** 32, null));
  const previous = previousOf(device);
  const extremes = readNumbers(input, 2 * length, previousOfExtremes(previous));
  minimum.set(extremes.subarray(0, length));
  maximum.set(extremes.subarray(length));
  readMeans(input, mean, minimum, maximum, previous);
}

/** A bit, where there is a choice. @returns `same` */
function writeSame(same: boolean, possible: boolean): boolean {
  out.reserve(16);
  if (possible) out.write(same ? 1 : 0, 1);
  return same;
}

/** For each summary the one before of the same device, or -1; they stand in the order of devices. */
function previousOf(device: Uint32Array): Int32Array {
  const previous = new Int32Array(device.length).fill(-1);
  for (let i = 1; i < device.length; i++) if (device[i] === device[i - 1]) previous[i] = i - 1;
  return previous;
}

function previousOfExtremes(previous: Int32Array): Int32Array {
  const { length } = previous;
  const both = new Int32Array(2 * length);
  both.set(previous);
  for (let i = 0; i < length; i++) both[length + i] = i;
  return both;
}

function writeMeans(
  mean: Float64Array,
  minimum: Float64Array,
  maximum: Float64Array,
  previous: Int32Array,
): void {
  const scale = meanScale(mean);
  const middle = scale === null ? null : middles(minimum, maximum, scale);
  out.reserve(16);
  if (scale === null || middle === null) {
    out.write(0, 1);
    writeNumbers(out, mean, previous);
    return;
  }
  out.write(1, 1);
  out.write(scale, 4);
  const distance = mean.map((value, i) => Math.round(value * powersOfTen[scale]!) - middle[i]!);
  writeIntegers(out, distance, distance.length);
}

function readMeans(
  input: BitReader,
  mean: Float64Array,
  minimum: Float64Array,
  maximum: Float64Array,
  previous: Int32Array,
): void {
  if (input.read(1) === 0) {
    mean.set(readNumbers(input, mean.length, previous));
    return;
  }
  const scale = input.read(4);
  const middle = middles(minimum, maximum, scale);
  if (!middle) throw new MalformedError('a mean whose extremes are out of all bounds');
  const distance = readIntegers(input, mean.length);
  for (let i = 0; i < mean.length; i++) mean[i] = (middle[i]! + distance[i]!) / powersOfTen[scale]!;
}

/** The least scale at which every mean is a whole number divided by a power of ten, bit for bit; or null. */
function meanScale(mean: Float64Array): number | null {
  let scale = 0;
  for (let i = 0; i < mean.length; i++) {
    while (!isDecimal(mean[i]!, scale)) if (++scale > MEAN_SCALE_MAX) return null;
  }
  // What fits one scale need not fit a larger one, where numbers grow beyond the limit.
  return mean.every(value => isDecimal(value, scale)) ? scale : null;
}

function isDecimal(value: number, scale: number): boolean {
  const power = powersOfTen[scale]!;
  const whole = Math.round(value * power) + 0;
  return Math.abs(whole) < INTEGER_LIMIT / 2 && Object.is(whole / power, value);
}

/** The whole numbers half way between the extremes; null when one is too large. Both ends reckon alike (IEEE 754). */
function middles(minimum: Float64Array, maximum: Float64Array, scale: number): Float64Array | null {
  const power = powersOfTen[scale]!;
  const middle = minimum.map((low, i) => Math.round(((low + maximum[i]!) / 2) * power) + 0);
  return middle.every(value => Math.abs(value) < INTEGER_LIMIT / 2) ? middle : null;
}

function areEqual(some: Uint32Array | Float64Array, others: Uint32Array | Float64Array): boolean {
  return some.length === others.length && some.every((value, i) => value === others[i]);
}
