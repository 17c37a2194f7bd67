/**
 * Redis and its client: `LiveState` with the meaning of the two Lua scripts, against maps in memory. The server can be away,
 * slow, emptied under a living connection, or replaced by an earlier copy of itself.
 *
 *   away ─▶ connecting ─▶ lease confirmed ─▶ may write ─▶ all is written again
 */
import type { IncidentTransition } from '../cloud/actors/incident.ts';
import type { LiveState } from '../cloud/live-state.ts';
import { restoreTwin, storeTwin, viewStoredTwin } from '../cloud/twin-json.ts';
import type { Journal } from './journal.ts';
import type { Network } from './network.ts';
import type { Process, World } from './world.ts';

interface Site {
  fence: number;
  /** The server that every twin was written to; 0: none. */
  whole: number;
  readonly twins: Map<string, string>;
  readonly outbox: Map<string, string>;
  /** Newest first. */
  readonly told: string[];
}

export interface RedisModel {
  connect(
    process: Process,
    host: string,
    options: {
      confirmLease: () => Promise<void>;
      onWritable: () => unknown;
      isKnown: (site: string) => Promise<boolean>;
    },
  ): LiveState;
  stored(site: string, device: string): string | undefined;
  /** Whether the outbox took the transition under the epoch, ever. */
  tookInto(epoch: number, transition: IncidentTransition): boolean;
  stop(): void;
  start(): void;
  wipe(): void;
  remember(): void;
  /** As it was when it was told to remember, under new connections. */
  replaceByCopy(): void;
}

const RETRY_MS = { least: 50, more: 700 };

