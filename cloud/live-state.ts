/**
 * Live state in Redis: what dashboards and the API read, and what a node that takes over goes on from.
 *
 *   {site}:fence         the epoch of the site's owner; only it writes (D)
 *   {site}:whole         the run of the server that the owner has written every twin to: under another one, as on a copy that
 *                        has taken its place, the site is being filled
 *   {site}:twins         sorted set: device → last write in ms, the list of the site's twins
 *   {site}:twin:<device> the twin as stored JSON, with a time to live
 *   {site}:outbox        hash: incident id → transition not yet in history
 *   {site}:told          list: the last ones that history has, newest first, for a history that was restored from a backup
 *
 * `{site}` is the Redis Cluster hash tag: a site lives in one slot. Redis is losable: after it came back empty or
 * older, the owner writes everything again from its memory (R). A new connection may write only after
 * `confirmLease` has read the lease again, and a site only after it was fenced: a fence that is gone under a living
 * connection (FLUSHALL) is noticed by the next write, and every two seconds by who owns the site.
 */
import { readFile } from 'node:fs/promises';
import { Redis, type Result } from 'ioredis';
import type { Logger } from 'pino';
import { hasBug } from '../protocol/planted-bug.ts';
import type { IncidentTransition } from './actors/incident.ts';
import type { TwinState } from './actors/twin.ts';
import { restoreTwin, storeTwin, type TwinView, viewStoredTwin } from './twin-json.ts';

declare module 'ioredis' {
  interface RedisCommander<Context> {
    writeTwins(...keyCountKeysAndArguments: string[]): Result<number, Context>;
    fenceSite(fence: string, whole: string, epoch: string): Result<number, Context>;
    removeTwins(...keyCountKeysAndArguments: string[]): Result<number, Context>;
    settleOutbox(outbox: string, told: string, ...lengthAndTransitions: string[]): Result<number, Context>;
  }
}

/** `unfenced`: this Redis came back empty or older; the site has to be fenced, and written, again. */
export type WriteOutcome = 'written' | 'stale-epoch' | 'unfenced' | 'unavailable';
export type FenceOutcome = 'fenced' | 'stale-epoch' | 'unavailable';

/** Twins per script call: keeps one call under some 2 ms, so that readers are never held up for long. */
const TWINS_PER_CALL = 500;
const READ_CHUNK = 500;
/** Incidents of a site that a history restored from a backup gets back. */
const TOLD_MAX = 1000;
const READER_WAIT_MS = 2000;
/** Of a server that does not tell its run. */
const NO_RUN = 'unknown';

export interface LiveState {
  /** From now on no earlier epoch writes for the site. Comes before it is loaded. */
  fenceSite(site: string, epoch: number): Promise<FenceOutcome>;
  /** Every twin is written: readers may have them. */
  markWhole(site: string): Promise<void>;
  /** Those of the sites that have lost their fence of this epoch; empty when Redis does not answer. */
  unfenced(sites: ReadonlyMap<string, number>): Promise<string[]>;
  writeTwins(
    site: string,
    epoch: number,
    twins: readonly TwinState[],
    transitions: readonly IncidentTransition[],
  ): Promise<WriteOutcome>;
  /**
   * All that is stored of a site; null when Redis does not answer. Twins of which `isKnown` says so, from their stored
   * text, are left out: reading the text of a large site is most of the time that a takeover takes.
   */
  loadSite(
    site: string,
    isKnown?: (device: string, text: string) => boolean,
  ): Promise<{ twins: TwinState[]; outbox: IncidentTransition[] } | null>;
  /** History has them, as they are here: what has become of one since stays. */
  forgetOutbox(site: string, settled: readonly IncidentTransition[]): Promise<void>;
  /** The last incidents that history had; empty when Redis does not answer. */
  told(site: string): Promise<IncidentTransition[]>;
  /** History has them, and Redis, which was away or empty, may not. @param incidents oldest first */
  remindTold(site: string, incidents: readonly IncidentTransition[]): Promise<void>;
  /** Twins that go by another name now. */
  removeTwins(site: string, epoch: number, devices: readonly string[]): Promise<WriteOutcome>;
  twin(site: string, device: string): Promise<TwinView | null>;
  twins(site: string, devices: readonly string[]): Promise<TwinView[]>;
  devices(site: string): Promise<string[]>;
  readonly connected: boolean;
  close(): Promise<void>;
}

const keys = {
  fence: (site: string) => `{${site}}:fence`,
  whole: (site: string) => `{${site}}:whole`,
  index: (site: string) => `{${site}}:twins`,
  twin: (site: string, device: string) => `{${site}}:twin:${device}`,
  outbox: (site: string) => `{${site}}:outbox`,
  told: (site: string) => `{${site}}:told`,
};

