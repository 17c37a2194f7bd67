/**
 * Names on the wire. Every id is a branded string, so that a device name can never be passed where a site is
 * meant. Ids become NATS subject tokens, MQTT topic levels, file names and SQL keys, hence the narrow alphabet.
 */
import { randomBytes } from 'node:crypto';

declare const brand: unique symbol;
type Branded<Base, Name extends string> = Base & { readonly [brand]: Name };

/** A place; one or more gateways, many devices. The unit of ownership, sharding and access. */
export type SiteId = Branded<string, 'SiteId'>;
/** A gateway, unique within its site. */
export type GatewayId = Branded<string, 'GatewayId'>;
/** A device, unique within its site. Its full name is `site/device`. */
export type DeviceId = Branded<string, 'DeviceId'>;
/** One run of one gateway process: 32 hex digits, the first 12 of them the milliseconds of its start. */
export type LogId = Branded<string, 'LogId'>;

const ID_PATTERN = /^[A-Za-z0-9_-]{1,64}$/;
const DEVICE_ID_PATTERN = /^[A-Za-z0-9_.:-]{1,128}$/;
const LOG_ID_PATTERN = /^[0-9a-f]{32}$/;

export const isSiteId = (text: string): text is SiteId => ID_PATTERN.test(text);
export const isGatewayId = (text: string): text is GatewayId => ID_PATTERN.test(text);
export const isDeviceId = (text: string): text is DeviceId => DEVICE_ID_PATTERN.test(text);
export const isLogId = (text: string): text is LogId => LOG_ID_PATTERN.test(text);

export const ID_RULE = '1 to 64 of the characters A-Z a-z 0-9 _ -';
export const DEVICE_ID_RULE = '1 to 128 of the characters A-Z a-z 0-9 _ . : -';

/** @throws RangeError when `text` breaks {@link ID_RULE}. */
export function siteId(text: string): SiteId {
  if (!isSiteId(text)) throw new RangeError(`"${text}" is not a site name: ${ID_RULE}`);
  return text;
}

/** @throws RangeError when `text` breaks {@link ID_RULE}. */
export function gatewayId(text: string): GatewayId {
  if (!isGatewayId(text)) throw new RangeError(`"${text}" is not a gateway name: ${ID_RULE}`);
  return text;
}

/** @throws RangeError when `text` breaks {@link DEVICE_ID_RULE}. */
export function deviceId(text: string): DeviceId {
  if (!isDeviceId(text)) throw new RangeError(`"${text}" is not a device name: ${DEVICE_ID_RULE}`);
  return text;
}

/** @throws RangeError when `text` is not 32 lower-case hex digits. */
export function logId(text: string): LogId {
  if (!isLogId(text)) throw new RangeError(`"${text}" is not a log id: 32 lower-case hex digits`);
  return text;
}

/**
 * A fresh log id: like a UUIDv7, 48 bits of time (so that ids sort by start) and 80 random bits (so that a
 * cloned card or a restored image can never reuse a number).
 * @param nowMs wall clock, milliseconds since 1970
 */
export function newLogId(nowMs: number): LogId {
  const time = Math.trunc(nowMs).toString(16).padStart(12, '0').slice(-12);
  return (time + randomBytes(10).toString('hex')) as LogId;
}
