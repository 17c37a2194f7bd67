/**
 * Looks into Redis and PostgreSQL several times a second, past every node: epochs and versions there only grow, unless it was
 * chaos itself that emptied the one or put the other back (`forgetRedis`, `forgetPostgres`). What goes back was written by
 * somebody who had lost the right to (D).
 */
import { Redis } from 'ioredis';
import type pg from 'pg';

export interface Sampler {
  /** One line each. */
  readonly staleEffects: readonly string[];
  /** Redis is emptied or replaced by another: from the return on nothing of it is known. */
  forgetRedis(): void;
  forgetPostgres(): void;
  readonly samples: number;
  close(): Promise<void>;
}

const EVERY_MS = 250;
const LINES_MAX = 50;

export function openSampler(options: {
  redisUrl: string;
  database: pg.Pool;
  sites: readonly string[];
}): Sampler {
  const redis = new Redis(options.redisUrl, { maxRetriesPerRequest: 0, retryStrategy: () => 100 });
  redis.on('error', () => {});
  const staleEffects: string[] = [];
  /** Epoch of a fence, epoch and version of a twin, by key. */
  let inRedis = new Map<string, readonly [epoch: number, version: number]>();
  let inPostgres = new Map<string, number>();
  let redisLife = 0;
  let postgresLife = 0;
  let samples = 0;
  let closed = false;
  const running = run();

  async function run(): Promise<void> {
    while (!closed) {
      await Promise.allSettled([lookAtRedis(), lookAtPostgres()]);
      samples++;
      await new Promise(resolve => setTimeout(resolve, EVERY_MS));
    }
  }

  async function lookAtRedis(): Promise<void> {
    if (redis.status !== 'ready') return;
    const life = redisLife;
    for (const site of options.sites) {
      const devices = await redis.zrange(`{${site}}:twins`, '0', '-1');
      const keys = devices.map(device => `{${site}}:twin:${device}`);
      const fence = await redis.get(`{${site}}:fence`);
      const texts = keys.length > 0 ? await redis.mget(keys) : [];
      // What was read before and after another Redis took its place is not one Redis's history.
      if (life !== redisLife) return;
      if (fence !== null) compare(`{${site}}:fence`, [Number(fence), 0]);
      texts.forEach((text, index) => {
        if (text === null) return;
        const { epoch, version } = JSON.parse(text) as { epoch: number; version: number };
        compare(keys[index]!, [epoch, version]);
      });
    }
  }

  function compare(key: string, now: readonly [number, number]): void {
    const before = inRedis.get(key);
    if (before && (now[0] < before[0] || (now[0] === before[0] && now[1] < before[1]))) {
      note(`Redis: ${key} went from epoch and version ${before.join(', ')} back to ${now.join(', ')}`);
    }
    inRedis.set(key, now);
  }

  async function lookAtPostgres(): Promise<void> {
    const life = postgresLife;
    const { rows } = await options.database.query<{ key: string; value: string }>(
      `select 'epoch of partition ' || id as key, epoch::text as value from holdfast.partition
       union all
       select 'version of twin ' || site || '/' || device, version::text from holdfast.twin`,
    );
    if (life !== postgresLife) return;
    for (const { key, value } of rows) {
      const before = inPostgres.get(key);
      if (before !== undefined && Number(value) < before) {
        note(`PostgreSQL: ${key} went from ${before} back to ${value}`);
      }
      inPostgres.set(key, Number(value));
    }
  }

  function note(line: string): void {
    if (staleEffects.length < LINES_MAX) staleEffects.push(line);
  }

  return {
    staleEffects,
    get samples() {
      return samples;
    },
    forgetRedis() {
      redisLife++;
      inRedis = new Map();
    },
    forgetPostgres() {
      postgresLife++;
      inPostgres = new Map();
    },
    async close() {
      closed = true;
      await running;
      redis.disconnect();
    },
  };
}
