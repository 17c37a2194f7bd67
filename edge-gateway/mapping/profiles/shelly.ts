/**
 * Shelly, both generations (https://shelly-api-docs.shelly.cloud/).
 *
 *   Gen1   shellies/<id>/relay/0, …/relay/0/power, …/sensor/temperature   bare values: relay.0, relay.0.power, …
 *          shellies/<id>/online                                           status
 *          shellies/<id>/input_event/0                                    event
 *          shellies/<id>/announce, …/info, …/command, …/set               metadata and commands: nothing
 *   Gen2+  <id>/events/rpc         NotifyStatus, NotifyFullStatus at their `ts`: switch:0.output, …; NotifyEvent: events
 *          <id>/status/<component> the same names, at arrival
 *          <id>/online             status
 *          <id>/rpc, …/command     commands: nothing
 *
 * A Gen2 device's topic prefix is its id, `shelly…`, unless somebody changed it: below `shellies/`, and below the
 * `base` of the mapping file, it may be anything.
 */
import type { DeviceId } from '../../../protocol/ids.ts';
import { readElement } from '../../payload.ts';
import { readTime } from '../../payload-time.ts';
import { type Decoded, type DecodedMap, isMap, Unusable } from '../decoded.ts';
import { deviceFromPath } from '../device-name.ts';
import {
  below,
  connection,
  NOTHING,
  type Profile,
  type Reading,
  reads,
  single,
  type TopicRoute,
} from '../route.ts';

const GEN1_BASE = 'shellies';

export const shelly = ({ base }: { base?: string | undefined }): Profile => ({
  takes: `${base === undefined ? '' : `${base}/…, `}${GEN1_BASE}/…, shelly…/events/rpc|status|online`,
  route(levels) {
    if (base !== undefined) {
      const path = below(base, levels);
      const route = path && routeGen2(path);
      if (route) return route;
    }
    if (levels[0] === GEN1_BASE) return routeGen2(levels.slice(1)) ?? routeGen1(levels.slice(1));
    return levels[0]!.startsWith('shelly') ? routeGen2(levels) : null;
  },
});

function routeGen1([id = '', ...path]: readonly string[]): TopicRoute | null {
  // `shellies/announce` and `shellies/command` concern all of them.
  if (path.length === 0) return id === 'announce' || id === 'command' ? NOTHING : null;
  const leaf = path.at(-1)!;
  if (['announce', 'info', 'command', 'set', 'settings'].includes(leaf)) return NOTHING;
  const device = deviceFromPath(id);
  const name = path.join('.');
  const isEvent = path[0] === 'input_event';
  const shape = { prefix: isEvent ? 'event.' : '', bareName: name, time: null };
  // As a member: what it says may be bare, an object or a list.
  return reads(device, value => [
    single(device, isEvent ? 'event' : 'telemetry', readElement({ [name]: value }, shape)),
  ]);
}

function routeGen2(path: readonly string[]): TopicRoute | null {
  const device = (levelsAfter: number) => deviceFromPath(path.slice(0, -levelsAfter).join('/'));
  const [above, last] = [path.at(-2), path.at(-1)];
  if (path.length >= 2 && last === 'online') {
    const from = device(1);
    return reads(from, value => [connection(from, isOnline(value))]);
  }
  if (path.length >= 3 && above === 'events' && last === 'rpc') {
    const from = device(2);
    return reads(from, value => readNotification(from, value));
  }
  // Gen1 has no component below `status`; Gen2 has `status/switch:0`, `status/sys`.
  if (path.length >= 3 && above === 'status') {
    const from = device(2);
    return reads(from, value => [single(from, 'telemetry', readComponents({ [last!]: value }))]);
  }
  if (path.length >= 2 && (last === 'rpc' || last === 'command' || above === 'command' || above === 'debug'))
    return NOTHING;
  return null;
}

function isOnline(value: Decoded): boolean {
  if (typeof value === 'boolean') return value;
  throw new Unusable('online is neither true nor false');
}

function readNotification(device: DeviceId, value: Decoded): Reading[] {
  if (!isMap(value) || !isMap(value.params)) throw new Unusable('a notification has "method" and "params"');
  const { ts, ...params } = value.params;
  const at = ts === null || ts === undefined ? null : readTime(ts, 's');
  if (value.method === 'NotifyStatus' || value.method === 'NotifyFullStatus') {
    return [single(device, 'telemetry', { ...readComponents(params), at })];
  }
  if (value.method === 'NotifyEvent') return readEvents(device, params.events, at);
  throw new Unusable('the method is none of NotifyStatus, NotifyFullStatus, NotifyEvent');
}

/** A component's `id` repeats its name. */
function readComponents(components: DecodedMap) {
  return readElement(components, {
    prefix: '',
    bareName: 'value',
    time: null,
    rename: name => (/^[a-z0-9]+:\d+\.id$/.test(name) ? null : name),
  });
}

function readEvents(device: DeviceId, events: Decoded, at: number | null): Reading[] {
  if (!Array.isArray(events)) throw new Unusable('NotifyEvent without a list of events');
  return events.map(event => {
    if (!isMap(event) || typeof event.component !== 'string' || typeof event.event !== 'string') {
      throw new Unusable('an event has "component" and "event"');
    }
    const element = readElement(event.event, { prefix: '', bareName: `event.${event.component}` });
    return single(device, 'event', {
      ...element,
      at: typeof event.ts === 'number' ? readTime(event.ts, 's') : at,
    });
  });
}
