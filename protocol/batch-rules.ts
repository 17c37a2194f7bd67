/**
 * What every batch must be, in one place: the encoder refuses to write another (a bug in the gateway), the decoder
 * to return one (invariants F, H). It holds what the types cannot say.
 */
import type { Batch, ReadingsBatch, Summaries, ThinnedBatch } from './batch.ts';
import { kinds, RowFlag, thinningIntervalsMs } from './batch.ts';
import { isDeviceId, isLogId } from './ids.ts';
import { limits } from './limits.ts';

/** Bounds that follow from `limits`: no honest batch reaches them, whatever its devices send. */
export const batchBounds = {
  /** Readings in all: each takes at least two payload bytes, and the last message may overshoot the gathering. */
  readingsMax: (limits.batchPayloadBytesMax + limits.payloadBytesMax) / 2,
  /** Metric columns: each takes at least six bytes for its name and a value. */
  metricsMax: Math.floor((limits.batchPayloadBytesMax + limits.payloadBytesMax) / 6),
  devicesMax: limits.batchRowsMax,
  shapesMax: limits.batchRowsMax,
  setAsideMax: limits.batchRowsMax,
  /** Sequences that one batch may declare lost, or have thinned. */
  lostMax: 2 ** 32 - 1,
  /** Summaries of one thinned batch, and metrics they are about. */
  summariesMax: 64 * 1024,
  /** Intervals begin in 1970 or later and before this (the year 2248); readings of other times are not thinned. */
  summaryTimeMax: 2 ** 43,
  sequenceMax: 2 ** 48 - 1,
  reasonBytesMax: 1024,
  /** What MQTT allows; a topic may be set aside for being too long. */
  topicBytesMax: 65_535,
} as const;

const KNOWN_FLAGS = RowFlag.ownTimestamp;

/** @returns what is wrong with the batch, or null. */
export function batchFault(batch: Batch): string | null {
  const { logId, firstSequence, count } = batch;
  if (!isLogId(logId)) return 'the log id is not one';
  const countMax = batch.settlement === 'raw' ? limits.batchMessagesMax : batchBounds.lostMax;
  if (!isWithin(count, 1, countMax)) return `a count of ${count}`;
  if (!isWithin(firstSequence, 0, batchBounds.sequenceMax)) return `a first sequence of ${firstSequence}`;
  switch (batch.settlement) {
    case 'raw':
      return readingsFault(batch);
    case 'lost':
      return textFault('reason', batch.reason, batchBounds.reasonBytesMax);
    case 'thinned':
      return thinnedFault(batch);
  }
}

/** All but log, first sequence and count. */
const readingsFault = (batch: ReadingsBatch): string | null =>
  dictionaryFault(batch) ?? rowsFault(batch) ?? columnsFault(batch) ?? setAsideFault(batch);

function thinnedFault(batch: ThinnedBatch): string | null {
  const { logId, firstSequence, count, intervalMs, receivedFrom, receivedTo, summaries, kept } = batch;
  if (!thinningIntervalsMs.some(known => known === intervalMs)) return `an interval of ${intervalMs} ms`;
  if (!Number.isFinite(receivedFrom) || !Number.isFinite(receivedTo)) return 'a time that is not finite';
  if (receivedFrom > receivedTo) return 'a run that ends before it begins';
  if (kept.settlement !== 'raw' || kept.logId !== logId) return 'kept rows of another log';
  if (kept.firstSequence !== firstSequence || kept.count !== count) return 'kept rows of another run';
  return summaryNamesFault(summaries) ?? summariesFault(summaries, intervalMs) ?? readingsFault(kept);
}

function summaryNamesFault({ devices, metrics }: Summaries): string | null {
  if (metrics.length > batchBounds.summariesMax) return `${metrics.length} metrics`;
  for (const name of metrics) {
    const fault = textFault('metric name', name, limits.metricNameBytesMax);
    if (fault) return fault;
  }
  if (new Set(metrics).size !== metrics.length) return 'a metric that is named twice';
  return devicesFault(devices);
}

/** Their order is (metric, device, from), so that none can come twice. */
function summariesFault(summaries: Summaries, intervalMs: number): string | null {
  const { length, devices, metrics, device, metric, from, minimum, maximum, mean, count } = summaries;
  if (!isWithin(length, 0, batchBounds.summariesMax)) return `${length} summaries`;
  for (const column of [device, metric, from, minimum, maximum, mean, count]) {
    if (column.length !== length) return `a column of ${column.length} for ${length} summaries`;
  }
  for (let i = 0; i < length; i++) {
    if (metric[i]! >= metrics.length) return 'a summary without its metric';
    if (device[i]! >= devices.length) return 'a summary without its device';
    if (!isWithin(from[i]!, 0, batchBounds.summaryTimeMax - 1) || from[i]! % intervalMs !== 0) {
      return `an interval that begins at ${from[i]}`;
    }
    const step =
      i === 0 ? 1 : metric[i]! - metric[i - 1]! || device[i]! - device[i - 1]! || from[i]! - from[i - 1]!;
    if (step <= 0) return 'summaries out of the order of metric, device and interval';
    if (count[i]! < 1) return 'a summary of no readings';
    if (!Number.isFinite(minimum[i]) || !Number.isFinite(maximum[i])) return 'an extreme that is not finite';
    // Also false for a mean that is not a number.
    if (!(minimum[i]! <= mean[i]! && mean[i]! <= maximum[i]!))
      return 'a mean that is not within its extremes';
    if (count[i] === 1 && minimum[i] !== maximum[i]) return 'two extremes of one reading';
  }
  return null;
}

const isWithin = (value: number, min: number, max: number): boolean =>
  Number.isSafeInteger(value) && value >= min && value <= max;

