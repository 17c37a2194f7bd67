/**
 * The bus between actor nodes and push nodes: changed twins per site over core NATS. What is lost here is noticed by
 * version and read again from Redis, so the bus needs no memory of its own. Only cloud nodes may use its subjects.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import { Packr } from 'msgpackr';
import type { SiteId } from '../../protocol/ids.ts';
import { pushSubject } from '../../protocol/subjects.ts';
import type { TwinUpdates } from '../site-actor.ts';

type Frame = Omit<TwinUpdates, 'site'>;

const packr = new Packr({ useRecords: false });

/** Characters of JSON in one frame: keeps it well below the NATS payload limit. */
const CHARACTERS_PER_FRAME = 256 * 1024;

export function publishUpdates(nats: NatsConnection, updates: TwinUpdates): void {
  const { epoch, devices, since, versions, fragments } = updates;
  let start = 0;
  let characters = 0;
  for (let end = 1; end <= devices.length; end++) {
    characters += fragments[end - 1]!.length;
    if (end < devices.length && characters < CHARACTERS_PER_FRAME) continue;
    const frame: Frame = {
      epoch,
      devices: devices.slice(start, end),
      since: since.slice(start, end),
      versions: versions.slice(start, end),
      fragments: fragments.slice(start, end),
    };
    nats.publish(pushSubject(updates.site), packr.pack(frame));
    start = end;
    characters = 0;
  }
}

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
