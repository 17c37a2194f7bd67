/**
 * `redis-wiped`: Redis loses all it has, by FLUSHALL under living connections and by a kill after which it starts empty,
 * under 1,000 messages/s. How soon every twin in Redis is as it should be again, silent ones too; and whether any
 * dashboard saw something go back meanwhile (C, R).
 *
 * As it should be: a silent twin has the very text that it had before; of every other one Redis has no older version than
 * a dashboard was shown, and where it is the same version, the same values. At the end, when nothing moves any more, all
 * live twins are held against the newest readings in history as well.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { viewStoredTwin } from '../../cloud/twin-json.ts';
import { openWatcher } from '../end-to-end/watcher.ts';
import type { Benchmark } from './benchmark.ts';
import { openSteadyScene, type SteadyScene } from './steady-scene.ts';
import { median, rounded, table } from './tables.ts';

const ROUNDS = 5;
const MESSAGES_PER_SECOND = 1000;
const INTERVAL_MS = 1000;
const LIVE_SITES = ['north', 'south'];
const SILENT_SITE = 'silent';
const SILENT_DEVICES = 1000;
const CALM_MS = 2000;
const POLL_MS = 50;
const PATIENCE_MS = 60_000;
const FINISH_MS = 60_000;

const wipes = ['FLUSHALL', 'killed, started empty'] as const;

export const redisWiped: Benchmark = {
  does: 'Redis emptied at --rate messages/s (1,000): when every twin is in it again, what went back',
  async run(options) {
    const rounds = options.rounds ?? ROUNDS;
    const devices = Math.ceil((options.rate ?? MESSAGES_PER_SECOND) / LIVE_SITES.length);
    const scene = await openSteadyScene(options, [
      ...LIVE_SITES.map(site => ({ site, devices, intervalMs: INTERVAL_MS })),
      { site: SILENT_SITE, devices: SILENT_DEVICES, intervalMs: INTERVAL_MS },
    ]);
    const { stack } = scene;
    const redis = new Redis(stack.redis.url, { maxRetriesPerRequest: 0, retryStrategy: () => 20 });
    redis.on('error', () => {});
    options.releases.add(() => redis.disconnect());
    const watcher = await openWatcher({ url: stack.url, sites: [...LIVE_SITES, SILENT_SITE] });
    options.releases.add(() => watcher.close());

    const twins = 2 * devices + SILENT_DEVICES;
    await until('every twin is shown', () => watcher.twins.size === twins);
    const silent = scene.sites.find(({ site }) => site === SILENT_SITE)!;
    const silentMessages = await silent.fleet.finish();
    await until('what the silent ones said is settled', async () => {
      return (await scene.settled(SILENT_SITE)) >= silentMessages;
    });
    const namesOf = (isSilent: boolean) =>
      [...watcher.twins.keys()].filter(name => name.startsWith(`${SILENT_SITE}/`) === isSilent);
    const silentNames = namesOf(true);
    const liveNames = namesOf(false);
    const stored = (names: readonly string[]) =>
      redis.mget(names.map(name => `{${name.split('/')[0]}}:twin:${name.split('/')[1]}`));
    const before = await stored(silentNames);

    /** Twins that are not as they should be. */
    async function wrong(): Promise<number> {
      const shown = liveNames.map(name => watcher.twins.get(name));
      const [live, quiet] = await Promise.all([stored(liveNames), stored(silentNames)]);
      const wrongLive = live.filter((text, index) => {
        const seen = shown[index];
        if (text === null || !seen) return true;
        const { version, metrics } = viewStoredTwin('', '', text);
        if (version !== seen.version) return version < seen.version;
        return Object.entries(seen.metrics).some(
          ([name, { at, value }]) => metrics[name]?.at !== at || metrics[name].value !== value,
        );
      });
      return wrongLive.length + quiet.filter((text, index) => text !== before[index]).length;
    }
    await until('all is well before', async () => (await wrong()) === 0);

    const measured: { wipe: string; seconds: number }[] = [];
    for (let round = 1; round <= rounds; round++) {
      for (const wipe of wipes) {
        await sleep(CALM_MS);
        const wipedAt = performance.now();
        if (wipe === 'FLUSHALL') await redis.flushall();
        else {
          await stack.redis.kill();
          await stack.redis.start();
        }
        let askedAt = 0;
        await until('every twin is in Redis again', async () => {
          askedAt = performance.now();
          return (await wrong()) === 0;
        });
        const seconds = (askedAt - wipedAt) / 1000;
        measured.push({ wipe, seconds });
        options.report(`round ${round} of ${rounds}, ${wipe}: whole again after ${seconds.toFixed(2)} s`);
      }
    }
    const count = await scene.finish(FINISH_MS);
    await until('all is well at the end', async () => (await wrong()) === 0);
    const newest = await newestInHistory(scene);
    const behind = liveNames.filter(name => {
      const ats = Object.values(watcher.twins.get(name)!.metrics).map(({ at }) => at);
      return Math.max(...ats) !== newest.get(name);
    });

    const of = (wipe: string) => measured.filter(round => round.wipe === wipe).map(({ seconds }) => seconds);
    return {
      tables: [
        table([
          ['wipe', 'whole again, median s', 'longest s'],
          ...wipes.map(wipe => [wipe, rounded(median(of(wipe)), 2), rounded(Math.max(...of(wipe)), 2)]),
        ]),
      ],
      figures: {
        rounds,
        messages_per_s: LIVE_SITES.length * devices,
        twins,
        flushall_median_s: rounded(median(of(wipes[0])), 2),
        flushall_max_s: rounded(Math.max(...of(wipes[0])), 2),
        killed_median_s: rounded(median(of(wipes[1])), 2),
        killed_max_s: rounded(Math.max(...of(wipes[1])), 2),
        went_back: watcher.breaches.length,
        behind_history: behind.length,
        ...count,
        missing: count.acknowledged - count.stored,
      },
    };
  },
};

/** By `site/device`, milliseconds since 1970. */
async function newestInHistory({ pool }: SteadyScene): Promise<Map<string, number>> {
  const { rows } = await pool.query<{ name: string; at: string }>(
    `select d.site || '/' || d.name as name, extract(epoch from max(m.at)) * 1000 as at
       from holdfast.message m join holdfast.device d on d.id = m.device group by 1`,
  );
  return new Map(rows.map(({ name, at }) => [name, Math.round(Number(at))]));
}

/** @throws Error that names `what`, at the deadline */
async function until(what: string, isSo: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      if (await isSo()) return;
    } catch {
      // Redis or PostgreSQL does not answer now.
    }
    if (performance.now() > deadline) throw new Error(`not within ${PATIENCE_MS / 1000} s: ${what}`);
    await sleep(POLL_MS);
  }
}
