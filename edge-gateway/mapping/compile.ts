/**
 * From the mapping file to functions of messages: what a message becomes, and what the intake has to know of it. Pure but
 * for the births of Sparkplug nodes, which are read from their folder and never change; and total: a message becomes
 * readings, nothing, or a reason (H).
 */
import type { DeviceId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { refusalReason } from '../payload.ts';
import { hasOwnTimestamp } from '../payload-time.ts';
import { withUserProperties } from './about-device.ts';
import { decodePayload, formatOf, isPack } from './decode.ts';
import { Unusable } from './decoded.ts';
import type { MappingConfig } from './mapping-file.ts';
import { senmlRoute } from './profiles/senml.ts';
import type { MappedMessage, Mapping, MessageOutcome, Reading } from './route.ts';
import { newRouter, type Router } from './router.ts';
import { type CertificateReader, newCertificateReader } from './sparkplug/certificate-reader.ts';

const NO_READINGS: MessageOutcome = { ok: true, readings: [] };

/** Who publishes to a topic, as far as topic and mapping file tell. */
export interface TopicOwner {
  readonly device: DeviceId;
  /** Topics that are the device's own, each with a slash at its end. */
  readonly prefixes: readonly string[];
}

/** What the intake has to know of a message before it is stored. */
export interface MessageFacts {
  /** @returns null when the topic alone does not tell it */
  ownerOf(message: Pick<MappedMessage, 'topic' | 'properties'>): TopicOwner | null;
  /** Whether all its readings are at times that the device gave: then the same again is a retry, and no new reading. */
  hasOwnTime(message: MappedMessage): boolean;
}

/** @param certificates in place of those in the folder that `config` names */
export function compileMapping(config: MappingConfig, certificates = certificatesOf(config)): Mapping {
  return mappingOf(newRouter(config, certificates), config);
}

/** Without the births of Sparkplug nodes: neither fact needs one. */
export function compileFacts(config: MappingConfig): MessageFacts {
  const router = newRouter(config, null);
  const mapping = mappingOf(router, config);
  return {
    ownerOf(message) {
      const { route } = router.routeOf(message);
      if (route.to !== 'read' && route.to !== 'readBytes') return null;
      const { device } = route;
      if (device === undefined) return null;
      const more = route.to === 'read' && route.receipts !== undefined ? [route.receipts] : [];
      return { device, prefixes: [`devices/${device}/`, ...more] };
    },
    hasOwnTime(message) {
      try {
        return hasOwnTime(router, mapping, message);
      } catch (error) {
        if (error instanceof Unusable) return false;
        throw error;
      }
    },
  };
}

const certificatesOf = ({ birthsFolder }: MappingConfig): CertificateReader | null =>
  birthsFolder === undefined ? null : newCertificateReader(birthsFolder);

function mappingOf(router: Router, config: MappingConfig): Mapping {
  const knowsSenml = config.profiles.some(({ profile }) => profile === 'senml');

  /** @throws Unusable */
  function read(message: MappedMessage): readonly Reading[] {
    const { payload, properties, topic } = message;
    const { route: found, contentType: usual } = router.routeOf(message);
    let route = found;
    if (route.to === 'nothing') return [];
    if (route.to === 'readBytes') return route.read(message);
    // MQTT 5 lets a sender leave it empty.
    const contentType = properties?.contentType || usual;
    const format = formatOf(contentType);
    if (isPack(format)) {
      if (!knowsSenml) {
        throw new Unusable(`content type "${contentType}" needs the profile senml in the mapping file`);
      }
      route = senmlRoute;
    }
    if (route.to === 'refuse') throw new Unusable(route.reason);
    if (payload.length === 0 && route.emptyIsNothing) return [];
    const value =
      format === 'protobuf'
        ? router.protobuf.read(payload, contentType, topic)
        : decodePayload(payload, format);
    return withUserProperties(route.read(value, message), properties);
  }

  return message => {
    try {
      const readings = read(message);
      if (readings.length === 0) return NO_READINGS;
      let elements = 0;
      for (const reading of readings) elements += reading.elements.length;
      if (elements > limits.elementsPerMessageMax) {
        throw new Unusable(`message of ${elements} elements, at most ${limits.elementsPerMessageMax}`);
      }
      return { ok: true, readings };
    } catch (error) {
      return { ok: false, reason: refusalReason(error) };
    }
  };
}

/** @throws Unusable */
function hasOwnTime(router: Router, mapping: Mapping, message: MappedMessage): boolean {
  const { route, contentType: usual, isCommon } = router.routeOf(message);
  if (route.to === 'nothing') return false;
  if (route.to === 'readBytes') return route.hasOwnTime(message.payload);
  const contentType = message.properties?.contentType || usual;
  // The usual case, without taking the payload apart.
  if (isCommon && formatOf(contentType) === 'json') return hasOwnTimestamp(message.payload);
  // Arrival is taken away: a time that counts from it is none of the device's own.
  const outcome = mapping({ ...message, receivedAt: Number.NaN });
  if (!outcome.ok) return false;
  const elements = outcome.readings
    .flatMap(reading => reading.elements)
    .filter(({ names }) => names.length > 0);
  // A clock that was never set gives the same time again and again.
  return elements.length > 0 && elements.every(({ at }) => at !== null && at >= limits.earliestBelievedMs);
}

/** Without a mapping file: the common shapes. */
export const commonMapping: Mapping = compileMapping({ profiles: [], mappings: [] });
