/**
 * The whole product on one machine: a broker per site, NATS, Redis, PostgreSQL, the gateways and a cloud node, each a
 * process of its own with its own folder. The demo, the end-to-end tests and the benchmarks all start it from here.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { importPermissions } from '../../protocol/export/import-permissions.ts';
import { gatewayId, siteId } from '../../protocol/ids.ts';
import { helloSubject, inboxPrefix, settledSubject } from '../../protocol/subjects.ts';
import type { Binaries } from './binaries.ts';
import { cloudProcess } from './cloud-process.ts';
import { type NodeProcess, nodeProcess } from './node-process.ts';
import { freePort } from './ports.ts';
import {
  externalServer,
  type NatsUser,
  type Server,
  startMosquitto,
  startNats,
  startPostgres,
  startRedis,
} from './servers.ts';

export interface StackOptions {
  /** Data of every part, below it. */
  readonly directory: string;
  readonly binaries: Binaries;
  readonly sites: readonly { readonly site: string; readonly gateways: readonly string[] }[];
  /** Told in one line as each part comes up. */
  readonly report?: (line: string) => void;
  /** Aborted during the start-up: it ends between two parts, and what was started is stopped. */
  readonly signal?: AbortSignal;
  /** Servers that run already, by URL; `brokers` by site. */
  readonly urls?: {
    nats?: string;
    redis?: string;
    postgres?: string;
    brokers?: Readonly<Record<string, string>>;
  };
  /** A site whose broker listens on all addresses. */
  readonly openToNetwork?: { readonly site: string; readonly port?: number };
  readonly httpPort?: number;
  readonly gatewayEnv?: Env | ((of: GatewayName) => Env);
  /** Where a gateway reaches NATS instead of `url`: through a relay, say. */
  readonly gatewayNatsUrl?: (url: string, of: GatewayName) => string | Promise<string>;
  /** Where a gateway reaches its broker instead of `url`. */
  readonly gatewayMqttUrl?: (url: string, of: GatewayName) => string | Promise<string>;
  /** The gateways' program instead of the product's own. */
  readonly gatewayEntry?: URL;
  /** On top of what it needs; it is asked when the servers are up. */
  readonly cloudEnv?: Env | ((servers: Pick<Stack, 'nats' | 'redis' | 'postgres'>) => Promise<Env>);
}

type Env = Readonly<Record<string, string>>;

export interface GatewayName {
  readonly site: string;
  readonly gateway: string;
}

export interface SiteBroker {
  readonly server: Server;
  /** What devices connect with. */
  readonly deviceUrl: string;
  readonly user: string;
  readonly password: string;
}

export interface Stack {
  readonly nats: Server;
  readonly redis: Server;
  readonly postgres: Server;
  /** By site. */
  readonly brokers: ReadonlyMap<string, SiteBroker>;
  /** By `site/gateway`. */
  readonly gateways: ReadonlyMap<string, NodeProcess>;
  readonly cloud: NodeProcess;
  /** Starts the cloud node again after it was stopped or killed; on the same port. */
  startCloud(): Promise<void>;
  /** http://host:port */
  readonly url: string;
  /** Gateways first, so that they drain into a running cloud; then the cloud, then the servers. */
  close(): Promise<void>;
}

const DEVICE_USER = 'device';
const GATEWAY_USER = 'gateway';
const CLOUD_USER = 'cloud';
const IMPORT_USER = 'import';

