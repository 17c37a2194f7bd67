/**
 * Devices under observation: MQTT 5, QoS 1, persistent sessions, and a journal of what the broker acknowledged, read off the wire.
 * What had no PUBACK when a connection broke is sent again under the same packet id, as a device must.
 *
 * Every message carries the device's own counter `n` and a value that follows from it. Four of five devices add their own
 * timestamp, as devices that resend should; the fifth does not, and can be told from its own repetition by nobody.
 */
import mqtt, { type MqttClient } from 'mqtt';
import { messageKey } from './broker-tap.ts';

export interface Puback {
  /** When the device saw it, milliseconds since 1970. */
  readonly at: number;
  /** The broker had nobody to give it to. */
  readonly nobodyThere: boolean;
}

export interface DeviceJournal {
  readonly device: string;
  readonly ownTimestamps: boolean;
  /** Messages 1 to `published` were handed to the MQTT client. */
  published: number;
  /** By counter. */
  readonly acknowledged: Map<number, Puback>;
}

export interface Devices {
  readonly journals: readonly DeviceJournal[];
  readonly published: number;
  readonly acknowledged: number;
  /** Publishes no more. Resolves with whether all was acknowledged within the time. */
  finish(timeoutMs: number): Promise<boolean>;
  /** Publishes one more message of each device. */
  lastWord(): void;
  close(): Promise<void>;
}

const TICK_MS = 10;
const NOBODY_THERE = 16;
const SESSION_EXPIRY_SECONDS = 3600;

/** The message's key (`messageKey`) from its topic and payload; null when it is none of these devices'. */
export function keyOfMessage(topic: string, payload: Buffer): string | null {
  const device = /^devices\/([^/]+)\/telemetry$/.exec(topic)?.[1];
  const n = /"n":(\d+)/.exec(payload.toString('latin1'))?.[1];
  return device && n ? messageKey(device, Number(n)) : null;
}

export async function startDevices(options: {
  url: string;
  count: number;
  name: (index: number) => string;
  /** Follows from device and counter, so that a value in history can be checked. */
  value: (index: number, n: number) => number;
  /** Of all together. */
  messagesPerSecond: number;
}): Promise<Devices> {
  const journals = Array.from(
    { length: options.count },
    (_, index): DeviceJournal => ({
      device: options.name(index),
      ownTimestamps: index % 5 !== 4,
      published: 0,
      acknowledged: new Map(),
    }),
  );
  const lastTimestamp = new Float64Array(options.count);
  let published = 0;
  let acknowledged = 0;
  let onAllAcknowledged = () => {};
  const clients: MqttClient[] = [];
  for (const journal of journals) clients.push(await connectDevice(journal));

  async function connectDevice(journal: DeviceJournal): Promise<MqttClient> {
    const client = mqtt.connect(options.url, {
      protocolVersion: 5,
      clientId: journal.device,
      clean: false,
      properties: { sessionExpiryInterval: SESSION_EXPIRY_SECONDS },
      reconnectPeriod: 200,
      keepalive: 10,
    });
    /** Counter by packet id, as sent last. */
    const sent = new Map<number, number>();
    client.on('error', () => {});
    client.on('packetsend', packet => {
      if (packet.cmd !== 'publish') return;
      sent.set(packet.messageId!, Number(/"n":(\d+)/.exec(String(packet.payload))![1]));
    });
    client.on('packetreceive', packet => {
      if (packet.cmd !== 'puback') return;
      const n = sent.get(packet.messageId!);
      if (n === undefined || journal.acknowledged.has(n)) return;
      journal.acknowledged.set(n, { at: Date.now(), nobodyThere: packet.reasonCode === NOBODY_THERE });
      acknowledged++;
      if (acknowledged === published) onAllAcknowledged();
    });
    await new Promise<void>(resolve => client.once('connect', () => resolve()));
    return client;
  }

  function publish(index: number): void {
    const journal = journals[index]!;
    const n = ++journal.published;
    published++;
    const ts = Math.max(Date.now(), lastTimestamp[index]! + 1);
    lastTimestamp[index] = ts;
    const reading = { n, v: options.value(index, n) };
    const payload = JSON.stringify(journal.ownTimestamps ? { ts, ...reading } : reading);
    clients[index]!.publish(`devices/${journal.device}/telemetry`, payload, { qos: 1 });
  }

  const startedAt = performance.now();
  let due = 0;
  const timer = setInterval(() => {
    const now = Math.floor(((performance.now() - startedAt) / 1000) * options.messagesPerSecond);
    for (; due < now; due++) publish(due % options.count);
  }, TICK_MS);

  return {
    journals,
    get published() {
      return published;
    },
    get acknowledged() {
      return acknowledged;
    },
    finish(timeoutMs) {
      clearInterval(timer);
      if (acknowledged === published) return Promise.resolve(true);
      return new Promise(resolve => {
        const late = setTimeout(() => resolve(false), timeoutMs);
        onAllAcknowledged = () => {
          clearTimeout(late);
          resolve(true);
        };
      });
    },
    lastWord() {
      for (let index = 0; index < options.count; index++) publish(index);
    },
    async close() {
      clearInterval(timer);
      await Promise.all(clients.map(client => client.endAsync(true)));
    },
  };
}
