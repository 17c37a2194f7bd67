/**
 * Sparkplug B (https://sparkplug.eclipse.org/specification).
 *
 *   spBv1.0/<group>/NBIRTH|NDATA/<node>             telemetry of the device `<group>/<node>`
 *   spBv1.0/<group>/DBIRTH|DDATA/<node>/<device>    telemetry of the device `<group>/<node>/<device>`
 *   births, deaths                                  status `online`, `offline`, at arrival: a will carries the time at which
 *                                                   the connection was made
 *   NCMD, DCMD, STATE                               commands, hosts: nothing to store
 *
 * A metric has its own timestamp, else the payload's, else the time of arrival. Names of aliases come from the birth
 * that the message belongs to, which the intake has found (`sparkplug/session.ts`): this is a function of message and
 * birth, and gives the same whenever it is asked.
 *
 * What is no number, text or boolean is left out, and listed in the text metric {@link LEFT_OUT}: a node with one data
 * set must not lose the rest.
 */
import type { DeviceId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';
import { checkName, checkText, type Element } from '../../payload.ts';
import { readTime } from '../../payload-time.ts';
import { Unusable } from '../decoded.ts';
import { deviceFromPath } from '../device-name.ts';
import { connection, type MappedMessage, NOTHING, type Profile, type Reading } from '../route.ts';
import type { Birth } from '../sparkplug/certificate.ts';
import type { CertificateReader } from '../sparkplug/certificate-reader.ts';
import {
  decodeSparkplug,
  metricValue,
  type SparkplugMetric,
  type SparkplugPayload,
} from '../sparkplug/payload.ts';
import { resolveMetric } from '../sparkplug/resolve.ts';
import { EARLIER_SESSION } from '../sparkplug/session.ts';
import { NAMESPACE, nodeKey, parseTopic, type SparkplugTopic, topicKey } from '../sparkplug/topic.ts';

export const LEFT_OUT = 'sparkplug.leftOut';
/** Session numbers and command points. */
const NO_READING = /^(bdSeq$|Node Control\/|Device Control\/)/;

export const sparkplug = (certificates: CertificateReader | null): Profile => ({
  takes: `${NAMESPACE}/{group}/{message type}/{node}[/{device}]`,
  route(levels) {
    if (levels[0] !== NAMESPACE) return null;
    if (levels[1] === 'STATE') return NOTHING;
    const topic = parseTopic(levels);
    if (topic === null) {
      throw new Unusable(
        `no Sparkplug topic: expected ${NAMESPACE}/{group}/NBIRTH|NDATA|NDEATH/{node} or …/DBIRTH|DDATA|DDEATH/{node}/{device}`,
      );
    }
    if (topic.type === 'NCMD' || topic.type === 'DCMD') return NOTHING;
    const device = deviceFromPath(topicKey(topic));
    return {
      to: 'readBytes',
      device,
      read: message => read(topic, message, certificates),
      // A birth that comes again the same may come after a death.
      hasOwnTime: payload => topic.type.endsWith('DATA') && hasOwnTime(payload),
    };
  },
});

function read(
  topic: SparkplugTopic,
  message: MappedMessage,
  certificates: CertificateReader | null,
): Reading[] {
  const { type } = topic;
  const device = deviceFromPath(topicKey(topic));
  const reference = message.properties?.reference;
  if (type === 'DDEATH') return [connection(device, false)];
  if (type === 'NDEATH') {
    if (reference === EARLIER_SESSION) return [];
    const key = nodeKey(topic);
    const devices = reference === undefined ? [] : (certificates?.devices(key, reference) ?? null);
    if (devices === null) throw new Unusable('the list of the devices that died with the node is lost');
    return [device, ...devices.flatMap(name => namedOrNone(`${key}/${name}`))].map(id =>
      connection(id, false),
    );
  }
  const payload = decodeSparkplug(message.payload);
  const isBirth = type.endsWith('BIRTH');
  const birth =
    isBirth || reference === undefined ? null : (certificates?.birth(nodeKey(topic), reference) ?? null);
  if (birth === null && reference !== undefined && !isBirth && certificates !== null) {
    throw new Unusable('its birth is kept no more, or is damaged on the disk');
  }
  const readings: Reading[] = isBirth ? [connection(device, true)] : [];
  const elements = elementsOf(payload, birth);
  if (elements.length > 0) readings.push({ device, kind: 'telemetry', elements });
  return readings;
}

/** What has no device name was never a device here: the others are told all the same. */
function namedOrNone(path: string): DeviceId[] {
  try {
    return [deviceFromPath(path)];
  } catch (error) {
    if (error instanceof Unusable) return [];
    throw error;
  }
}

interface Growing {
  readonly at: number | null;
  readonly names: string[];
  readonly values: Element['values'][number][];
}

/** Metrics of one time are one element, as far as they fit. */
function elementsOf(payload: SparkplugPayload, birth: Birth | null): Element[] {
  const elements: Growing[] = [];
  const byTime = new Map<number | null, { element: Growing; taken: Set<string> }>();
  const leftOut: string[] = [];
  const add = (at: number | null, name: string, value: Element['values'][number]) => {
    let place = byTime.get(at);
    if (!place || place.taken.has(name) || place.taken.size >= limits.metricsPerElementMax) {
      place = { element: { at, names: [], values: [] }, taken: new Set() };
      byTime.set(at, place);
      elements.push(place.element);
    }
    place.taken.add(name);
    place.element.names.push(name);
    place.element.values.push(value);
  };
  for (const metric of payload.metrics) {
    const { name, datatype } = resolveMetric(metric, birth);
    if (NO_READING.test(name)) continue;
    const outcome = metricValue(metric.value, metric.isNull, datatype);
    if (outcome.is === 'absent') continue;
    const fault =
      outcome.is === 'leftOut' ? outcome.reason : faultOf(() => checkStorable(name, outcome.value));
    const time = fault === null ? timeOf(metric, payload) : null;
    if (typeof time === 'string' || fault !== null) leftOut.push(`${name}: ${fault ?? time}`);
    else if (outcome.is === 'value') add(time, name, outcome.value);
  }
  if (leftOut.length > 0) {
    const time = payload.timestamp === null ? null : timeOf({ timestamp: null }, payload);
    add(typeof time === 'string' ? null : time, LEFT_OUT, listed(leftOut));
  }
  return elements;
}

/** @returns milliseconds since 1970, null for arrival, or what is wrong with it */
function timeOf(
  { timestamp }: Pick<SparkplugMetric, 'timestamp'>,
  payload: SparkplugPayload,
): number | string | null {
  const time = timestamp ?? payload.timestamp;
  if (time === null) return null;
  try {
    return readTime(time, 'ms');
  } catch (error) {
    return reasonOf(error);
  }
}

function checkStorable(name: string, value: unknown): void {
  checkName(name);
  if (typeof value === 'string') checkText(value, 'its text', limits.stringValueBytesMax);
}

function faultOf(check: () => void): string | null {
  try {
    check();
    return null;
  } catch (error) {
    return reasonOf(error);
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof Unusable) return error.message;
  throw error;
}

/** As much as a text may hold of a list that nobody bounds. */
function listed(entries: readonly string[]): string {
  const text = entries.map(entry => entry.replaceAll('\0', '').slice(0, 200)).join('; ');
  return text.length <= 1000 ? text.toWellFormed() : `${text.slice(0, 1000).toWellFormed()}…`;
}

/** A node's own retry repeats the payload's time and sequence with all the rest. @throws Unusable */
function hasOwnTime(payload: Uint8Array): boolean {
  const { timestamp, seq } = decodeSparkplug(payload);
  return seq !== null && typeof timestamp === 'number' && timestamp >= limits.earliestBelievedMs;
}