export async function startStack(options: StackOptions): Promise<Stack> {
  const { binaries, directory, urls = {} } = options;
  const report = options.report ?? (() => {});
  const releases: (() => Promise<unknown>)[] = [];
  const opened = <T extends Server>(server: T, what: string): T => {
    releases.push(() => server.stop());
    report(`${what} ${server.external ? 'given by URL' : 'up'} at ${withoutPassword(server.url)}`);
    return server;
  };
  const close = async () => {
    for (const release of releases.splice(0).reverse()) await release();
  };

  try {
    const natsUsers = [
      { user: CLOUD_USER, password: secret() },
      { user: IMPORT_USER, password: secret(), permissions: importPermissions },
      ...options.sites.flatMap(gatewayUsers),
    ];
    const [nats, redis, postgres] = await Promise.all([
      urls.nats
        ? externalServer('nats', urls.nats)
        : startNats({ binaries, directory: join(directory, 'nats'), users: natsUsers }),
      urls.redis
        ? externalServer('redis', urls.redis)
        : startRedis({ binaries, directory: join(directory, 'redis') }),
      urls.postgres
        ? externalServer('postgres', urls.postgres)
        : startPostgres({ binaries, directory: join(directory, 'postgres'), report }),
    ]);
    opened(nats, 'nats-server');
    opened(redis, 'Redis');
    opened(postgres, 'PostgreSQL');

    const brokers = new Map<string, SiteBroker>();
    for (const { site } of options.sites) {
      options.signal?.throwIfAborted();
      const broker = await startBroker(site);
      opened(broker.server, `Mosquitto of ${site}`);
      brokers.set(site, broker);
    }

    // Never 0: a socket bound that way keeps the port for a minute after its process was killed.
    const httpPort = options.httpPort || (await freePort());
    const cloudEnv = {
      HOLDFAST_NATS_URL: nats.url,
      HOLDFAST_REDIS_URL: redis.url,
      HOLDFAST_POSTGRES_URL: postgres.url,
      HOLDFAST_NODE: 'cloud-1',
      ...(typeof options.cloudEnv === 'function'
        ? await options.cloudEnv({ nats, redis, postgres })
        : options.cloudEnv),
    };
    const newCloud = () =>
      cloudProcess({
        name: 'cloud node',
        env: { ...cloudEnv, HOLDFAST_HTTP_PORT: String(httpPort) },
      });
    let cloud = newCloud();
    options.signal?.throwIfAborted();
    await cloud.start();
    releases.push(() => cloud.stop());
    const url = `http://127.0.0.1:${httpPort}`;
    report(`cloud node up at ${url}`);

    const gateways = new Map<string, NodeProcess>();
    for (const { site, gateways: names } of options.sites) {
      for (const gateway of names) {
        options.signal?.throwIfAborted();
        const user = natsUsers.find(entry => entry.user === `${site}_${gateway}`)!;
        const mqttUrl = brokers.get(site)!.server.url;
        const natsUrl = nats.external ? nats.url : withUser(nats.url, user);
        const gatewayProcess = nodeProcess({
          name: `gateway ${site}/${gateway}`,
          entry: options.gatewayEntry ?? new URL('../../edge-gateway/main.ts', import.meta.url),
          env: {
            HOLDFAST_SITE: site,
            HOLDFAST_GATEWAY: gateway,
            HOLDFAST_MQTT_URL: (await options.gatewayMqttUrl?.(mqttUrl, { site, gateway })) ?? mqttUrl,
            HOLDFAST_NATS_URL: (await options.gatewayNatsUrl?.(natsUrl, { site, gateway })) ?? natsUrl,
            HOLDFAST_DATA_DIR: join(directory, 'gateways', site, gateway),
            ...(typeof options.gatewayEnv === 'function'
              ? options.gatewayEnv({ site, gateway })
              : options.gatewayEnv),
          },
        });
        await gatewayProcess.start();
        releases.push(() => gatewayProcess.stop());
        gateways.set(`${site}/${gateway}`, gatewayProcess);
        report(`gateway ${site}/${gateway} up`);
      }
    }

    options.signal?.throwIfAborted();

    return {
      nats,
      redis,
      postgres,
      brokers,
      gateways,
      get cloud() {
        return cloud;
      },
      async startCloud() {
        cloud = newCloud();
        await cloud.start();
      },
      url,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }

  async function startBroker(site: string): Promise<SiteBroker> {
    const given = urls.brokers?.[site];
    const open = options.openToNetwork?.site === site ? options.openToNetwork : undefined;
    const password = secret();
    const server = given
      ? externalServer('mosquitto', given)
      : await startMosquitto({
          binaries,
          directory: join(directory, 'brokers', site),
          users: [
            { user: GATEWAY_USER, password: secret() },
            { user: DEVICE_USER, password },
          ],
          ...(open && { host: '0.0.0.0' }),
          ...(open?.port && { port: open.port }),
        });
    const device = { user: DEVICE_USER, password };
    return { server, ...device, deviceUrl: given ?? withUser(server.url, device) };
  }
}

/** A gateway may publish and hear exactly what is its own (S). */
function gatewayUsers({ site, gateways }: { site: string; gateways: readonly string[] }): NatsUser[] {
  return gateways.map(gateway => {
    const names = [siteId(site), gatewayId(gateway)] as const;
    return {
      user: `${site}_${gateway}`,
      password: secret(),
      permissions: {
        publish: [
          `ingest.*.live.${site}.${gateway}`,
          `ingest.*.backfill.${site}.${gateway}`,
          helloSubject(...names),
        ],
        subscribe: [`${inboxPrefix(...names)}.>`, settledSubject(...names)],
      },
    };
  });
}

const secret = () => randomBytes(12).toString('base64url');

export function withUser(url: string, { user, password }: { user: string; password: string }): string {
  const parsed = new URL(url);
  parsed.username = user;
  parsed.password = password;
  return parsed.toString();
}

function withoutPassword(url: string): string {
  const parsed = new URL(url);
  parsed.username = '';
  parsed.password = '';
  return parsed.toString();
}
