/** A mapping of the mapping file's own: a topic pattern, a device name, and what becomes of the metrics. Pure. */
import type { Kind } from '../../protocol/batch.ts';
import { limits } from '../../protocol/limits.ts';
import { type Element, type ElementShape, readElements } from '../payload.ts';
import { TYPE_METRIC, userProperty } from './about-device.ts';
import { Unusable } from './decoded.ts';
import { deviceFromId } from './device-name.ts';
import type { OwnMappingConfig } from './mapping-file.ts';
import { type MappedMessage, NOTHING, type TopicRoute } from './route.ts';
import { fillTemplate, matchTopic, parsePattern } from './topic-pattern.ts';

const bareNames: Record<Kind, string> = {
  telemetry: 'value',
  event: 'event',
  status: 'status',
  location: 'location',
};

/** @returns the route of a topic, or null when the pattern does not match. The function throws {@link Unusable}. */
export function compileOwnMapping(
  config: OwnMappingConfig,
): (levels: readonly string[]) => TopicRoute | null {
  const pattern = parsePattern(config.topic);
  const selects = selectorOf(config);
  const renames = new Map(Object.entries(config.rename ?? {}));
  return levels => {
    const found = matchTopic(pattern, levels);
    if (!found) return null;
    if (config.ignore) return NOTHING;
    const device = deviceFromId(fillTemplate(config.device!, found));
    const prefix = fillTemplate(config.prefix ?? '', found);
    const shape: ElementShape = {
      prefix,
      bareName: fillTemplate(config.bareName ?? bareNames[config.kind], found),
      ...(config.time && { time: config.time }),
      rename: name => (selects(name) ? (renames.get(name) ?? prefix + name) : null),
    };
    return {
      to: 'read',
      device,
      receipts: config.receipts === undefined ? undefined : `${fillTemplate(config.receipts, found)}/`,
      contentType: config.contentType,
      read(value, message) {
        const elements = readElements(value, shape);
        const type = deviceTypeOf(config.deviceType, message);
        return [
          {
            device,
            kind: config.kind,
            elements: type === null ? elements : elements.map(element => withType(element, type)),
          },
        ];
      },
    };
  };
}

/** `motor.*` stands for all below `motor`. */
function selectorOf({ only, except }: OwnMappingConfig): (name: string) => boolean {
  const list = only ?? except;
  if (!list) return () => true;
  const names = new Set(list.filter(name => !name.endsWith('.*')));
  const above = list.filter(name => name.endsWith('.*')).map(name => name.slice(0, -1));
  const listed = (name: string) => names.has(name) || above.some(start => name.startsWith(start));
  return only ? listed : name => !listed(name);
}

/** @returns null when the mapping gives none, or the message lacks it */
function deviceTypeOf(config: OwnMappingConfig['deviceType'], { properties }: MappedMessage): string | null {
  if (config === undefined || typeof config === 'string') return config ?? null;
  if (properties?.userPropertiesLeftOut) {
    throw new Unusable('its user properties are longer than 4096 bytes, and the mapping needs one of them');
  }
  return userProperty(properties, config.userProperty);
}

function withType(element: Element, type: string): Element {
  // An element without metrics stays one: nothing was said that a type could be told of.
  if (element.names.length === 0 || element.names.includes(TYPE_METRIC)) return element;
  if (element.names.length >= limits.metricsPerElementMax) {
    throw new Unusable(
      `more than ${limits.metricsPerElementMax} metrics in one message, with its device type`,
    );
  }
  return { ...element, names: [...element.names, TYPE_METRIC], values: [...element.values, type] };
}