export async function openLiveState(options: {
  url: string;
  twinTtlSeconds: number;
  logger: Logger;
  /** A connection is new: writing goes on when the promise resolves. Must read the lease again (D). */
  confirmLease: () => Promise<void>;
  /** Writing goes on: whatever Redis missed, or lost, has to be written again (R). */
  onWritable: () => unknown;
  /** Whether history has the site: one that Redis does not have is being filled then, and else unknown. */
  isKnown: (site: string) => Promise<boolean>;
}): Promise<LiveState> {
  const { logger, twinTtlSeconds } = options;
  const script = (name: string) => readFile(new URL(name, import.meta.url), 'utf8');
  const scripts = {
    writeTwins: { lua: await script('./live-state.lua') },
    fenceSite: { lua: await script('./live-state-fence.lua'), numberOfKeys: 2 },
    removeTwins: { lua: await script('./live-state-remove.lua') },
    settleOutbox: { lua: await script('./live-state-settled.lua'), numberOfKeys: 2 },
  };
  const settings = {
    // A command that was not answered must never be sent again on another connection (D).
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    commandTimeout: 5000,
    connectTimeout: 5000,
    lazyConnect: true,
    retryStrategy: (attempt: number) => Math.min(50 * 2 ** attempt, 1000) * (0.5 + Math.random()),
  };
  const { promise: firstConnection, resolve: resolveFirst } = Promise.withResolvers<void>();
  const writer = new Redis(options.url, { ...settings, scripts });
  const reader = new Redis(options.url, settings);
  const runs = { writer: followRun(writer), reader: followRun(reader) };
  let mayWrite = false;
  let connection = 0;
  let closed = false;

  let lastReason = '';
  const onError = (error: Error) => {
    if (error.message !== lastReason)
      logger.warn({ reason: error.message }, 'redis: no connection, retrying');
    lastReason = error.message;
  };
  writer.on('error', onError);
  reader.on('error', onError);
  writer.on('close', () => {
    mayWrite = false;
  });
  writer.on('ready', () => {
    const mine = ++connection;
    void (async () => {
      try {
        // What is written again is merged with what Redis has, which comes by the other connection (C).
        await readerReady();
        await options.confirmLease();
        // A lease that was read for an earlier connection says nothing about this one (D).
        if (mine !== connection || writer.status !== 'ready') return;
        mayWrite = true;
        lastReason = '';
        logger.info('redis: connected');
        await options.onWritable();
        resolveFirst();
      } catch (error) {
        logger.warn({ reason: (error as Error).message }, 'redis: lease not confirmed, connecting again');
        if (!closed && mine === connection) writer.disconnect(true);
      }
    })();
  });
  function readerReady(): Promise<void> {
    if (reader.status === 'ready') return Promise.resolve();
    return new Promise(resolve => {
      const done = () => {
        clearTimeout(timer);
        reader.off('ready', done);
        resolve();
      };
      const timer = setTimeout(done, READER_WAIT_MS);
      reader.on('ready', done);
    });
  }

  // Unreachable at start is no reason to stop: the supervisor inside the client goes on trying.
  await Promise.allSettled([writer.connect(), reader.connect()]);
  await Promise.race([firstConnection, new Promise(resolve => setTimeout(resolve, 2000).unref())]);

  async function writeTwins(
    site: string,
    epoch: number,
    twins: readonly TwinState[],
    transitions: readonly IncidentTransition[],
  ): Promise<WriteOutcome> {
    if (!mayWrite) return 'unavailable';
    const fence = hasBug('skip-fence') ? ((await reader.get(keys.fence(site))) ?? epoch) : epoch;
    const calls: Promise<number>[] = [];
    for (let start = 0; start === 0 || start < twins.length; start += TWINS_PER_CALL) {
      const chunk = twins.slice(start, start + TWINS_PER_CALL);
      const entries = start === 0 ? transitions : [];
      const keyList = [keys.fence(site), keys.index(site), keys.outbox(site)];
      const values: (string | number)[] = [fence, twinTtlSeconds, chunk.length, entries.length, Date.now()];
      for (const twin of chunk) {
        keyList.push(keys.twin(site, twin.device));
        values.push(twin.device, storeTwin(twin, epoch));
      }
      for (const entry of entries) values.push(entry.id, JSON.stringify(entry));
      calls.push(writer.writeTwins(String(keyList.length), ...keyList, ...values.map(String)));
    }
    try {
      const answers = await Promise.all(calls);
      if (answers.includes(0)) return 'stale-epoch';
      return answers.includes(-1) ? 'unfenced' : 'written';
    } catch (error) {
      logger.warn({ site, reason: (error as Error).message }, 'redis: write failed');
      return 'unavailable';
    }
  }

  async function readTwins<T>(
    site: string,
    devices: readonly string[],
    decode: (site: string, device: string, json: string) => T,
  ): Promise<T[]> {
    const found: T[] = [];
    for (let start = 0; start < devices.length; start += READ_CHUNK) {
      const chunk = devices.slice(start, start + READ_CHUNK);
      const values = await reader.mget(chunk.map(device => keys.twin(site, device)));
      values.forEach((json, index) => {
        if (json !== null) found.push(decode(site, chunk[index]!, json));
      });
    }
    return found;
  }

  const devices = (site: string) => reader.zrange(keys.index(site), '0', '-1');
  /** Half a site must not be taken for the whole. @returns false for one that nobody knows */
  const whole = async (site: string): Promise<boolean> => {
    const writtenTo = await reader.get(keys.whole(site));
    if (writtenTo !== null && writtenTo === runs.reader()) return true;
    if (!(await options.isKnown(site))) return false;
    throw new Error(`redis: site ${site} is being filled again`);
  };

  return {
    writeTwins,
    async fenceSite(site, epoch) {
      if (!mayWrite) return 'unavailable';
      try {
        const answer = await writer.fenceSite(keys.fence(site), keys.whole(site), String(epoch));
        return answer === 1 ? 'fenced' : 'stale-epoch';
      } catch (error) {
        logger.warn({ site, reason: (error as Error).message }, 'redis: site not fenced');
        return 'unavailable';
      }
    },
    async markWhole(site) {
      try {
        const run = runs.writer();
        if (mayWrite && run !== null) await writer.set(keys.whole(site), run);
      } catch (error) {
        logger.warn({ site, reason: (error as Error).message }, 'redis: site not marked as whole');
      }
    },
    async unfenced(sites) {
      if (!mayWrite || sites.size === 0) return [];
      const names = [...sites.keys()];
      try {
        const pipeline = reader.pipeline();
        for (const site of names) pipeline.get(keys.fence(site));
        const answers = (await pipeline.exec()) ?? [];
        return names.filter((site, index) => {
          const [error, fence] = answers[index]!;
          // A later epoch is no reason to fence again: the next write says that the site is lost.
          return !error && Number(fence ?? -1) < sites.get(site)!;
        });
      } catch {
        return [];
      }
    },
    async loadSite(site, isKnown) {
      try {
        const restored = await readTwins(site, await devices(site), (_, device, text) =>
          isKnown?.(device, text) ? null : restoreTwin(site, device, text),
        );
        const twins = restored.filter(twin => twin !== null);
        const outbox = Object.values(await reader.hgetall(keys.outbox(site)));
        return { twins, outbox: outbox.map(json => JSON.parse(json) as IncidentTransition) };
      } catch (error) {
        logger.warn(
          { site, reason: (error as Error).message },
          'redis: site not read, history alone decides',
        );
        return null;
      }
    },
    async forgetOutbox(site, settled) {
      try {
        if (settled.length === 0 || !mayWrite) return;
        const texts = settled.flatMap(transition => [transition.id, JSON.stringify(transition)]);
        await writer.settleOutbox(keys.outbox(site), keys.told(site), String(TOLD_MAX), ...texts);
      } catch (error) {
        logger.warn(
          { site, reason: (error as Error).message },
          'redis: outbox not cleaned, kept until the site is activated again',
        );
      }
    },
    async told(site) {
      try {
        const texts = await reader.lrange(keys.told(site), 0, -1);
        return texts.map(text => JSON.parse(text) as IncidentTransition);
      } catch {
        return [];
      }
    },
    async remindTold(site, incidents) {
      try {
        if (incidents.length === 0 || !mayWrite) return;
        const known = new Set(await reader.lrange(keys.told(site), 0, -1));
        const texts = incidents.map(incident => JSON.stringify(incident)).filter(text => !known.has(text));
        if (texts.length === 0) return;
        await writer
          .pipeline()
          .lpush(keys.told(site), ...texts)
          .ltrim(keys.told(site), 0, TOLD_MAX - 1)
          .exec();
      } catch (error) {
        logger.warn({ site, reason: (error as Error).message }, 'redis: not reminded of what was told');
      }
    },
    async removeTwins(site, epoch, devices) {
      if (!mayWrite) return 'unavailable';
      const names = [keys.fence(site), keys.index(site), ...devices.map(device => keys.twin(site, device))];
      try {
        const answer = await writer.removeTwins(String(names.length), ...names, String(epoch), ...devices);
        return answer === 1 ? 'written' : answer === 0 ? 'stale-epoch' : 'unfenced';
      } catch (error) {
        logger.warn({ site, reason: (error as Error).message }, 'redis: twins not removed');
        return 'unavailable';
      }
    },
    async twin(site, device) {
      if (!(await whole(site))) return null;
      const json = await reader.get(keys.twin(site, device));
      return json === null ? null : viewStoredTwin(site, device, json);
    },
    twins: async (site, wanted) => ((await whole(site)) ? readTwins(site, wanted, viewStoredTwin) : []),
    devices: async site => ((await whole(site)) ? devices(site) : []),
    get connected() {
      return mayWrite;
    },
    async close() {
      closed = true;
      await Promise.allSettled([writer.quit(), reader.quit()]);
      writer.disconnect();
      reader.disconnect();
    },
  };
}

/**
 * Which run of a Redis server a connection leads to: another process, or a copy in its place, has another one.
 * @returns null until it is known; every command that is sent after the connection is ready is answered after that
 */
function followRun(redis: Redis): () => string | null {
  let run: string | null = null;
  redis.on('close', () => {
    run = null;
  });
  redis.on('ready', () => {
    redis.info('server').then(
      info => {
        run = /^run_id:(\w+)/m.exec(info)?.[1] ?? NO_RUN;
      },
      () => {
        // Not allowed to ask: then there is one server for ever.
        if (redis.status === 'ready') run = NO_RUN;
      },
    );
  });
  return () => run;
}
