/**
 * Live state in Redis: what dashboards and the API read, and what a node that takes over goes on from.
 *
 *   {site}:fence         the highest epoch that has written for the site (D)
 *   {site}:twins         sorted set: device → last write in ms, the list of the site's twins
 *   {site}:twin:<device> the twin as stored JSON, with a time to live
 *   {site}:outbox        hash: incident id → transition not yet in history
 *
 * `{site}` is the Redis Cluster hash tag: a site lives in one slot. Redis is losable: after it came back empty or
 * older, the owner writes everything again from its memory (R). A new connection may write only after
 * `confirmLease` has read the lease again.
 */
import { readFile } from 'node:fs/promises';
import { Redis, type Result } from 'ioredis';
import type { Logger } from 'pino';
import type { IncidentTransition, TwinState } from './actors/twin.ts';
import { restoreTwin, storeTwin, type TwinView, viewStoredTwin } from './twin-json.ts';

declare module 'ioredis' {
  interface RedisCommander<Context> {
    writeTwins(...keyCountKeysAndArguments: string[]): Result<number, Context>;
  }
}

export type WriteOutcome = 'written' | 'stale-epoch' | 'unavailable';

/** Twins per script call: keeps one call under some 2 ms, so that readers are never held up for long. */
const TWINS_PER_CALL = 500;
const READ_CHUNK = 500;

export interface LiveState {
  writeTwins(
    site: string,
    epoch: number,
    twins: readonly TwinState[],
    transitions: readonly IncidentTransition[],
  ): Promise<WriteOutcome>;
  /** All that is stored of a site; null when Redis does not answer. */
  loadSite(site: string): Promise<{ twins: TwinState[]; outbox: IncidentTransition[] } | null>;
  forgetOutbox(site: string, incidents: readonly string[]): Promise<void>;
  twin(site: string, device: string): Promise<TwinView | null>;
  twins(site: string, devices: readonly string[]): Promise<TwinView[]>;
  devices(site: string): Promise<string[]>;
  readonly connected: boolean;
  close(): Promise<void>;
}

const keys = {
  fence: (site: string) => `{${site}}:fence`,
  index: (site: string) => `{${site}}:twins`,
  twin: (site: string, device: string) => `{${site}}:twin:${device}`,
  outbox: (site: string) => `{${site}}:outbox`,
};

export async function openLiveState(options: {
  url: string;
  twinTtlSeconds: number;
  logger: Logger;
  /** A connection is new: writing goes on when the promise resolves. Must read the lease again (D). */
  confirmLease: () => Promise<void>;
  /** Writing goes on: whatever Redis missed, or lost, has to be written again (R). Readers wait for that to be done. */
  onWritable: () => unknown;
}): Promise<LiveState> {
  const { logger, twinTtlSeconds } = options;
  const script = await readFile(new URL('./live-state.lua', import.meta.url), 'utf8');
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
  const writer = new Redis(options.url, { ...settings, scripts: { writeTwins: { lua: script } } });
  const reader = new Redis(options.url, settings);
  let mayWrite = false;
  /** False while a Redis that came back is filled again: half a fleet must not be taken for the whole. */
  let mayRead = false;
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
    mayRead = false;
  });
  writer.on('ready', () => {
    const mine = ++connection;
    void (async () => {
      try {
        await options.confirmLease();
        // A lease that was read for an earlier connection says nothing about this one (D).
        if (mine !== connection || writer.status !== 'ready') return;
        mayWrite = true;
        lastReason = '';
        logger.info('redis: connected');
        await options.onWritable();
        if (mine === connection && mayWrite) mayRead = true;
        resolveFirst();
      } catch (error) {
        logger.warn({ reason: (error as Error).message }, 'redis: lease not confirmed, connecting again');
        if (!closed && mine === connection) writer.disconnect(true);
      }
    })();
  });
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
    const calls: Promise<number>[] = [];
    for (let start = 0; start === 0 || start < twins.length; start += TWINS_PER_CALL) {
      const chunk = twins.slice(start, start + TWINS_PER_CALL);
      const entries = start === 0 ? transitions : [];
      const keyList = [keys.fence(site), keys.index(site), keys.outbox(site)];
      const values: (string | number)[] = [epoch, twinTtlSeconds, chunk.length, entries.length, Date.now()];
      for (const twin of chunk) {
        keyList.push(keys.twin(site, twin.device));
        values.push(twin.device, storeTwin(twin, epoch));
      }
      for (const entry of entries) values.push(entry.id, JSON.stringify(entry));
      calls.push(writer.writeTwins(String(keyList.length), ...keyList, ...values.map(String)));
    }
    try {
      const answers = await Promise.all(calls);
      return answers.includes(0) ? 'stale-epoch' : 'written';
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
  const whole = async () => {
    if (!mayRead) throw new Error('redis: not connected, or being filled again');
  };

  return {
    writeTwins,
    async loadSite(site) {
      try {
        const restored = await readTwins(site, await devices(site), restoreTwin);
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
    async forgetOutbox(site, incidents) {
      try {
        if (incidents.length > 0 && mayWrite) await writer.hdel(keys.outbox(site), ...incidents);
      } catch (error) {
        logger.warn(
          { site, reason: (error as Error).message },
          'redis: outbox not cleaned, the next commit will',
        );
      }
    },
    async twin(site, device) {
      await whole();
      const json = await reader.get(keys.twin(site, device));
      return json === null ? null : viewStoredTwin(site, device, json);
    },
    twins: (site, wanted) => whole().then(() => readTwins(site, wanted, viewStoredTwin)),
    devices: site => whole().then(() => devices(site)),
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
