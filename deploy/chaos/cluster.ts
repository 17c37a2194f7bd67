/**
 * What a run of chaos stands on: three sites, each with its broker and one or two gateways on disks that forget, the servers,
 * and several cloud nodes; a relay in every line that may be cut, a listener between each broker and its gateways, and a clock of
 * its own for every Node process.
 */
import { join } from 'node:path';
import pg from 'pg';
import { type BrokerTap, openBrokerTap } from '../faults/broker-tap.ts';
import { keyOfMessage } from '../faults/devices.ts';
import type { Binaries } from '../local/binaries.ts';
import { cloudProcess } from '../local/cloud-process.ts';
import { type Link, openLink } from '../local/link.ts';
import type { NodeProcess } from '../local/node-process.ts';
import { freePort } from '../local/ports.ts';
import type { Server } from '../local/server.ts';
import { type SiteBroker, type Stack, startStack } from '../local/stack.ts';
import { openClocks } from './clocks.ts';
import { newSupervisor, type Runnable } from './supervisor.ts';

export const chaosSites: readonly { readonly site: string; readonly gateways: readonly string[] }[] = [
  { site: 'alpha', gateways: ['gw-1'] },
  { site: 'bravo', gateways: ['gw-1'] },
  { site: 'pair', gateways: ['gw-1', 'gw-2'] },
];
/** Of the gateways of `pair`: the second one stands by. */
const STANDBY = { HOLDFAST_STANDBY_GROUP: 'pair', HOLDFAST_TAKE_OVER_AFTER_MS: '3000' };
/** Fewer than in production: what is being tried is not how many there are. */
const PARTITIONS = 12;
/** Of the gateways' disks: slow enough that something always waits for one. */
const SYNC_MS = 25;

export interface CloudNodeHandle extends Runnable {
  readonly name: string;
  readonly url: string;
  readonly links: Readonly<Record<'nats' | 'redis' | 'postgres', Link>>;
  /** How far its clock is off, milliseconds. */
  shiftClock(ms: number): void;
}

export interface GatewayHandle {
  readonly site: string;
  readonly gateway: string;
  readonly process: Pick<NodeProcess, keyof Runnable | 'send' | 'onMessage'>;
  readonly link: Link;
  /** NATS, past the link, with this gateway's rights. */
  readonly directNatsUrl: string;
  /** The broker, past nothing: with the listener. */
  readonly mqttUrl: string;
  readonly dataDirectory: string;
  shiftClock(ms: number): void;
}

export interface ChaosCluster {
  readonly directory: string;
  readonly nats: Server;
  readonly redis: Server;
  readonly postgres: Server;
  readonly nodes: readonly CloudNodeHandle[];
  readonly gateways: readonly GatewayHandle[];
  readonly brokers: ReadonlyMap<string, SiteBroker>;
  /** By site. */
  readonly taps: ReadonlyMap<string, BrokerTap>;
  /** Survives PostgreSQL's restarts; a query during one rejects. */
  readonly database: pg.Pool;
  /** One line per program that ended though nobody asked it to; it is started again, as a supervisor would. */
  readonly crashes: readonly string[];
  close(): Promise<void>;
}

