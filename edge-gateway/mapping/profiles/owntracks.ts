/**
 * OwnTracks (https://owntracks.org/booklet/tech/json/).
 *
 *   <base>/<user>/<device>[/event|waypoint|step|beacon|status|…]   the payload's `_type` says what it is
 *
 *   location    location.lat, location.lon, …       at `tst`
 *   transition  event.event, event.desc, …          at `tst`
 *   beacon      event.beacon.…                      at `tst`
 *   steps       steps.…                             at `tst`
 *   waypoint    event.waypoint.…                    at arrival: its `tst` names the waypoint, for ever
 *   lwt         status `offline`                    at arrival: its `tst` is when the connection was made
 *   status      status.…                            at arrival
 *   card, cmd, configuration, waypoints, dump, request   nothing to store
 */
import type { Kind } from '../../../protocol/batch.ts';
import { readElement } from '../../payload.ts';
import { type Decoded, isMap, Unusable } from '../decoded.ts';
import { deviceFromPath } from '../device-name.ts';
import { below, connection, NOTHING, type Profile, reads, single } from '../route.ts';

interface Type {
  readonly kind: Kind;
  readonly prefix: string;
  /** Whether `tst` is the reading's time. */
  readonly timed: boolean;
}

const types: ReadonlyMap<Decoded, Type> = new Map<Decoded, Type>([
  ['location', { kind: 'location', prefix: 'location.', timed: true }],
  ['transition', { kind: 'event', prefix: 'event.', timed: true }],
  ['beacon', { kind: 'event', prefix: 'event.beacon.', timed: true }],
  ['steps', { kind: 'telemetry', prefix: 'steps.', timed: true }],
  ['waypoint', { kind: 'event', prefix: 'event.waypoint.', timed: false }],
  ['status', { kind: 'status', prefix: 'status.', timed: false }],
]);
const nothing = new Set<Decoded>(['card', 'cmd', 'configuration', 'waypoints', 'dump', 'request']);

export const owntracks = ({ base = 'owntracks' }: { base?: string | undefined }): Profile => ({
  takes: `${base}/{user}/{device}`,
  route(levels) {
    const path = below(base, levels);
    if (!path || path.length < 2 || path.length > 3) return null;
    if (path[2] === 'cmd' || path[2] === 'info') return NOTHING;
    const device = deviceFromPath(`${path[0]}/${path[1]}`);
    return reads(device, value => {
      if (!isMap(value))
        throw new Unusable('an OwnTracks message is an object with "_type", this is not one');
      const { _type, ...members } = value;
      if (nothing.has(_type)) return [];
      if (_type === 'lwt') return [connection(device, false)];
      if (_type === 'encrypted') throw new Unusable('an encrypted payload, and the gateway has no key');
      const type = types.get(_type);
      if (!type) throw new Unusable(`_type is none of ${[...types.keys(), ...nothing, 'lwt'].join(', ')}`);
      const { kind, prefix, timed } = type;
      const time = timed ? { field: 'tst', unit: 's' as const } : null;
      return [single(device, kind, readElement(members, { prefix, bareName: 'value', time }))];
    });
  },
});
