/**
 * Zigbee2MQTT (https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html).
 *
 *   <base>/<friendly name>               state: telemetry under its own names; `action` is an event
 *   <base>/<friendly name>/availability  `online` or {"state":"online"}: status
 *   <base>/<friendly name>/<attribute>   a bare value: output `attribute`
 *   <base>/bridge/…, …/set, …/get        metadata and commands: nothing to store
 *
 * Home Assistant's discovery (`homeassistant/…`) is metadata too. A friendly name may have slashes. `last_seen` is the reading's time, where Zigbee2MQTT is set to send it.
 */
import { readElement } from '../../payload.ts';
import { readTime } from '../../payload-time.ts';
import { type Decoded, isMap, Unusable } from '../decoded.ts';
import { deviceFromPath } from '../device-name.ts';
import {
  below,
  connection,
  isDiscovery,
  NOTHING,
  type Profile,
  type Reading,
  reads,
  single,
} from '../route.ts';

/** With device information switched on, every state repeats who made the device. */
const METADATA = /^device\./;

export const zigbee2mqtt = ({ base = 'zigbee2mqtt' }: { base?: string | undefined }): Profile => ({
  takes: `${base}/…`,
  route(levels) {
    if (isDiscovery(levels)) return NOTHING;
    const path = below(base, levels);
    if (!path || path.length === 0) return null;
    const command = path.findIndex((level, index) => index > 0 && (level === 'set' || level === 'get'));
    // A command may name one attribute: `<name>/set/brightness`.
    if (path[0] === 'bridge' || (command > 0 && command >= path.length - 2)) return NOTHING;
    if (path.length > 1 && path.at(-1) === 'availability') {
      const device = deviceFromPath(path.slice(0, -1).join('/'));
      return reads(device, value => [connection(device, isOnline(isMap(value) ? value.state : value))]);
    }
    return reads(null, value => (isMap(value) ? readState(path, value) : readAttribute(path, value)));
  },
});

function isOnline(state: Decoded): boolean {
  if (state === 'online' || state === 'offline') return state === 'online';
  throw new Unusable('availability is neither "online" nor "offline"');
}

function readState(path: readonly string[], state: { [name: string]: Decoded }): Reading[] {
  const device = deviceFromPath(path.join('/'));
  const { last_seen: lastSeen, action, ...rest } = state;
  const at = lastSeen === null || lastSeen === undefined ? null : readTime(lastSeen, 'auto');
  const telemetry = readElement(rest, {
    prefix: '',
    bareName: 'value',
    time: null,
    rename: name => (METADATA.test(name) ? null : name),
  });
  const readings = [single(device, 'telemetry', { ...telemetry, at })];
  // The empty action ends the one before; it is nothing that happened.
  if (typeof action === 'string' && action !== '') {
    const event = readElement(action, { prefix: '', bareName: 'event.action' });
    readings.push(single(device, 'event', { ...event, at }));
  }
  return readings;
}

function readAttribute(path: readonly string[], value: Decoded): Reading[] {
  if (path.length < 2) throw new Unusable('a Zigbee2MQTT state is an object, this is not one');
  const device = deviceFromPath(path.slice(0, -1).join('/'));
  return [single(device, 'telemetry', readElement(value, { prefix: '', bareName: path.at(-1)! }))];
}