export async function openCluster(options: {
  directory: string;
  binaries: Binaries;
  seed: number;
  nodes: number;
  /** For all of our own programs. */
  env: Readonly<Record<string, string>>;
  report: (line: string) => void;
  signal: AbortSignal;
}): Promise<ChaosCluster> {
  const { directory } = options;
  const releases: (() => unknown)[] = [];
  const close = async () => {
    for (const release of releases.splice(0).reverse()) await release();
  };
  const clocks = openClocks(join(directory, 'clocks'));
  const withClock = (name: string) => ({ ...options.env, ...clocks.env(name) });

  async function relay(url: string): Promise<{ link: Link; url: string }> {
    const through = new URL(url);
    const link = await openLink({ host: through.hostname, port: Number(through.port) });
    releases.unshift(() => link.close());
    through.port = String(link.port);
    return { link, url: through.toString() };
  }

  interface Lines {
    readonly env: Readonly<Record<string, string>>;
    readonly links: CloudNodeHandle['links'];
  }
  async function linesOf(servers: Pick<Stack, 'nats' | 'redis' | 'postgres'>, name: string): Promise<Lines> {
    const nats = await relay(servers.nats.url);
    const redis = await relay(servers.redis.url);
    const postgres = await relay(servers.postgres.url);
    return {
      links: { nats: nats.link, redis: redis.link, postgres: postgres.link },
      env: {
        ...withClock(name),
        HOLDFAST_NODE: name,
        HOLDFAST_NATS_URL: nats.url,
        HOLDFAST_REDIS_URL: redis.url,
        HOLDFAST_POSTGRES_URL: postgres.url,
        HOLDFAST_PARTITIONS: String(PARTITIONS),
        HOLDFAST_WEBHOOK_PRIVATE: 'allow',
      },
    };
  }

  const supervisor = newSupervisor(options);
  const lines = new Map<string, Lines>();
  const links = new Map<string, Link>();
  const directNatsUrls = new Map<string, string>();
  const mqttUrls = new Map<string, string>();
  const taps = new Map<string, BrokerTap>();
  try {
    const stack = await startStack({
      directory,
      binaries: options.binaries,
      sites: chaosSites,
      report: options.report,
      signal: options.signal,
      async cloudEnv(servers) {
        for (let index = 1; index <= options.nodes; index++) {
          lines.set(nodeName(index), await linesOf(servers, nodeName(index)));
        }
        return lines.get(nodeName(1))!.env;
      },
      gatewayEntry: new URL('../faults/forgetful-gateway.ts', import.meta.url),
      gatewayEnv: ({ site, gateway }) => ({
        ...withClock(`${site}/${gateway}`),
        HOLDFAST_LAB_SEED: String(options.seed),
        HOLDFAST_LAB_SYNC_MS: String(SYNC_MS),
        ...(site === 'pair' && STANDBY),
      }),
      async gatewayNatsUrl(url, { site, gateway }) {
        const through = await relay(url);
        directNatsUrls.set(`${site}/${gateway}`, url);
        links.set(`${site}/${gateway}`, through.link);
        return through.url;
      },
      async gatewayMqttUrl(url, { site }) {
        const through = new URL(url);
        let tap = taps.get(site);
        if (!tap) {
          tap = await openBrokerTap({ host: through.hostname, port: Number(through.port) }, keyOfMessage);
          releases.unshift(tap.close);
          taps.set(site, tap);
        }
        through.port = String(tap.port);
        mqttUrls.set(site, through.toString());
        return through.toString();
      },
    });
    releases.push(() => stack.close());

    const nodes: CloudNodeHandle[] = [];
    for (let index = 1; index <= options.nodes; index++) {
      const name = nodeName(index);
      const { env, links: own } = lines.get(name)!;
      const shared = { name, links: own, shiftClock: clocks.shift(name) };
      if (index === 1) {
        nodes.push(
          supervisor.supervised(name, {
            ...shared,
            url: stack.url,
            pid: () => stack.cloud.pid(),
            start: stack.startCloud,
            stop: () => stack.cloud.stop(),
            kill: () => stack.cloud.kill(),
            output: () => stack.cloud.output(),
          }),
        );
        continue;
      }
      const port = await freePort();
      const process = cloudProcess({ name, env: { ...env, HOLDFAST_HTTP_PORT: String(port) } });
      options.signal.throwIfAborted();
      releases.push(() => process.stop());
      await process.start();
      options.report(`${name} up`);
      const { pid, start, stop, kill, output } = process;
      const url = `http://127.0.0.1:${port}`;
      nodes.push(supervisor.supervised(name, { ...shared, url, pid, start, stop, kill, output }));
    }

    const database = new pg.Pool({ connectionString: stack.postgres.url, max: 4 });
    database.on('error', () => {});
    releases.push(() => database.end());
    const gateways = chaosSites.flatMap(({ site, gateways: names }) =>
      names.map((gateway): GatewayHandle => {
        const key = `${site}/${gateway}`;
        return {
          site,
          gateway,
          process: supervisor.supervised(`gateway ${key}`, stack.gateways.get(key)!),
          link: links.get(key)!,
          directNatsUrl: directNatsUrls.get(key)!,
          mqttUrl: mqttUrls.get(site)!,
          dataDirectory: join(directory, 'gateways', site, gateway),
          shiftClock: clocks.shift(key),
        };
      }),
    );
    releases.push(supervisor.watch());
    const { nats, redis, postgres, brokers } = stack;
    const { crashes } = supervisor;
    return { directory, nats, redis, postgres, nodes, gateways, brokers, taps, database, crashes, close };
  } catch (error) {
    await close();
    throw error;
  }
}

const nodeName = (index: number): string => `cloud-${index}`;
