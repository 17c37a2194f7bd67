/**
 * The straightforward service as a benchmark's subject: on the same Redis and PostgreSQL servers and settings as
 * Holdfast (another database), with brokers of its own that are set up alike.
 */
import { join } from 'node:path';
import pg from 'pg';
import type { Binaries } from '../../deploy/local/binaries.ts';
import { type NodeProcess, nodeProcess } from '../../deploy/local/node-process.ts';
import type { Server } from '../../deploy/local/server.ts';
import { startMosquitto } from '../../deploy/local/servers.ts';
import type { TwinMessage } from './peers/straightforward.ts';
import { openPushProgress, type ReadUpdate } from './push-progress.ts';
import { newReleases } from './releases.ts';
import { benchSites, pidOf, type Subject } from './subject.ts';

const DATABASE = 'straightforward';

export async function startStraightforward(options: {
  readonly directory: string;
  readonly binaries: Binaries;
  readonly redis: Server;
  readonly postgres: Server;
}): Promise<Subject> {
  const { binaries, directory, redis, postgres } = options;
  const releases = newReleases();
  try {
    const brokers: Server[] = [];
    for (const site of benchSites) {
      const users = [{ user: 'bench', password: 'bench' }];
      const broker = await startMosquitto({ binaries, directory: join(directory, site), users });
      releases.add(() => broker.stop());
      brokers.push(broker);
    }
    const administrator = new pg.Client({ connectionString: postgres.url });
    await administrator.connect();
    await administrator.query(`create database ${DATABASE}`);
    await administrator.end();
    const databaseUrl = new URL(postgres.url);
    databaseUrl.pathname = `/${DATABASE}`;
    const pool = new pg.Pool({ connectionString: databaseUrl.toString(), max: 2 });
    releases.add(() => pool.end());

    const service: NodeProcess = nodeProcess({
      name: 'straightforward service',
      entry: new URL('peers/straightforward.ts', import.meta.url),
      env: {
        POSTGRES_URL: databaseUrl.toString(),
        REDIS_URL: redis.url,
        BROKERS: JSON.stringify(Object.fromEntries(benchSites.map((site, i) => [site, brokers[i]!.url]))),
      },
    });
    const { port } = await service.start();
    releases.add(() => service.stop());
    const push = await openPushProgress({
      url: `ws://127.0.0.1:${Number(port)}/push`,
      subscribe: null,
      read: readUpdate,
    });
    releases.add(() => push.close());

    return {
      name: 'straightforward',
      brokers: brokers.map(broker => broker.url),
      push,
      processes: {
        broker: brokers.map(pidOf),
        service: [pidOf(service)],
        redis: [pidOf(redis)],
        postgres: [pidOf(postgres)],
      },
      // It sends a message to dashboards only after its inserts, so what is pushed is stored.
      stored: () => Promise.resolve(),
      async count({ fromMs, toMs }) {
        // The key allows no duplicates.
        const { rows } = await pool.query<{ messages: string; readings: string }>(
          `select count(distinct (device, ts)) as messages, count(*) as readings
             from reading where ts >= to_timestamp($1 / 1000.0) and ts < to_timestamp($2 / 1000.0)`,
          [fromMs, toMs],
        );
        return { messages: Number(rows[0]!.messages), readings: Number(rows[0]!.readings), duplicates: 0 };
      },
      output: () => service.output(),
      close: releases.run,
    };
  } catch (error) {
    await releases.run();
    throw error;
  }
}

const readUpdate: ReadUpdate = (text, update) => {
  const { site, device, ts } = JSON.parse(text) as TwinMessage;
  update(benchSites.indexOf(site as (typeof benchSites)[number]), device, ts);
};
