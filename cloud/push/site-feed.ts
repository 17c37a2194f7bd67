/**
 * One watched site on a push node: a subscription on the bus, the versions sent on, and the topics that clients hold.
 *
 *   bus frame ─▶ judge each change ─▶ forward: topic site:<site> and topic twin:<site>/<device>
 *                                  └▶ gap: read the twin from Redis, publish its snapshot
 */
import type { NatsConnection } from '@nats-io/transport-node';
import type { Logger } from 'pino';
import type { SiteId } from '../../protocol/ids.ts';
import type { LiveState } from '../live-state.ts';
import type { TwinUpdates } from '../site-actor.ts';
import type { TwinView } from '../twin-json.ts';
import { subscribeUpdates } from './bus.ts';
import { isNews, judgeChange, type Known } from './feed.ts';
import { type Scope, snapshotMessage, updateMessage } from './messages.ts';

export interface SiteFeed {
  /** Hears every message of the site, before it is published, until released: for a client that is loading. */
  tap(listener: (device: string | null, message: string) => void): () => void;
  /** Clients that watch this device by itself. */
  watchTwin(device: string): () => void;
  snapshot(devices: readonly string[] | 'all'): Promise<TwinView[]>;
  close(): void;
}

/** Twins waiting for repair; more of them wait for the next gap to be noticed. */
const REPAIRS_MAX = 10_000;

export async function openSiteFeed(options: {
  site: SiteId;
  nats: NatsConnection;
  live: LiveState;
  logger: Logger;
  publish: (scope: Scope, message: string) => void;
}): Promise<SiteFeed> {
  const { site, live, logger } = options;
  const known = new Map<string, Known>();
  const taps = new Set<(device: string | null, message: string) => void>();
  const watched = new Map<string, number>();
  const repairs = new Set<string>();
  let repairing = false;
  let closed = false;

  const release = await subscribeUpdates(options.nats, site, receive);

  function receive(updates: TwinUpdates): void {
    const fragments: string[] = [];
    for (let i = 0; i < updates.devices.length; i++) {
      const device = updates.devices[i]!;
      const change = { epoch: updates.epoch, version: updates.versions[i]!, since: updates.since[i]! };
      const verdict = judgeChange(known.get(device), change);
      if (verdict === 'old') continue;
      if (verdict === 'gap') {
        repair(device);
        continue;
      }
      known.set(device, change);
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

  function repair(device: string): void {
    if (repairs.size >= REPAIRS_MAX) return;
    repairs.add(device);
    if (repairing) return;
    repairing = true;
    void (async () => {
      while (repairs.size > 0 && !closed) {
        const devices = [...repairs];
        repairs.clear();
        try {
          for (const twin of await snapshot(devices)) {
            const message = snapshotMessage(`twin:${site}/${twin.device}`, [twin], 1, 1);
            send(`site:${site}`, null, message);
            if (watched.has(twin.device)) send(`twin:${site}/${twin.device}`, twin.device, message);
          }
        } catch (error) {
          logger.debug(
            { site, reason: (error as Error).message },
            'push: gap not mended, the next change tries again',
          );
        }
      }
      repairing = false;
    })();
  }

  async function snapshot(devices: readonly string[] | 'all'): Promise<TwinView[]> {
    const twins = await live.twins(site, devices === 'all' ? await live.devices(site) : devices);
    for (const twin of twins) if (isNews(known.get(twin.device), twin)) known.set(twin.device, twin);
    return twins;
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
    close() {
      closed = true;
      release();
    },
  };
}
