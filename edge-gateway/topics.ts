/**
 * Common topic shapes, with no code: which device a message is from and what it is about. Pure.
 *
 *   devices/{id}/telemetry | events | status | location
 *   assets/{id}/telemetry
 *   sensors/{type}/{id}
 */
import type { Kind } from '../protocol/batch.ts';
import { DEVICE_ID_RULE, type DeviceId, isDeviceId } from '../protocol/ids.ts';

export interface Route {
  readonly device: DeviceId;
  readonly kind: Kind;
  /** Put in front of the names of an object's members; empty for telemetry. */
  readonly prefix: string;
  /** The metric's name when the payload is a bare value such as `21.5`. */
  readonly bareName: string;
}

export type RouteOutcome =
  | { readonly ok: true; readonly route: Route }
  | { readonly ok: false; readonly reason: string };

export const TOPIC_SHAPES =
  'devices/{id}/telemetry|events|status|location, assets/{id}/telemetry, sensors/{type}/{id}';

const deviceLeaves: Record<string, Omit<Route, 'device'>> = {
  telemetry: { kind: 'telemetry', prefix: '', bareName: 'value' },
  events: { kind: 'event', prefix: 'event.', bareName: 'event' },
  status: { kind: 'status', prefix: 'status.', bareName: 'status' },
  location: { kind: 'location', prefix: 'location.', bareName: 'location' },
};

export function routeTopic(topic: string): RouteOutcome {
  const levels = topic.split('/');
  const [family, first = '', second = ''] = levels;
  if (levels.length === 3) {
    if (family === 'devices' && Object.hasOwn(deviceLeaves, second))
      return routed(first, deviceLeaves[second]!);
    if (family === 'assets' && second === 'telemetry') return routed(first, deviceLeaves.telemetry!);
    if (family === 'sensors') return routed(second, { kind: 'telemetry', prefix: '', bareName: first });
  }
  return { ok: false, reason: `topic fits no shape: expected ${TOPIC_SHAPES}` };
}

function routed(device: string, rest: Omit<Route, 'device'>): RouteOutcome {
  if (!isDeviceId(device))
    return { ok: false, reason: `device name in the topic: expected ${DEVICE_ID_RULE}` };
  return { ok: true, route: { device, ...rest } };
}
