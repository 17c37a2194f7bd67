/**
 * Tasmota (https://tasmota.github.io/docs/MQTT/), with the full topic `%prefix%/%topic%/`.
 *
 *   tele/<topic>/SENSOR, STATE   telemetry: ENERGY.Power, AM2301.Temperature, POWER, Wifi.RSSI
 *   tele/<topic>/LWT             `Online`, `Offline`: status
 *   stat/<topic>/POWER…          telemetry
 *   stat|tele/<topic>/RESULT     what it switched: telemetry; buttons, switches, codes received: events; answers to
 *                                commands: nothing
 *   tele/<topic>/INFO…, stat/<topic>/STATUS…, cmnd/…, tasmota/discovery/…, homeassistant/…: metadata and
 *                                commands, nothing
 *
 * `Time` has no zone: it is local to the device. It is the reading's time when the mapping file says which zone that
 * is; otherwise the time of arrival is, because a guess would be wrong by hours without anybody seeing it.
 */
import type { DeviceId } from '../../../protocol/ids.ts';
import { readElement } from '../../payload.ts';
import { hasZone, readTime } from '../../payload-time.ts';
import { type Decoded, type DecodedMap, isMap, Unusable } from '../decoded.ts';
import { deviceFromPath } from '../device-name.ts';
import { localToUtc } from '../local-time.ts';
import {
  below,
  connection,
  isDiscovery,
  NOTHING,
  type Profile,
  type Reading,
  reads,
  single,
  type TopicRoute,
} from '../route.ts';

const STATE = /^(POWER\d*|Dimmer\d*|Color|HSBColor|White|CT|Channel\d*|Shutter\d+|Fade|Speed|Scheme)$/;
const EVENT = /^(Button\d+|Switch\d+|RfReceived|IrReceived|RfidReceived|ZbReceived|SerialReceived|PN532)$/;

export function tasmota(options: { base?: string | undefined; timeZone?: string | undefined }): Profile {
  const { base = '', timeZone } = options;
  const at = base === '' ? '' : `${base}/`;
  return {
    takes: `${at}tele/…, ${at}stat/…`,
    route(levels) {
      if (isDiscovery(levels) || (levels[0] === 'tasmota' && levels[1] === 'discovery')) return NOTHING;
      const path = below(base, levels);
      if (!path) return null;
      const [prefix] = path;
      if (path.length < 3 || (prefix !== 'tele' && prefix !== 'stat' && prefix !== 'cmnd')) return null;
      if (prefix === 'cmnd') return NOTHING;
      return routeLeaf(prefix, deviceFromPath(path.slice(1, -1).join('/')), path.at(-1)!, timeZone);
    },
  };
}

function routeLeaf(
  prefix: 'tele' | 'stat',
  device: DeviceId,
  leaf: string,
  timeZone: string | undefined,
): TopicRoute {
  if (prefix === 'tele' && leaf === 'LWT') {
    return reads(device, value => [connection(device, isOnline(value))]);
  }
  if (prefix === 'tele' && (leaf === 'SENSOR' || leaf === 'STATE')) {
    return reads(device, value => [readMembers(device, mapOf(value), timeZone)]);
  }
  if (leaf === 'RESULT') return reads(device, value => readResult(device, mapOf(value), timeZone));
  if (prefix === 'stat' && /^POWER\d*$/.test(leaf)) {
    return reads(device, value => [
      single(device, 'telemetry', readElement(value, { prefix: '', bareName: leaf, time: null })),
    ]);
  }
  return NOTHING;
}

function isOnline(value: Decoded): boolean {
  if (value === 'Online' || value === 'Offline') return value === 'Online';
  throw new Unusable('LWT is neither "Online" nor "Offline"');
}

function mapOf(value: Decoded): DecodedMap {
  if (isMap(value)) return value;
  throw new Unusable('a Tasmota message is an object, this is not one');
}

function readMembers(device: DeviceId, { Time, ...members }: DecodedMap, timeZone: string | undefined) {
  const element = readElement(members, { prefix: '', bareName: 'value', time: null });
  return single(device, 'telemetry', { ...element, at: readLocal(Time, timeZone) });
}

function readLocal(time: Decoded, timeZone: string | undefined): number | null {
  if (time === null || time === undefined) return null;
  const at = readTime(time, 'auto');
  if (typeof time !== 'string' || hasZone(time)) return at;
  return timeZone === undefined ? null : localToUtc(at, timeZone);
}

function readResult(device: DeviceId, result: DecodedMap, timeZone: string | undefined): Reading[] {
  const state: DecodedMap = { Time: result.Time };
  const events: DecodedMap = {};
  for (const name in result) {
    if (STATE.test(name)) state[name] = result[name];
    else if (EVENT.test(name)) events[name] = result[name];
  }
  const telemetry = readMembers(device, state, timeZone);
  const event = readElement(events, { prefix: 'event.', bareName: 'event', time: null });
  return [telemetry, single(device, 'event', { ...event, at: telemetry.elements[0]!.at })];
}
