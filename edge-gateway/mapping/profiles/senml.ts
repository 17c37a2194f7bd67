/**
 * SenML, RFC 8428: packs of records, as JSON or CBOR. A message is one by its content type, whatever its topic, or by
 * a topic that the mapping file names.
 *
 * The base name is the device, without the separators at its end, and the name is the metric; a record without a name
 * is `value`, and one without a base name is a device of its own. A sum is `<metric>.sum`. Records of one device and
 * time are one element. Units are not kept.
 *
 * Time (4.5.3): base time plus time; below 2^28 it counts from now, which here is arrival. No time at all is arrival.
 */
import type { Value } from '../../../protocol/batch.ts';
import type { DeviceId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import { type Element, readElement } from '../../payload.ts';
import { readTime } from '../../payload-time.ts';
import { type Decoded, type DecodedMap, isMap, Unusable } from '../decoded.ts';
import { deviceFromId } from '../device-name.ts';
import type { MappedMessage, Profile, Reading, TopicRoute } from '../route.ts';
import { matchTopic, parsePattern } from '../topic-pattern.ts';

/** CBOR's labels (RFC 8428, 6); the decoder gives integer keys as text. */
const labels: ReadonlyMap<string, string> = new Map([
  ['-1', 'bver'],
  ['-2', 'bn'],
  ['-3', 'bt'],
  ['-4', 'bu'],
  ['-5', 'bv'],
  ['-6', 'bs'],
  ['0', 'n'],
  ['1', 'u'],
  ['2', 'v'],
  ['3', 'vs'],
  ['4', 'vb'],
  ['5', 's'],
  ['6', 't'],
  ['7', 'ut'],
  ['8', 'vd'],
]);
const VERSION = 10;
/** Smaller times are relative to now. */
const ABSOLUTE_FROM_SECONDS = 2 ** 28;

export const senmlRoute = {
  to: 'read',
  contentType: 'application/senml+json',
  emptyIsNothing: true,
  read: readPack,
} as const satisfies TopicRoute;

export function senml({ topics = [] }: { topics?: readonly string[] | undefined }): Profile {
  const patterns = topics.map(topic => parsePattern(topic));
  return {
    takes: ['content type application/senml+json or +cbor', ...topics].join(', '),
    route: levels => (patterns.some(pattern => matchTopic(pattern, levels)) ? senmlRoute : null),
  };
}

interface Base {
  name: string;
  time: number;
  value: number;
  sum: number;
}

/** @throws Unusable */
function readPack(pack: Decoded, message: MappedMessage): Reading[] {
  if (!Array.isArray(pack)) throw new Unusable('a SenML pack is a list of records, this is not one');
  if (pack.length > limits.elementsPerMessageMax) {
    throw new Unusable(`pack of ${pack.length} records, at most ${limits.elementsPerMessageMax}`);
  }
  const base: Base = { name: '', time: 0, value: 0, sum: 0 };
  const readings = new Map<string, { device: DeviceId; at: number | null; metrics: DecodedMap }>();
  for (const entry of pack) {
    if (!isMap(entry)) throw new Unusable('a SenML record is an object, this is not one');
    const record = named(entry);
    rebase(base, record);
    const metrics = metricsOf(base, record);
    if (metrics.length === 0) continue;
    const { device, metric } = resolveName(base.name, text(record, 'n'));
    const at = resolveTime(base.time + number(record, 't'), message.receivedAt);
    const key = `${device} ${at}`;
    let reading = readings.get(key);
    if (!reading) {
      reading = { device, at, metrics: Object.create(null) as DecodedMap };
      readings.set(key, reading);
    }
    for (const [suffix, value] of metrics) {
      const name = metric + suffix;
      if (Object.hasOwn(reading.metrics, name)) throw new Unusable('one metric twice at one time in a pack');
      reading.metrics[name] = value;
    }
  }
  return byDevice([...readings.values()]);
}

function byDevice(list: readonly { device: DeviceId; at: number | null; metrics: DecodedMap }[]): Reading[] {
  const devices = new Map<DeviceId, Element[]>();
  for (const { device, at, metrics } of list) {
    const element = readElement(metrics, { prefix: '', bareName: 'value', time: null });
    const elements = devices.get(device);
    if (elements) elements.push({ ...element, at });
    else devices.set(device, [{ ...element, at }]);
  }
  return [...devices].map(([device, elements]) => ({ device, kind: 'telemetry', elements }));
}

function named(entry: DecodedMap): DecodedMap {
  const record: DecodedMap = Object.create(null);
  for (const key in entry) {
    const name = labels.get(key) ?? key;
    if (name in record) throw new Unusable(`the field "${name}" twice in a SenML record`);
    // A name that ends so must be understood (RFC 8428, 4.4).
    if (name.endsWith('_'))
      throw new Unusable(`the SenML field "${name.slice(0, 60)}" is not known and must be`);
    record[name] = entry[key];
  }
  return record;
}

function rebase(base: Base, record: DecodedMap): void {
  if (record.bver !== undefined && !(number(record, 'bver') <= VERSION)) {
    throw new Unusable(`SenML version ${record.bver}: expected at most ${VERSION}`);
  }
  if (record.bn !== undefined) base.name = text(record, 'bn');
  if (record.bt !== undefined) base.time = number(record, 'bt');
  if (record.bv !== undefined) base.value = number(record, 'bv');
  if (record.bs !== undefined) base.sum = number(record, 'bs');
}

/** What a record says: pairs of the metric name's suffix and the value. None for a record of base fields alone. */
function metricsOf(base: Base, record: DecodedMap): [suffix: string, value: Value][] {
  const given = ['v', 'vs', 'vb', 'vd'].filter(field => record[field] !== undefined);
  if (given.length > 1) throw new Unusable(`a SenML record with more than one of v, vs, vb, vd`);
  const metrics: [string, Value][] = [];
  if (record.v !== undefined) metrics.push(['', base.value + number(record, 'v')]);
  if (record.vs !== undefined) metrics.push(['', text(record, 'vs')]);
  if (record.vb !== undefined) {
    if (typeof record.vb !== 'boolean') throw new Unusable('the SenML field "vb" is neither true nor false');
    metrics.push(['', record.vb]);
  }
  // JSON has it in base64url already, CBOR as bytes.
  if (record.vd instanceof Uint8Array) metrics.push(['', Buffer.from(record.vd).toString('base64url')]);
  else if (record.vd !== undefined) metrics.push(['', text(record, 'vd')]);
  if (record.s !== undefined) metrics.push(['.sum', base.sum + number(record, 's')]);
  return metrics;
}

function resolveName(baseName: string, name: string): { device: DeviceId; metric: string } {
  const device = baseName.replace(/[:/._-]+$/, '');
  if (device === '') return { device: deviceFromId(name), metric: 'value' };
  return { device: deviceFromId(device), metric: name === '' ? 'value' : name };
}

function resolveTime(seconds: number, receivedAt: number): number | null {
  if (seconds === 0) return null;
  return readTime(seconds < ABSOLUTE_FROM_SECONDS ? receivedAt / 1000 + seconds : seconds, 's');
}

/** 0 when it is not there. */
function number(record: DecodedMap, field: string): number {
  const value = record[field] ?? 0;
  const result = typeof value === 'bigint' ? Number(value) : value;
  if (typeof result === 'number' && Number.isFinite(result)) return result;
  throw new Unusable(`the SenML field "${field}" is not a number`);
}

/** Empty when it is not there. */
function text(record: DecodedMap, field: string): string {
  const value = record[field] ?? '';
  if (typeof value === 'string') return value;
  throw new Unusable(`the SenML field "${field}" is not text`);
}