export function newRedis(
  world: World,
  network: Network,
  journal: Journal,
  bugs: { readonly skipFence: boolean },
): RedisModel {
  let sites = new Map<string, Site>();
  let remembered = new Map<string, Site>();
  let up = true;
  let generation = 1;
  /** The highest epoch that ever fenced a site, whatever Redis itself has forgotten. */
  const fencedBy = new Map<string, number>();
  /** `epoch transition` of all that any outbox ever took. */
  const taken = new Set<string>();
  /** A server that goes away closes its connections. */
  const onClosed = new Set<{ process: Process; closed: () => void }>();
  function closeAll(): void {
    generation++;
    for (const client of onClosed) {
      if (client.process.phase === 'dead') onClosed.delete(client);
      else world.after(1 + world.random() * 20, client.process, 'redis closed', client.closed);
    }
  }

  const siteOf = (site: string): Site => {
    let known = sites.get(site);
    if (!known) {
      known = { fence: -1, whole: 0, twins: new Map(), outbox: new Map(), told: [] };
      sites.set(site, known);
    }
    return known;
  };
  const copy = (of: Map<string, Site>) =>
    new Map(
      [...of].map(([name, site]) => [
        name,
        { ...site, twins: new Map(site.twins), outbox: new Map(site.outbox), told: [...site.told] },
      ]),
    );

  function fence(site: string, epoch: number): 'fenced' | 'stale-epoch' {
    const stored = siteOf(site);
    if (stored.fence > epoch && !bugs.skipFence) return 'stale-epoch';
    if (stored.fence === -1) stored.whole = 0;
    stored.fence = epoch;
    fencedBy.set(site, Math.max(fencedBy.get(site) ?? 0, epoch));
    return 'fenced';
  }

  function write(
    site: string,
    epoch: number,
    twins: readonly (readonly [string, string])[],
    outbox: readonly (readonly [string, string])[],
  ): 'written' | 'stale-epoch' | 'unfenced' {
    const stored = siteOf(site);
    if (!bugs.skipFence && stored.fence > epoch) return 'stale-epoch';
    if (!bugs.skipFence && stored.fence < epoch) return 'unfenced';
    if ((fencedBy.get(site) ?? 0) > epoch && twins.length > 0) {
      journal.staleEffects.push(`Redis took twins of ${site} under epoch ${epoch}`);
    }
    for (const [device, json] of twins) stored.twins.set(device, json);
    for (const [id, json] of outbox) {
      stored.outbox.set(id, json);
      taken.add(`${epoch} ${json}`);
    }
    return 'written';
  }

  return {
    stored: (site, device) => sites.get(site)?.twins.get(device),
    tookInto: (epoch, transition) => taken.has(`${epoch} ${JSON.stringify(transition)}`),
    connect(process, host, options) {
      let connection = 0;
      /** The server that it was made to: what goes to one that was replaced is lost, known or not. */
      let server = 0;
      let mayWrite = false;

      /** Rejects when the answer does not come on the connection that it was asked on. */
      function ask<T>(label: string, work: () => T): Promise<T> {
        return new Promise((resolve, reject) => {
          const of = connection;
          const lost = () => {
            world.after(network.noticeMs(), process, 'redis lost', () => {
              reject(new Error('Connection is closed.'));
              if (of === connection) disconnected();
            });
          };
          if (of === 0 || !network.reaches(host, 'redis')) return lost();
          const travel = network.travelMs(host, 'redis');
          const to = server;
          world.after(travel, null, label, () => {
            if (!up || to !== generation || !network.reaches(host, 'redis')) return lost();
            const value = work();
            world.after(network.travelMs('redis', host), process, 'redis answer', () => {
              if (of !== connection || !network.reaches(host, 'redis')) return lost();
              resolve(value);
            });
          });
        });
      }

      function disconnected(): void {
        connection = 0;
        mayWrite = false;
        world.after(RETRY_MS.least + world.random() * RETRY_MS.more, process, 'redis connect', connect);
      }

      function connect(): void {
        if (!up || !network.reaches(host, 'redis')) {
          world.after(RETRY_MS.least + world.random() * RETRY_MS.more, process, 'redis connect', connect);
          return;
        }
        connection = world.now() + world.random();
        const mine = connection;
        server = generation;
        world.after(network.travelMs('redis', host), process, 'redis ready', () => {
          void (async () => {
            try {
              await options.confirmLease();
              if (mine !== connection) return;
              if (server !== generation) return disconnected();
              mayWrite = true;
              await options.onWritable();
            } catch {
              if (mine === connection) disconnected();
            }
          })();
        });
      }
      onClosed.add({
        process,
        closed() {
          if (connection !== 0) disconnected();
        },
      });
      connect();

      async function isWhole(site: string): Promise<boolean> {
        if (await ask('redis whole', () => siteOf(site).whole === generation)) return true;
        if (!(await options.isKnown(site))) return false;
        throw new Error(`redis: site ${site} is being filled again`);
      }
      const view = (site: string, devices: readonly string[]) =>
        ask('redis mget', () => {
          const { twins } = siteOf(site);
          return devices.flatMap(device => {
            const json = twins.get(device);
            return json === undefined ? [] : [viewStoredTwin(site, device, json)];
          });
        });

      return {
        async fenceSite(site, epoch) {
          if (!mayWrite) return 'unavailable';
          return ask('redis fence', () => fence(site, epoch)).catch(() => 'unavailable' as const);
        },
        async markWhole(site) {
          if (!mayWrite) return;
          await ask('redis mark', () => {
            siteOf(site).whole = generation;
          }).catch(() => {});
        },
        async unfenced(epochs) {
          if (!mayWrite || epochs.size === 0) return [];
          return ask('redis fences', () =>
            [...epochs].filter(([site, epoch]) => siteOf(site).fence < epoch).map(([site]) => site),
          ).catch(() => []);
        },
        async writeTwins(site, epoch, twins, transitions) {
          if (!mayWrite) return 'unavailable';
          const stored = twins.map(twin => [twin.device, storeTwin(twin, epoch)] as const);
          const outbox = transitions.map(entry => [entry.id, JSON.stringify(entry)] as const);
          return ask(`redis write ${site} ${twins.length}`, () => write(site, epoch, stored, outbox)).catch(
            () => 'unavailable' as const,
          );
        },
        async loadSite(site) {
          return ask('redis load', () => {
            const { twins, outbox } = siteOf(site);
            return {
              twins: [...twins].map(([device, json]) => restoreTwin(site, device, json)!),
              outbox: [...outbox.values()].map(json => JSON.parse(json) as IncidentTransition),
            };
          }).catch(() => null);
        },
        async forgetOutbox(site, settled) {
          if (settled.length === 0 || !mayWrite) return;
          try {
            await ask('redis told', () => {
              const { outbox, told } = siteOf(site);
              for (const transition of settled) {
                const text = JSON.stringify(transition);
                if (outbox.get(transition.id) !== text) continue;
                outbox.delete(transition.id);
                told.unshift(text);
              }
            });
          } catch {
            // Kept until the site is activated again.
          }
        },
        told: site =>
          ask('redis lrange', () =>
            siteOf(site).told.map(text => JSON.parse(text) as IncidentTransition),
          ).catch(() => []),
        async remindTold(site, incidents) {
          if (incidents.length === 0 || !mayWrite) return;
          await ask('redis remind', () => {
            const { told } = siteOf(site);
            for (const text of incidents.map(incident => JSON.stringify(incident))) {
              if (!told.includes(text)) told.unshift(text);
            }
          }).catch(() => undefined);
        },
        async removeTwins(site, epoch, devices) {
          if (!mayWrite) return 'unavailable';
          return ask('redis remove', () => {
            const { fence, twins } = siteOf(site);
            if (fence > epoch) return 'stale-epoch' as const;
            if (fence < epoch) return 'unfenced' as const;
            for (const device of devices) twins.delete(device);
            return 'written' as const;
          }).catch(() => 'unavailable' as const);
        },
        async twin(site, device) {
          if (!(await isWhole(site))) return null;
          return (await view(site, [device]))[0] ?? null;
        },
        twins: async (site, devices) => ((await isWhole(site)) ? view(site, devices) : []),
        devices: async site =>
          (await isWhole(site)) ? ask('redis devices', () => [...siteOf(site).twins.keys()]) : [],
        get connected() {
          return mayWrite;
        },
        close: async () => {},
      };
    },
    stop() {
      up = false;
      closeAll();
    },
    start() {
      up = true;
    },
    wipe() {
      sites = new Map();
    },
    remember() {
      remembered = copy(sites);
    },
    replaceByCopy() {
      sites = copy(remembered);
      closeAll();
    },
  };
}