function textFault(what: string, text: string, bytesMax: number): string | null {
  if (text.length > bytesMax || Buffer.byteLength(text) > bytesMax) return `a ${what} over ${bytesMax} bytes`;
  return text.isWellFormed() ? null : `a ${what} that is not well-formed Unicode`;
}

function devicesFault(devices: readonly string[]): string | null {
  if (devices.length > batchBounds.devicesMax) return `${devices.length} devices`;
  if (!devices.every(isDeviceId)) return 'a device name that breaks the rule';
  return new Set(devices).size === devices.length ? null : 'a device that is named twice';
}

function dictionaryFault(batch: ReadingsBatch): string | null {
  const { devices, metrics, shapes } = batch;
  if (metrics.length > batchBounds.metricsMax) return `${metrics.length} metric columns`;
  if (shapes.length > batchBounds.shapesMax) return `${shapes.length} shapes`;
  const fault = devicesFault(devices);
  if (fault) return fault;

  const columns = new Set<string>();
  for (const { name, type } of metrics) {
    const fault = textFault('metric name', name, limits.metricNameBytesMax);
    if (fault) return fault;
    columns.add(`${type} ${name}`);
  }
  if (columns.size !== metrics.length) return 'a metric column that comes twice';

  let members = 0;
  for (const shape of shapes) {
    if (shape.length > limits.metricsPerElementMax) return `${shape.length} metrics in one element`;
    members += shape.length;
    if (members > batchBounds.readingsMax) return 'more metrics in shapes than readings can be';
    if (!shape.every(index => isWithin(index, 0, metrics.length - 1))) return 'a shape names no metric';
    if (new Set(shape.map(index => metrics[index]!.name)).size !== shape.length) {
      return 'a shape that names a metric twice';
    }
  }
  return null;
}

function rowsFault({ rows, count, devices, shapes }: ReadingsBatch): string | null {
  const { length, sequenceOffset, element, kind, flags, device, shape, at, receivedAt } = rows;
  if (length > limits.batchRowsMax) return `${length} rows`;
  for (const column of [sequenceOffset, element, kind, flags, device, shape, at, receivedAt]) {
    if (column.length !== length) return `a row column of ${column.length} for ${length} rows`;
  }
  let offsetBefore = -1;
  let elementBefore = -1;
  for (let i = 0; i < length; i++) {
    const offset = sequenceOffset[i]!;
    if (offset >= count) return 'a row past the last sequence';
    if (offset < offsetBefore || (offset === offsetBefore && element[i]! <= elementBefore)) {
      return 'rows out of order';
    }
    offsetBefore = offset;
    elementBefore = element[i]!;
    if (elementBefore >= limits.elementsPerMessageMax) return `an element numbered ${elementBefore}`;
    if (kind[i]! >= kinds.length) return `a kind numbered ${kind[i]}`;
    if ((flags[i]! & ~KNOWN_FLAGS) !== 0) return `flags ${flags[i]}`;
    if (device[i]! >= devices.length) return 'a row without its device';
    if (shape[i]! >= shapes.length) return 'a row without its shape';
    if (!Number.isFinite(at[i]) || !Number.isFinite(receivedAt[i])) return 'a time that is not finite';
  }
  return null;
}

function columnsFault({ rows, shapes, metrics }: ReadingsBatch): string | null {
  const lengths = columnLengths(rows.shape, shapes, metrics.length);
  if (!lengths) return 'more readings than a batch can hold';
  for (const [index, column] of metrics.entries()) {
    const { type, values } = column;
    if (values.length !== lengths[index]) return `a column of ${values.length} for ${lengths[index]} rows`;
    if (type === 'boolean' && !values.every(value => value <= 1)) return 'a boolean that is neither 0 nor 1';
    if (type === 'string') {
      // Each text once: a hostile batch may name one long text in every row.
      for (const value of new Set(values)) {
        const fault = textFault('string value', value, limits.stringValueBytesMax);
        if (fault) return fault;
      }
    }
  }
  return null;
}

function setAsideFault({ setAside, count }: ReadingsBatch): string | null {
  if (setAside.length > batchBounds.setAsideMax) return `${setAside.length} messages set aside`;
  for (const { sequenceOffset, reason, topic, receivedAt, payloadBytes, payload } of setAside) {
    if (!isWithin(sequenceOffset, 0, count - 1)) return 'a message set aside past the last sequence';
    const fault =
      textFault('reason', reason, batchBounds.reasonBytesMax) ??
      textFault('topic', topic, batchBounds.topicBytesMax);
    if (fault) return fault;
    if (!Number.isFinite(receivedAt)) return 'a time that is not finite';
    if (payload.length > limits.quarantinedPayloadBytesMax) return `${payload.length} bytes set aside`;
    if (!isWithin(payloadBytes, payload.length, 2 ** 32)) return 'more bytes set aside than there were';
  }
  return null;
}

/** How many values each column holds, from the shapes of the rows (checked); null when there are too many in all. */
export function columnLengths(
  shapeOfRow: Uint32Array,
  shapes: readonly (readonly number[])[],
  columns: number,
): Uint32Array | null {
  const rowsOfShape = new Uint32Array(shapes.length);
  for (let i = 0; i < shapeOfRow.length; i++) rowsOfShape[shapeOfRow[i]!]!++;
  const lengths = new Uint32Array(columns);
  let readings = 0;
  for (const [index, shape] of shapes.entries()) {
    const rows = rowsOfShape[index]!;
    readings += rows * shape.length;
    if (readings > batchBounds.readingsMax) return null;
    for (const metric of shape) lengths[metric]! += rows;
  }
  return lengths;
}
