/**
 * The real line for browser tests: servers, one gateway, one cloud node with its dashboard, all private and released
 * at the end of the test, last opened first.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import mqtt from 'mqtt';
import pg from 'pg';
import { defaultCacheDirectory, findBinaries } from '../../deploy/local/find-servers.ts';
import { freePort } from '../../deploy/local/ports.ts';
import { newPassword } from '../../deploy/local/secrets.ts';
import { startMosquitto, startNats, startPostgres, startRedis } from '../../deploy/local/servers.ts';

export type RealStack = {
  /** Of the dashboard, without a slash at the end. */
  readonly url: string;
  readonly site: string;
  readonly pool: pg.Pool;
  /** Resolves with the broker's PUBACK. */
  publish(topic: string, payload: unknown): Promise<void>;
  /** SIGKILL; resolves when the process is gone. */
  killCloud(): Promise<void>;
  /** On the same port as before. */
  startCloud(): Promise<void>;
};

const program = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));

export async function startRealStack(t: TestContext): Promise<RealStack> {
  const releases: Array<() => Promise<unknown>> = [];
  t.after(async () => {
    for (const release of releases.reverse()) await release();
  });
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-browser-'));
  releases.push(async () => rmSync(directory, { recursive: true, force: true }));
  const binaries = await findBinaries({
    cacheDirectory: defaultCacheDirectory,
    report: line => t.diagnostic(line),
  });
  const users = [{ user: 'test', password: newPassword() }];
  const site = 'demo';

  const servers = await Promise.all([
    startNats({ binaries, directory: join(directory, 'nats'), users }),
    startRedis({ binaries, directory: join(directory, 'redis') }),
    startPostgres({ binaries, directory: join(directory, 'postgres') }),
    startMosquitto({ binaries, directory: join(directory, 'mosquitto'), users }),
  ]);
  const [nats, redis, postgres, mosquitto] = servers;
  releases.push(() => Promise.all(servers.map(server => server.stop())));

  let cloud: ChildProcess | null = null;
  // Not port 0: a socket bound that way would keep its successor off the port for a while after a kill.
  const port = await freePort();
  async function startCloud(): Promise<void> {
    const child = start('cloud/main.ts', {
      HOLDFAST_NATS_URL: nats.url,
      HOLDFAST_REDIS_URL: redis.url,
      HOLDFAST_POSTGRES_URL: postgres.url,
      HOLDFAST_HTTP_PORT: String(port),
    });
    cloud = child;
    await Promise.race([
      once(child, 'message'),
      once(child, 'exit').then(() => assert.fail('the cloud node did not start')),
    ]);
  }
  async function stop(child: ChildProcess | null, signal: NodeJS.Signals): Promise<void> {
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    await gone;
  }
  await startCloud();
  releases.push(() => stop(cloud, 'SIGTERM'));

  const gateway = start('edge-gateway/main.ts', {
    HOLDFAST_SITE: site,
    HOLDFAST_GATEWAY: 'gw-1',
    HOLDFAST_MQTT_URL: mosquitto.url,
    HOLDFAST_NATS_URL: nats.url,
    HOLDFAST_DATA_DIR: join(directory, 'buffer'),
  });
  releases.push(() => stop(gateway, 'SIGTERM'));

  const pool = new pg.Pool({ connectionString: postgres.url });
  releases.push(() => pool.end());
  const device = await mqtt.connectAsync(mosquitto.url, { protocolVersion: 5 });
  releases.push(() => device.endAsync());

  // What is published before the gateway has subscribed for the first time reaches nobody.
  const url = `http://127.0.0.1:${port}`;
  const deadline = Date.now() + 60_000;
  for (let said = ''; !said.includes('"connected":true'); ) {
    assert.ok(Date.now() < deadline, `the gateway did not connect: ${said}`);
    await device.publishAsync('devices/first/telemetry', JSON.stringify({ up: 1 }), { qos: 1 });
    said = await (await fetch(`${url}/sites`)).text();
  }

  return {
    url,
    site,
    pool,
    publish: async (topic, payload) => {
      const text = typeof payload === 'string' ? payload : JSON.stringify(payload);
      await device.publishAsync(topic, text, { qos: 1 });
    },
    killCloud: () => stop(cloud, 'SIGKILL'),
    startCloud,
  };
}

function start(path: string, environment: Record<string, string>): ChildProcess {
  return spawn(process.execPath, [program(path)], {
    env: { ...process.env, ...environment, HOLDFAST_LOG_LEVEL: 'error' },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
}
