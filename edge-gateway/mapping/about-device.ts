/**
 * What a message says of its device beside the readings, as text metrics of the message: the type, and the version of
 * its payload's schema. A mapping is a function of one message, so they come with every message that says them; texts
 * that repeat cost next to nothing on the way.
 */
import { limits } from '../../protocol/limits.ts';
import type { MessageProperties } from '../log/frame-properties.ts';
import type { Element } from '../payload.ts';
import { Unusable } from './decoded.ts';
import type { Reading } from './route.ts';

/** MQTT 5 user properties, and the metrics that they become. */
const metrics: readonly (readonly [property: string, metric: string])[] = [
  ['device-type', 'device.type'],
  ['schema-version', 'device.schemaVersion'],
];
export const TYPE_METRIC = 'device.type';
export const SCHEMA_VERSION = 'schema-version';

/** @throws Unusable when the value is no text that can be stored */
export function userProperty(properties: MessageProperties | undefined, name: string): string | null {
  const found = properties?.userProperties?.find(([known]) => known === name)?.[1] ?? null;
  if (found !== null && (found.includes('\0') || Buffer.byteLength(found) > limits.stringValueBytesMax)) {
    throw new Unusable(`the user property "${name}" is no text that can be stored`);
  }
  return found;
}

/** A message about several devices says nothing of any one of them. @throws Unusable */
export function withUserProperties(
  readings: readonly Reading[],
  properties: MessageProperties | undefined,
): readonly Reading[] {
  if (properties?.userProperties === undefined) return readings;
  const [first, ...others] = readings;
  if (first === undefined || others.some(({ device }) => device !== first.device)) return readings;
  let all = readings;
  for (const [property, metric] of metrics) {
    const text = userProperty(properties, property);
    if (text !== null) all = withText(all, metric, text);
  }
  return all;
}

/**
 * Beside the first values that there are; in an element of its own where there is no room. What the payload says itself
 * counts.
 */
function withText(readings: readonly Reading[], metric: string, text: string): readonly Reading[] {
  const elements = readings.flatMap(reading => reading.elements);
  const spoken = elements.filter(({ names }) => names.length > 0);
  if (spoken.length === 0 || spoken.some(({ names }) => names.includes(metric))) return readings;
  const host = spoken.find(({ names }) => names.length < limits.metricsPerElementMax);
  const extended = (element: Element): Element => ({
    ...element,
    names: [...element.names, metric],
    values: [...element.values, text],
  });
  if (host) {
    return readings.map(reading => ({
      ...reading,
      elements: reading.elements.map(element => (element === host ? extended(element) : element)),
    }));
  }
  const own = extended({ at: spoken[0]!.at, names: [], values: [] });
  return readings.map((reading, index) =>
    index === 0 ? { ...reading, elements: [...reading.elements, own] } : reading,
  );
}
