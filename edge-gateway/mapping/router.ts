/**
 * From a topic to its route: the mapping file's own mappings in their order, then the profiles, then the common shapes of
 * `topics.ts`; the first that matches has it.
 *
 * A topic's route is remembered, as devices publish to the same few topics for ever; the memory is bounded and starts
 * again when it is full (F).
 */
import { readElements, refusalReason } from '../payload.ts';
import { routeTopic, TOPIC_SHAPES } from '../topics.ts';
import { SCHEMA_VERSION } from './about-device.ts';
import type { MappingConfig, ProfileConfig } from './mapping-file.ts';
import { compileOwnMapping } from './own-mapping.ts';
import { owntracks } from './profiles/owntracks.ts';
import { senml } from './profiles/senml.ts';
import { shelly } from './profiles/shelly.ts';
import { sparkplug } from './profiles/sparkplug.ts';
import { tasmota } from './profiles/tasmota.ts';
import { zigbee2mqtt } from './profiles/zigbee2mqtt.ts';
import { newProtobufReader, type ProtobufReader } from './protobuf.ts';
import type { MappedMessage, Profile, TopicRoute } from './route.ts';
import type { CertificateReader } from './sparkplug/certificate-reader.ts';

export interface Routed {
  readonly route: TopicRoute;
  /** When the message has no content type of its own. */
  readonly contentType: string;
  /** One of the common shapes of `topics.ts`. */
  readonly isCommon: boolean;
}

export interface Router {
  /** @throws nothing: what cannot be routed is a route that refuses (H) */
  routeOf(message: Pick<MappedMessage, 'topic' | 'properties'>): Routed;
  readonly protobuf: ProtobufReader;
}

const ROUTES_MAX = 50_000;
const JSON_TYPE = 'application/json';
const PROTOBUF_TYPE = 'application/protobuf';
/** Of a message whose user properties were left out. */
const UNKNOWN = null;

export function newRouter(config: MappingConfig, certificates: CertificateReader | null): Router {
  const own = config.mappings.map(mapping => ({
    route: compileOwnMapping(mapping),
    version: mapping.schemaVersion,
  }));
  const profiles = config.profiles.map(profile => compileProfile(profile, certificates));
  const protobuf = newProtobufReader(config.protobuf ?? []);
  const versions = new Set(own.flatMap(({ version }) => version ?? []));
  /**
   * By topic, and by schema version where any mapping asks for one: only those that it names, as anybody may send
   * another.
   */
  const memories = new Map<string | null | undefined, Map<string, Routed>>();

  /** @throws Unusable when a device's name cannot be made of the topic */
  function findRoute(topic: string, version: string | null | undefined): Omit<Routed, 'contentType'> {
    const levels = topic.split('/');
    const others: string[] = [];
    for (const { route, version: wanted } of own) {
      const found = route(levels);
      if (!found) continue;
      if (wanted === undefined || wanted === version) return { route: found, isCommon: false };
      if (version === UNKNOWN) return { route: refuse(PROPERTIES_LEFT_OUT), isCommon: false };
      others.push(wanted);
    }
    for (const profile of profiles) {
      const found = profile.route(levels);
      if (found) return { route: found, isCommon: false };
    }
    const route = commonShape(topic);
    if (route.to !== 'refuse' || others.length === 0) return { route, isCommon: route.to === 'read' };
    const reason = `its ${SCHEMA_VERSION} is none of those that the mapping file has for this topic: ${others.join(', ')}`;
    return { route: refuse(reason), isCommon: false };
  }

  function commonShape(topic: string): TopicRoute {
    const outcome = routeTopic(topic);
    if (outcome.ok) {
      const { device, kind, ...shape } = outcome.route;
      return { to: 'read', device, read: value => [{ device, kind, elements: readElements(value, shape) }] };
    }
    const others = [...config.mappings.map(({ topic: pattern }) => pattern), ...profiles.map(p => p.takes)];
    return refuse(
      outcome.reason.endsWith(TOPIC_SHAPES) ? [outcome.reason, ...others].join(', ') : outcome.reason,
    );
  }

  function versionOf({ properties }: Pick<MappedMessage, 'properties'>): string | null | undefined {
    if (versions.size === 0 || properties === undefined) return undefined;
    if (properties.userPropertiesLeftOut) return UNKNOWN;
    const version = properties.userProperties?.find(([name]) => name === SCHEMA_VERSION)?.[1];
    return version !== undefined && versions.has(version) ? version : undefined;
  }

  function routed(topic: string, version: string | null | undefined): Routed {
    try {
      const found = findRoute(topic, version);
      const usual = found.route.to === 'read' ? found.route.contentType : undefined;
      const assumed = protobuf.isOnTopic(topic.split('/')) ? PROTOBUF_TYPE : (usual ?? JSON_TYPE);
      return { ...found, contentType: assumed };
    } catch (error) {
      return { route: refuse(refusalReason(error)), isCommon: false, contentType: JSON_TYPE };
    }
  }

  return {
    protobuf,
    routeOf(message) {
      const version = versionOf(message);
      let memory = memories.get(version);
      if (memory === undefined) {
        memory = new Map();
        memories.set(version, memory);
      }
      const known = memory.get(message.topic);
      if (known) return known;
      const found = routed(message.topic, version);
      if (memory.size >= ROUTES_MAX) memory.clear();
      memory.set(message.topic, found);
      return found;
    },
  };
}

const refuse = (reason: string): TopicRoute => ({ to: 'refuse', reason });
const PROPERTIES_LEFT_OUT =
  'its user properties are longer than 4096 bytes, and the mapping needs one of them';

function compileProfile(config: ProfileConfig, certificates: CertificateReader | null): Profile {
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
    case 'sparkplug':
      return sparkplug(certificates);
  }
}
