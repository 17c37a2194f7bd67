/**
 * The product running for one test file: the whole stack in a folder of its own under the system's temporary one, with
 * direct lines to PostgreSQL and Redis to check what Holdfast says of itself. Everything goes when the scene closes.
 */
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import pg from 'pg';
import type { Binaries } from '../../deploy/local/binaries.ts';
import { cloudNodeOn } from '../../deploy/local/cloud-process.ts';
import { defaultCacheDirectory, findBinaries } from '../../deploy/local/find-servers.ts';
import { type NodeProcess, nodeProcess } from '../../deploy/local/node-process.ts';
import { type Stack, startStack, withUser } from '../../deploy/local/stack.ts';

export interface Scene {
  readonly directory: string;
  readonly binaries: Binaries;
  readonly stack: Stack;
  /** Survives PostgreSQL's restarts; a query during one rejects. */
  readonly postgres: pg.Pool;
  readonly redis: Redis;
  /** JSON of `GET path`. Rejects on any status but 200. */
  get<T = unknown>(path: string): Promise<T>;
  /** Another cloud node on the same servers. */
  cloudNode(name: string, env?: Readonly<Record<string, string>>): NodeProcess;
  /** A gateway process with the NATS credentials of `site/gateway` and a data folder of its own. */
  gateway(site: string, name: string, env?: Readonly<Record<string, string>>): NodeProcess;
  natsUrl(site: string, gateway: string): string;
  close(): Promise<void>;
}

export interface GatewayEntry {
  readonly gateway: string;
  readonly unsettledMessages: number;
  readonly lastHelloAt: number;
  readonly broker: { readonly connected: boolean; readonly reason: string | null };
  readonly role: 'active' | 'standby';
}

export async function openScene(options: {
  sites: Readonly<Record<string, readonly string[]>>;
  cloudEnv?: Readonly<Record<string, string>>;
  gatewayEnv?: Readonly<Record<string, string>>;
  /** Puts something between the gateways and NATS: gets the URL, gives the one to use. */
  gatewayNatsUrl?: (url: string) => Promise<string>;
}): Promise<Scene> {
  const binaries = await findBinaries({ cacheDirectory: defaultCacheDirectory, report: () => {} });
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-test-'));
  // As root the database runs as somebody else, who has to get in.
  chmodSync(directory, 0o755);
  const releases: (() => unknown)[] = [() => rmSync(directory, { recursive: true, force: true })];
  const close = async () => {
    for (const release of releases.splice(0).reverse()) await release();
  };
  try {
    const sites = Object.entries(options.sites).map(([site, gateways]) => ({ site, gateways }));
    const stack = await startStack({
      directory,
      binaries,
      sites,
      ...(options.cloudEnv && { cloudEnv: options.cloudEnv }),
      ...(options.gatewayEnv && { gatewayEnv: options.gatewayEnv }),
      ...(options.gatewayNatsUrl && { gatewayNatsUrl: options.gatewayNatsUrl }),
    });
    releases.push(() => stack.close());
    const postgres = new pg.Pool({ connectionString: stack.postgres.url, max: 4 });
    postgres.on('error', () => {});
    releases.push(() => postgres.end());
    const redis = new Redis(stack.redis.url, { maxRetriesPerRequest: 0, retryStrategy: () => 100 });
    redis.on('error', () => {});
    releases.push(() => redis.disconnect());

    const natsUrl = (site: string, gateway: string) => {
      const config = JSON.parse(readFileSync(join(directory, 'nats', 'nats-server.json'), 'utf8')) as {
        authorization: { users: { user: string; password: string }[] };
      };
      const user = config.authorization.users.find(entry => entry.user === `${site}_${gateway}`);
      if (!user) throw new Error(`no gateway ${site}/${gateway} in this scene`);
      return withUser(stack.nats.url, user);
    };
    const started = (process: NodeProcess) => {
      releases.push(() => process.stop());
      return process;
    };
    const scene: Scene = {
      directory,
      binaries,
      stack,
      postgres,
      redis,
      async get<T>(path: string): Promise<T> {
        const response = await fetch(stack.url + path, { signal: AbortSignal.timeout(5000) });
        if (response.status !== 200) throw new Error(`${path}: ${response.status} ${await response.text()}`);
        return (await response.json()) as T;
      },
      cloudNode: (name, env) => started(cloudNodeOn(stack, name, env)),
      gateway: (site, name, env) =>
        started(
          nodeProcess({
            name: `gateway ${site}/${name}`,
            entry: new URL('../../edge-gateway/main.ts', import.meta.url),
            env: {
              HOLDFAST_SITE: site,
              HOLDFAST_GATEWAY: name,
              HOLDFAST_MQTT_URL: stack.brokers.get(site)!.server.url,
              HOLDFAST_NATS_URL: natsUrl(site, name),
              HOLDFAST_DATA_DIR: join(directory, 'own-gateways', site, name),
              ...env,
            },
          }),
        ),
      natsUrl,
      close,
    };
    await everyGatewayAtItsBroker(scene, options.sites);
    return scene;
  } catch (error) {
    await close();
    throw error;
  }
}

/** Before a gateway has subscribed its broker acknowledges messages that nobody takes. */
async function everyGatewayAtItsBroker(
  scene: Scene,
  sites: Readonly<Record<string, readonly string[]>>,
): Promise<void> {
  await until('every gateway is at its broker', 20_000, () =>
    Object.entries(sites).every(([site, gateways]) =>
      gateways.every(gateway =>
        /broker: (connected|standby)/.test(scene.stack.gateways.get(`${site}/${gateway}`)!.output()),
      ),
    ),
  );
}

export async function gatewayEntries(scene: Scene): Promise<(GatewayEntry & { site: string })[]> {
  const { sites } = await scene.get<{ sites: { site: string; gateways: GatewayEntry[] }[] }>('/sites');
  return sites.flatMap(({ site, gateways }) => gateways.map(gateway => ({ site, ...gateway })));
}

/** What our own processes said last, for whoever looks at a failure. */
export function lastWords(scene: Scene): string {
  const processes = [scene.stack.cloud, ...scene.stack.gateways.values()];
  return processes
    .map(process => `--- ${process.name}\n${process.output().trim().split('\n').slice(-15).join('\n')}`)
    .join('\n');
}

/**
 * Asks again until `probe` gives something other than false or undefined. A probe that rejects has no answer yet.
 * @throws Error that names `what` and the last trouble, at the deadline
 */
export async function until<T>(
  what: string,
  deadlineMs: number,
  probe: () => Promise<T | false | undefined> | T | false | undefined,
): Promise<T> {
  const deadline = performance.now() + deadlineMs;
  let trouble = '';
  for (;;) {
    try {
      const answer = await probe();
      if (answer !== false && answer !== undefined) return answer;
      trouble = '';
    } catch (error) {
      trouble = `; last: ${(error as Error).message}`;
    }
    if (performance.now() > deadline) throw new Error(`not within ${deadlineMs / 1000} s: ${what}${trouble}`);
    await new Promise(resolve => setTimeout(resolve, 25));
  }
}
