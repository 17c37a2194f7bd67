/**
 * One watched site on a push node: a subscription on the bus, the versions sent on, and the topics that clients hold.
 *
 *   bus frame ─▶ judge each change ─▶ forward: topic site:<site> and topic twin:<site>/<device>
 *                                  └▶ gap: read the twin from Redis, publish its snapshot
 *
 * What one client was given as its snapshot says nothing of what the others have: Redis is written before the bus, so
 * a snapshot may hold changes whose frames are still to come, and those still go on to everybody.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import type { Logger } from 'pino';
import type { SiteId } from '../../protocol/ids.ts';
import { hasBug } from '../../protocol/planted-bug.ts';
import type { LiveState } from '../live-state.ts';
import type { TwinUpdates } from '../site-actor.ts';
import type { TwinView } from '../twin-json.ts';
import { subscribeIncidents, subscribeUpdates } from './bus.ts';
import { isNews, judgeChange, type Known } from './feed.ts';
import { incidentsMessage, type Scope, snapshotMessage, updateMessage } from './messages.ts';

export interface SiteFeed {
  /** Hears every message of the site, before it is published, until released: for a client that is loading. */
  tap(listener: (device: string | null, message: string) => void): () => void;
  /** Clients that watch this device by itself. */
  watchTwin(device: string): () => void;
  /** Reads twins for one client. */
  snapshot(devices: readonly string[] | 'all'): Promise<TwinView[]>;
  /** The bus was cut: publishes every twin that moved on meanwhile, also one that is silent from now on. */
  resync(): void;
  close(): void;
}

/** `sent`: clients have it from the topics; otherwise it was only read, for one of them. */
type FeedKnown = Known & { readonly sent: boolean };

/** Twins waiting for repair; more of them wait for the next gap to be noticed. */
const REPAIRS_MAX = 10_000;
const REPAIR_AGAIN_MS = 200;
/** What Redis does not get by then was never written: the next change tries again. */
const REPAIR_FOR_MS = 60_000;

