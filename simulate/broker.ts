/**
 * The broker of one site and its devices. QoS 1: what the gateway did not acknowledge on this very connection comes again on
 * the next one. A killed broker comes back as it was at its last save; what it forgot thereby was its own promise, not ours.
 */
import type { Journal } from './journal.ts';
import { measuredValue, messageKey } from './journal.ts';
import type { Network } from './network.ts';
import type { Process, World } from './world.ts';

export interface Delivery {
  readonly packetId: number;
  readonly duplicate: boolean;
  readonly topic: string;
  readonly payload: Buffer;
}

export interface BrokerClient {
  readonly process: Process;
  readonly host: string;
  /** What it stores on: who has another one does not know what this one has. */
  readonly disk: object;
  onMessage(delivery: Delivery, acknowledge: () => void): void;
  onConnected(sessionPresent: boolean): void;
  onClosed(): void;
}

export interface Broker {
  /** One client id: whoever had the session is put off. */
  connect(client: BrokerClient): void;
  kill(): void;
  start(): void;
  readonly isUp: boolean;
}

interface Queued {
  readonly device: string;
  readonly n: number;
  packetId: number;
  deliveries: number;
  readonly topic: string;
  readonly payload: Buffer;
}

const RECEIVE_MAXIMUM = 32;
const SAVE_EVERY_MS = 1500;

export function openBroker(
  world: World,
  network: Network,
  journal: Journal,
  options: { site: string; devices: readonly string[]; periodMs: number; until: number },
): Broker {
  const host = `broker-${options.site}`;
  let queue: Queued[] = [];
  let saved: Queued[] = [];
  let up = true;
  let client: BrokerClient | null = null;
  let connection = 0;
  let packetId = 0;
  let inFlight = 0;

  function publish(device: string, n: number): void {
    const topic = `devices/${device}/telemetry`;
    const at = Math.floor(world.now());
    const value = measuredValue(device, n);
    journal.published.set(messageKey(`${options.site}/${device}`, n), value);
    queue.push({
      device: `${options.site}/${device}`,
      n,
      packetId: 0,
      deliveries: 0,
      topic,
      payload: Buffer.from(`{"n":${n},"v":${value},"timestamp":${at}}`),
    });
    send();
  }

  /** Hands over what there is room for. */
  function send(): void {
    if (!up || !client || client.process.phase === 'dead') return;
    const mine = connection;
    const to = client;
    for (const entry of queue) {
      if (inFlight >= RECEIVE_MAXIMUM) return;
      if (entry.packetId !== 0 && inFlightIds.has(entry.packetId)) continue;
      if (entry.packetId === 0) {
        packetId = (packetId % 65_535) + 1;
        entry.packetId = packetId;
      }
      inFlight++;
      inFlightIds.add(entry.packetId);
      const duplicate = entry.deliveries++ > 0;
      const { packetId: id, topic, payload } = entry;
      world.after(network.travelMs(host, to.host), to.process, `mqtt ${entry.device} ${entry.n}`, () => {
        if (mine !== connection) return;
        const key = messageKey(entry.device, entry.n);
        const boxes = journal.handedTo.get(key);
        if (boxes) boxes.add(to.disk);
        else journal.handedTo.set(key, new Set([to.disk]));
        to.onMessage({ packetId: id, duplicate, topic, payload }, () => {
          world.after(network.travelMs(to.host, host), null, `puback ${entry.device} ${entry.n}`, () => {
            if (mine !== connection) return;
            inFlight--;
            inFlightIds.delete(id);
            queue = queue.filter(other => other !== entry);
            journal.acknowledged.add(messageKey(entry.device, entry.n));
            send();
          });
        });
      });
    }
  }
  let inFlightIds = new Set<number>();

  function close(): void {
    const was = client;
    connection++;
    client = null;
    inFlight = 0;
    inFlightIds = new Set();
    if (was) world.after(2 + world.random() * 20, was.process, 'mqtt closed', () => was.onClosed());
  }

  function tick(device: string, n: number): void {
    world.after(options.periodMs * (0.6 + 0.8 * world.random()), null, 'device', () => {
      if (world.elapsed() > options.until) return;
      // A device that does not reach its broker measures, and has nobody to tell.
      if (up) publish(device, n);
      tick(device, up ? n + 1 : n);
    });
  }
  for (const device of options.devices) tick(device, 1);

  function save(): void {
    world.after(SAVE_EVERY_MS, null, 'broker saves', () => {
      if (world.elapsed() > options.until + 60_000) return;
      if (up) saved = queue.map(entry => ({ ...entry }));
      save();
    });
  }
  save();

  return {
    connect(next) {
      if (!up) {
        world.after(5, next.process, 'mqtt closed', () => next.onClosed());
        return;
      }
      if (client && client !== next) close();
      connection++;
      client = next;
      inFlight = 0;
      inFlightIds = new Set();
      const mine = connection;
      world.after(network.travelMs(host, next.host), next.process, 'mqtt connack', () => {
        if (mine !== connection) return;
        next.onConnected(true);
        send();
      });
    },
    kill() {
      up = false;
      queue = saved.map(entry => ({ ...entry }));
      close();
    },
    start() {
      up = true;
    },
    get isUp() {
      return up;
    },
  };
}
