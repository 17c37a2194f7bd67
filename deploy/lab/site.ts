/**
 * What a run of the lab stands on: the whole product on this machine with one site, its link (`link.ts`), a listener
 * between broker and gateway (`broker-tap.ts`), and a gateway on a disk that forgets (`forgetful-gateway.ts`).
 */
import { cpSync, lstatSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import pg from 'pg';
import { natsAddress } from '../../protocol/nats-address.ts';
import { INGEST_STREAM } from '../../protocol/subjects.ts';
import { type BrokerTap, openBrokerTap } from '../faults/broker-tap.ts';
import { keyOfMessage } from '../faults/devices.ts';
import { randomFrom } from '../faults/random.ts';
import type { Binaries } from '../local/binaries.ts';
import { type Link, openLink } from '../local/link.ts';
import type { Weather } from '../local/link-weather.ts';
import { type NodeProcess, nodeProcess } from '../local/node-process.ts';
import { freePort } from '../local/ports.ts';
import { type SiteBroker, type Stack, startStack } from '../local/stack.ts';

export const LAB_SITE = 'lab';
/** Follows from device and counter, so that a value in history can be checked. */
export const labValue = (index: number, n: number): number => ((index * 7919 + n * 104_729) % 10_000) / 100;
const GATEWAY = 'gateway-1';

export interface LabSite {
  readonly stack: Stack;
  readonly broker: SiteBroker;
  readonly gateway: NodeProcess;
  readonly link: Link;
  readonly tap: BrokerTap;
  readonly postgres: pg.Pool;
  /** The gateway forgets nothing any more until it starts again: what follows is no power cut. */
  keepDisk(): Promise<void>;
  /** Copies the gateway's data as it is on the disk at one moment, to `name`. */
  takeImage(name: string): void;
  /** The gateway, which is stopped, finds that image in place of its data. */
  putBack(name: string): void;
  /** A second process of the same name and credentials on an image; it has no broker, and a link that is always well. */
  startClone(name: string): Promise<{ stop(): Promise<void> }>;
  deleteStream(): Promise<void>;
  /** Messages on the gateway's disk that history has not settled, as its last hello says; null when nobody knows. */
  unsettled(): Promise<{ readonly messages: number; readonly askedAt: number } | null>;
  close(): Promise<void>;
}

export async function openLabSite(options: {
  /** Of all data. */
  directory: string;
  binaries: Binaries;
  seed: number;
  weather: Weather;
  report: (line: string) => void;
  signal: AbortSignal;
}): Promise<LabSite> {
  const { directory, seed } = options;
  const releases: (() => unknown)[] = [];
  const close = async () => {
    for (const release of releases.splice(0).reverse()) await release();
  };
  const random = randomFrom(seed);
  let link: Link | undefined;
  let tap: BrokerTap | undefined;
  let directNatsUrl = '';
  try {
    const stack = await startStack({
      directory,
      binaries: options.binaries,
      sites: [{ site: LAB_SITE, gateways: [GATEWAY] }],
      report: options.report,
      signal: options.signal,
      gatewayEntry: new URL('../faults/forgetful-gateway.ts', import.meta.url),
      gatewayEnv: { HOLDFAST_LAB_SEED: String(seed) },
      async gatewayNatsUrl(url) {
        directNatsUrl = url;
        const through = new URL(url);
        link = await openLink({ host: through.hostname, port: Number(through.port) }, { random });
        link.shape(options.weather);
        through.port = String(link.port);
        return through.toString();
      },
      async gatewayMqttUrl(url) {
        const through = new URL(url);
        tap = await openBrokerTap({ host: through.hostname, port: Number(through.port) }, keyOfMessage);
        through.port = String(tap.port);
        return through.toString();
      },
    });
    releases.push(() => link?.close());
    releases.push(() => tap?.close());
    releases.push(() => stack.close());
    const postgres = new pg.Pool({ connectionString: stack.postgres.url, max: 3 });
    postgres.on('error', () => {});
    releases.push(() => postgres.end());

    const gateway = stack.gateways.get(`${LAB_SITE}/${GATEWAY}`)!;
    const data = join(directory, 'gateways', LAB_SITE, GATEWAY);
    const image = (name: string) => join(directory, 'images', name);
    return {
      stack,
      broker: stack.brokers.get(LAB_SITE)!,
      gateway,
      link: link!,
      tap: tap!,
      postgres,
      async keepDisk() {
        const kept = Promise.withResolvers<void>();
        const forget = gateway.onMessage(message => message.type === 'kept' && kept.resolve());
        gateway.send({ type: 'keep' });
        await Promise.race([kept.promise, sleep(5000)]);
        forget();
      },
      takeImage(name) {
        const pid = gateway.pid();
        rmSync(image(name), { recursive: true, force: true });
        // Nothing moves while the disk is copied, as in a snapshot of a volume.
        if (pid) process.kill(pid, 'SIGSTOP');
        try {
          cpSync(data, image(name), { recursive: true, filter: isDataFile });
        } finally {
          if (pid) process.kill(pid, 'SIGCONT');
        }
      },
      putBack(name) {
        rmSync(data, { recursive: true, force: true });
        cpSync(image(name), data, { recursive: true });
      },
      async startClone(name) {
        const clone = nodeProcess({
          name: 'clone of the gateway',
          entry: new URL('../../edge-gateway/main.ts', import.meta.url),
          env: {
            HOLDFAST_SITE: LAB_SITE,
            HOLDFAST_GATEWAY: GATEWAY,
            HOLDFAST_MQTT_URL: `mqtt://127.0.0.1:${await freePort()}`,
            HOLDFAST_NATS_URL: directNatsUrl,
            HOLDFAST_DATA_DIR: image(name),
          },
        });
        releases.push(() => clone.stop());
        await clone.start();
        return clone;
      },
      async deleteStream() {
        const nats = await connect(natsAddress(stack.nats.url));
        try {
          await (await jetstreamManager(nats)).streams.delete(INGEST_STREAM);
        } finally {
          await nats.close();
        }
      },
      async unsettled() {
        try {
          const response = await fetch(`${stack.url}/sites`, { signal: AbortSignal.timeout(5000) });
          const { sites } = (await response.json()) as SitesAnswer;
          const entry = sites.find(({ site }) => site === LAB_SITE)?.gateways[0];
          return entry ? { messages: entry.unsettledMessages, askedAt: entry.lastHelloAt } : null;
        } catch {
          // The cloud node is one of the parts that die here.
          return null;
        }
      },
      close,
    };
  } catch (error) {
    await close();
    await link?.close();
    await tap?.close();
    throw error;
  }
}

interface SitesAnswer {
  readonly sites: readonly {
    readonly site: string;
    readonly gateways: readonly { readonly unsettledMessages: number; readonly lastHelloAt: number }[];
  }[];
}

/** Sockets are no data, and cannot be copied. */
const isDataFile = (path: string): boolean => {
  const found = lstatSync(path);
  return found.isFile() || found.isDirectory();
};
