/** What a mapping is made of: a topic leads to a route, a route turns values into readings. */
import type { Kind } from '../../protocol/batch.ts';
import type { DeviceId } from '../../protocol/ids.ts';
import type { MessageProperties } from '../log/frame-properties.ts';
import type { Element } from '../payload.ts';
import type { Decoded } from './decoded.ts';

/** A message as far as a mapping looks at it. */
export interface MappedMessage {
  readonly topic: string;
  readonly payload: Uint8Array;
  /** Wall clock at arrival, milliseconds since 1970. */
  readonly receivedAt: number;
  readonly properties?: MessageProperties | undefined;
}

/** Elements of one device and kind, of one message. */
export interface Reading {
  readonly device: DeviceId;
  readonly kind: Kind;
  readonly elements: readonly Element[];
}

/** No readings and `ok`: there is nothing to store, and nothing wrong. */
export type MessageOutcome =
  | { readonly ok: true; readonly readings: readonly Reading[] }
  | { readonly ok: false; readonly reason: string };

/** @throws nothing: a refusal is an outcome (H) */
export type Mapping = (message: MappedMessage) => MessageOutcome;

export type TopicRoute =
  | {
      readonly to: 'read';
      /** Whom all of the topic's messages are from, where the topic says so. */
      readonly device?: DeviceId | undefined;
      /** Besides `devices/{device}/`, where a receipt may go. */
      readonly receipts?: string | undefined;
      /** When the message has no content type of its own. */
      readonly contentType?: string | undefined;
      /** An empty payload is nothing to store: MQTT deletes retained messages so. */
      readonly emptyIsNothing?: boolean;
      /** @throws Unusable */
      readonly read: (value: Decoded, message: MappedMessage) => readonly Reading[];
    }
  | {
      /** A format of its own, whatever the content type says. */
      readonly to: 'readBytes';
      readonly device: DeviceId;
      /** @throws Unusable */
      readonly read: (message: MappedMessage) => readonly Reading[];
      /** Whether a payload carries the device's own time, so that the same again is a retry. @throws Unusable */
      readonly hasOwnTime: (payload: Uint8Array) => boolean;
    }
  | { readonly to: 'nothing' }
  | { readonly to: 'refuse'; readonly reason: string };

/** A ready mapping for one family of devices. */
export interface Profile {
  /** What it takes, for the reason when a topic fits nothing. */
  readonly takes: string;
  /** @returns null when the topic is none of its own. @throws Unusable */
  readonly route: (levels: readonly string[]) => TopicRoute | null;
}

export const NOTHING: TopicRoute = { to: 'nothing' };

/**
 * A route for payloads that devices send as JSON or as bare text without quotes.
 * @param device null when the topic alone does not tell it
 */
export const reads = (
  device: DeviceId | null,
  read: (value: Decoded, message: MappedMessage) => readonly Reading[],
): TopicRoute => ({
  to: 'read',
  ...(device !== null && { device }),
  contentType: 'text/plain',
  emptyIsNothing: true,
  read,
});

/** The levels after those of `base`, or null when the topic lies elsewhere. */
export function below(base: string, levels: readonly string[]): readonly string[] | null {
  if (base === '') return levels;
  const baseLevels = base.split('/');
  return baseLevels.every((level, index) => levels[index] === level) ? levels.slice(baseLevels.length) : null;
}

/** What several of the families publish about themselves for Home Assistant. */
export const isDiscovery = (levels: readonly string[]): boolean => levels[0] === 'homeassistant';

/** One reading of one element. */
export const single = (device: DeviceId, kind: Kind, element: Element): Reading => ({
  device,
  kind,
  elements: [element],
});

/** The state of a connection, the same for every family of devices. */
export const connection = (device: DeviceId, online: boolean): Reading =>
  single(device, 'status', { at: null, names: ['status'], values: [online ? 'online' : 'offline'] });
