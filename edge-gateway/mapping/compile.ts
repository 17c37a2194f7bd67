/**
 * From the mapping file to a function of messages: the file's own mappings in their order, then the profiles, then
 * the common shapes of `topics.ts`; the first that matches a topic has it. Pure, and total: a message becomes
 * readings, nothing, or a reason (H).
 *
 * A topic's route is remembered, as devices publish to the same few topics for ever; the memory is bounded and starts
 * again when it is full (F).
 */
import { limits } from '../../protocol/limits.ts';
import { readElements, refusalReason } from '../payload.ts';
import { routeTopic, TOPIC_SHAPES } from '../topics.ts';
import { decodePayload, formatOf, isPack } from './decode.ts';
import { Unusable } from './decoded.ts';
import { type MappingConfig, NO_MAPPING, type ProfileConfig } from './mapping-file.ts';
import { compileOwnMapping } from './own-mapping.ts';
import { owntracks } from './profiles/owntracks.ts';
import { senml, senmlRoute } from './profiles/senml.ts';
import { shelly } from './profiles/shelly.ts';
import { tasmota } from './profiles/tasmota.ts';
import { zigbee2mqtt } from './profiles/zigbee2mqtt.ts';
import type { MappedMessage, Mapping, MessageOutcome, Profile, TopicRoute } from './route.ts';

const ROUTES_MAX = 50_000;
const NO_READINGS: MessageOutcome = { ok: true, readings: [] };
const DEFAULT_CONTENT_TYPE = 'application/json';

export function compileMapping(config: MappingConfig): Mapping {
  const own = config.mappings.map(compileOwnMapping);
  const profiles = config.profiles.map(compileProfile);
  const knowsSenml = config.profiles.some(({ profile }) => profile === 'senml');
  const routes = new Map<string, TopicRoute>();

  /** @throws Unusable when a device's name cannot be made of the topic */
  function findRoute(topic: string): TopicRoute {
    const levels = topic.split('/');
    for (const route of own) {
      const found = route(levels);
      if (found) return found;
    }
    for (const profile of profiles) {
      const found = profile.route(levels);
      if (found) return found;
    }
    return commonShape(topic);
  }

  function commonShape(topic: string): TopicRoute {
    const outcome = routeTopic(topic);
    if (outcome.ok) {
      const { device, kind, ...shape } = outcome.route;
      return { to: 'read', read: value => [{ device, kind, elements: readElements(value, shape) }] };
    }
    const others = [...config.mappings.map(({ topic: pattern }) => pattern), ...profiles.map(p => p.takes)];
    const reason = outcome.reason.endsWith(TOPIC_SHAPES)
      ? [outcome.reason, ...others].join(', ')
      : outcome.reason;
    return { to: 'refuse', reason };
  }

  function routeOf(topic: string): TopicRoute {
    const known = routes.get(topic);
    if (known) return known;
    let route: TopicRoute;
    try {
      route = findRoute(topic);
    } catch (error) {
      route = { to: 'refuse', reason: refusalReason(error) };
    }
    if (routes.size >= ROUTES_MAX) routes.clear();
    routes.set(topic, route);
    return route;
  }

  function read(message: MappedMessage): MessageOutcome {
    const { payload } = message;
    let route = routeOf(message.topic);
    if (route.to === 'nothing') return NO_READINGS;
    const usual = route.to === 'read' ? route.contentType : undefined;
    // MQTT 5 lets a sender leave it empty.
    const contentType = message.properties?.contentType || usual || DEFAULT_CONTENT_TYPE;
    const format = formatOf(contentType);
    if (isPack(format)) {
      if (!knowsSenml) {
        throw new Unusable(`content type "${contentType}" needs the profile senml in the mapping file`);
      }
      route = senmlRoute;
    }
    if (route.to === 'refuse') return { ok: false, reason: route.reason };
    if (payload.length === 0 && route.emptyIsNothing) return NO_READINGS;
    const readings = route.read(decodePayload(payload, format), message);
    let elements = 0;
    for (const reading of readings) elements += reading.elements.length;
    if (elements > limits.elementsPerMessageMax) {
      throw new Unusable(`message of ${elements} elements, at most ${limits.elementsPerMessageMax}`);
    }
    return { ok: true, readings };
  }

  return message => {
    try {
      return read(message);
    } catch (error) {
      return { ok: false, reason: refusalReason(error) };
    }
  };
}

function compileProfile(config: ProfileConfig): Profile {
  switch (config.profile) {
    case 'zigbee2mqtt':
      return zigbee2mqtt(config);
    case 'tasmota':
      return tasmota(config);
    case 'shelly':
      return shelly(config);
    case 'owntracks':
      return owntracks(config);
    case 'senml':
      return senml(config);
  }
}

/** Without a mapping file: the common shapes. */
export const commonMapping: Mapping = compileMapping(NO_MAPPING);