export async function openSiteFeed(options: {
  site: SiteId;
  nats: NatsConnection;
  live: LiveState;
  logger: Logger;
  publish: (scope: Scope, message: string) => void;
}): Promise<SiteFeed> {
  const { site, live, logger } = options;
  const known = new Map<string, FeedKnown>();
  const taps = new Set<(device: string | null, message: string) => void>();
  const watched = new Map<string, number>();
  const repairs = new Map<string, { readonly least: Known; readonly until: number }>();
  /** Of the site's owner. */
  let epoch = 0;
  let repairing = false;
  let closed = false;

  const releaseIncidents = subscribeIncidents(options.nats, site, incidents => {
    send(`site:${site}`, null, incidentsMessage(site, incidents));
    for (const [device, of] of Map.groupBy(incidents, incident => incident.device)) {
      if (device !== null && watched.has(device)) {
        send(`twin:${site}/${device}`, device, incidentsMessage(site, of));
      }
    }
  });
  const release = await subscribeUpdates(options.nats, site, receive);

  function receive(updates: TwinUpdates): void {
    // An owner that was frozen, and does not know yet that it is none any more (D).
    if (updates.epoch < epoch && !hasBug('push-without-epoch')) return;
    epoch = updates.epoch;
    const fragments: string[] = [];
    for (let i = 0; i < updates.devices.length; i++) {
      const device = updates.devices[i]!;
      const change = { epoch: updates.epoch, version: updates.versions[i]!, since: updates.since[i]! };
      const before = known.get(device);
      const readAhead = before && !before.sent && before.epoch === change.epoch;
      if (!readAhead || change.version > before.version) {
        const verdict = judgeChange(before, change);
        if (verdict === 'old') continue;
        if (verdict === 'gap') {
          repair(device, change);
          continue;
        }
        known.set(device, { epoch: change.epoch, version: change.version, sent: true });
      }
      const fragment = updates.fragments[i]!;
      fragments.push(fragment);
      if (watched.has(device)) send(`twin:${site}/${device}`, device, updateMessage(site, [fragment]));
    }
    if (fragments.length > 0) send(`site:${site}`, null, updateMessage(site, fragments));
  }

  function send(scope: Scope, device: string | null, message: string): void {
    for (const tap of taps) tap(device, message);
    options.publish(scope, message);
  }

  /** @param least what Redis is to have of it: one that was away, or came back older, gets it from the owner first (R) */
  function repair(device: string, least: Known): void {
    if (repairs.size >= REPAIRS_MAX && !repairs.has(device)) return;
    repairs.set(device, { least, until: performance.now() + REPAIR_FOR_MS });
    if (repairing) return;
    repairing = true;
    void (async () => {
      while (repairs.size > 0 && !closed) {
        const asked = new Map(repairs);
        let failed = false;
        try {
          const twins = await live.twins(site, [...asked.keys()]);
          publish(twins);
          const behind = new Set(
            twins
              .filter(twin => !isNews(asked.get(twin.device)!.least, twin))
              .map(({ device: name }) => name),
          );
          for (const [name, of] of asked) {
            const isOver = !behind.has(name) || performance.now() > of.until;
            // Unless a later change has asked meanwhile.
            if (isOver && repairs.get(name) === of) repairs.delete(name);
          }
        } catch (error) {
          logger.debug({ site, reason: (error as Error).message }, 'push: gap not mended, trying again');
          failed = true;
          for (const [name, { until }] of repairs) if (performance.now() > until) repairs.delete(name);
        }
        const isAsked = [...repairs].some(([name, of]) => asked.get(name) !== of);
        if (repairs.size > 0 && (failed || !isAsked))
          await new Promise(resolve => setTimeout(resolve, REPAIR_AGAIN_MS));
      }
      repairing = false;
    })();
  }

  /** A Redis that came back older is no news: nothing of it is shown (C). */
  function publish(twins: readonly TwinView[]): void {
    for (const twin of twins) {
      const { device, epoch, version } = twin;
      if (!isNews(known.get(device), twin)) continue;
      known.set(device, { epoch, version, sent: true });
      const message = snapshotMessage(`twin:${site}/${device}`, [twin], 1, 1);
      send(`site:${site}`, null, message);
      if (watched.has(device)) send(`twin:${site}/${device}`, device, message);
    }
  }

  const readAll = async () => live.twins(site, await live.devices(site));

  async function snapshot(devices: readonly string[] | 'all'): Promise<TwinView[]> {
    const twins = await (devices === 'all' ? readAll() : live.twins(site, devices));
    for (const { device, epoch, version } of twins) {
      const before = known.get(device);
      if (!before) known.set(device, { epoch, version, sent: false });
      if (!before?.sent || isNews(before, { epoch, version })) continue;
      // Others were shown more already: Redis came back older. This client gets it with all of them.
      known.set(device, { epoch, version, sent: true });
      repair(device, before);
    }
    return twins;
  }

  async function resync(): Promise<void> {
    try {
      const moved = (twin: TwinView) => {
        const { epoch, version } = known.get(twin.device) ?? { epoch: 0, version: 0 };
        return twin.epoch !== epoch || twin.version !== version;
      };
      publish((await readAll()).filter(moved));
    } catch (error) {
      logger.debug({ site, reason: (error as Error).message }, 'push: not read again, the next change tries');
    }
  }

  return {
    tap(listener) {
      taps.add(listener);
      return () => taps.delete(listener);
    },
    watchTwin(device) {
      watched.set(device, (watched.get(device) ?? 0) + 1);
      return () => {
        const left = watched.get(device)! - 1;
        if (left > 0) watched.set(device, left);
        else watched.delete(device);
      };
    },
    snapshot,
    resync: () => void resync(),
    close() {
      closed = true;
      releaseIncidents();
      release();
    },
  };
}
