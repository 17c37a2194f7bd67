/**
 * The bus between actor nodes and push nodes: changed twins per site over core NATS. What is lost here is noticed by
 * version and read again from Redis, so the bus needs no memory of its own. Only cloud nodes may use its subjects.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import { Packr } from 'msgpackr';
import type { SiteId } from '../../protocol/ids.ts';
import { pushIncidentsSubject, pushSubject } from '../../protocol/subjects.ts';
import type { IncidentTransition } from '../actors/incident.ts';
import type { TwinUpdates } from '../site-actor.ts';

type Frame = Omit<TwinUpdates, 'site'>;

const packr = new Packr({ useRecords: false });

/** Characters of JSON in one frame: keeps it well below the NATS payload limit. */
const CHARACTERS_PER_FRAME = 256 * 1024;

export function publishUpdates(nats: NatsConnection, updates: TwinUpdates): void {
  const { devices, fragments } = updates;
  // Without changes it says who owns the site now.
  if (devices.length === 0) nats.publish(pushSubject(updates.site), packr.pack(frameOf(updates, 0, 0)));
  let start = 0;
  let characters = 0;
  for (let end = 1; end <= devices.length; end++) {
    characters += fragments[end - 1]!.length;
    if (end < devices.length && characters < CHARACTERS_PER_FRAME) continue;
    nats.publish(pushSubject(updates.site), packr.pack(frameOf(updates, start, end)));
    start = end;
    characters = 0;
  }
}

/** Some 1 KB each: keeps a frame well below the NATS payload limit. */
const INCIDENTS_PER_FRAME = 200;

/** Dashboards read incidents again now and then: what is lost here comes late, not never. */
export function publishIncidents(nats: NatsConnection, transitions: readonly IncidentTransition[]): void {
  if (nats.isClosed()) return;
  for (const [site, of] of Map.groupBy(transitions, transition => transition.site as SiteId)) {
    for (let start = 0; start < of.length; start += INCIDENTS_PER_FRAME) {
      nats.publish(pushIncidentsSubject(site), packr.pack(of.slice(start, start + INCIDENTS_PER_FRAME)));
    }
  }
}

/** @returns the release of the subscription. */
export function subscribeIncidents(
  nats: NatsConnection,
  site: SiteId,
  listener: (transitions: readonly IncidentTransition[]) => void,
): () => void {
  const subscription = nats.subscribe(pushIncidentsSubject(site), {
    callback: (error, message) => {
      if (!error) listener(packr.unpack(message.data) as IncidentTransition[]);
    },
  });
  return () => subscription.unsubscribe();
}

const frameOf = (updates: TwinUpdates, start: number, end: number): Frame => ({
  epoch: updates.epoch,
  devices: updates.devices.slice(start, end),
  since: updates.since.slice(start, end),
  versions: updates.versions.slice(start, end),
  fragments: updates.fragments.slice(start, end),
});

/** @returns the release of the subscription, once the server has it. */
export async function subscribeUpdates(
  nats: NatsConnection,
  site: SiteId,
  listener: (updates: TwinUpdates) => void,
): Promise<() => void> {
  const subscription = nats.subscribe(pushSubject(site), {
    callback: (error, message) => {
      if (!error) listener({ site, ...(packr.unpack(message.data) as Frame) });
    },
  });
  await nats.flush();
  return () => subscription.unsubscribe();
}
