/**
 * Devices that publish at a steady rate and keep a journal of what the broker acknowledged: the test's own record,
 * independent of every number Holdfast gives.
 *
 * Each message carries the device's own counter `n`. Even devices add a timestamp, odd ones leave it out, because the
 * two are told from a repeated message by different rules. *Acknowledged* is the PUBACK as the publisher saw it; after a
 * lost connection mqtt.js sends again under the same packet id, and the same call is then acknowledged late.
 */
import mqtt, { type MqttClient } from 'mqtt';

/** What became of message n of a device: index n. */
export interface DeviceJournal {
  readonly device: string;
  /** Messages 1 to `published` were handed to the broker. */
  published: number;
  /** Those of them whose PUBACK was seen. */
  readonly acknowledged: Set<number>;
  readonly ownTimestamps: boolean;
}

export type Journal = ReadonlyMap<string, DeviceJournal>;

export interface Publisher {
  readonly journal: Journal;
  readonly published: number;
  readonly acknowledged: number;
  /** Resolves when that many messages are acknowledged. Rejects after a minute. */
  reached(acknowledged: number): Promise<void>;
  /** Publishes no more; resolves when all is acknowledged. Rejects after a minute. */
  finish(): Promise<void>;
  /** Publishes no more and closes the connections, whatever is acknowledged. */
  stop(): Promise<void>;
}

const TICK_MS = 10;
const PATIENCE_MS = 60_000;

export async function startPublisher(options: {
  url: string;
  /** Devices are named `<prefix>-0` and so on. */
  prefix: string;
  devices: number;
  messagesPerSecond: number;
}): Promise<Publisher> {
  const journals = Array.from(
    { length: options.devices },
    (_, index): DeviceJournal => ({
      device: `${options.prefix}-${index}`,
      published: 0,
      acknowledged: new Set(),
      ownTimestamps: index % 2 === 0,
    }),
  );
  const clients: MqttClient[] = [];
  for (const { device } of journals) {
    const client = await mqtt.connectAsync(options.url, {
      protocolVersion: 5,
      clientId: device,
      reconnectPeriod: 100,
    });
    client.on('error', () => {});
    clients.push(client);
  }
  const lastTimestamp = new Float64Array(options.devices);
  const startedAt = performance.now();
  let published = 0;
  let acknowledged = 0;
  let waiting: { reached: () => boolean; resolve: () => void }[] = [];

  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - startedAt) / 1000) * options.messagesPerSecond);
    while (published < due) publish(published % options.devices);
  }, TICK_MS);

  function publish(index: number): void {
    const journal = journals[index]!;
    const n = ++journal.published;
    published++;
    // Strictly later than the one before: the newest message is then the one with the highest n.
    const ts = Math.max(Date.now(), lastTimestamp[index]! + 1);
    lastTimestamp[index] = ts;
    const payload = journal.ownTimestamps ? { ts, n, temperature: 20 + (n % 10) } : { n };
    clients[index]!.publish(
      `devices/${journal.device}/telemetry`,
      JSON.stringify(payload),
      { qos: 1 },
      error => {
        if (error) return;
        journal.acknowledged.add(n);
        acknowledged++;
        wake();
      },
    );
  }

  function wake(): void {
    for (const entry of waiting) if (entry.reached()) entry.resolve();
    waiting = waiting.filter(entry => !entry.reached());
  }

  function when(what: string, reached: () => boolean): Promise<void> {
    if (reached()) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const late = setTimeout(
        () => reject(new Error(`${what}: ${acknowledged} of ${published} acknowledged after a minute`)),
        PATIENCE_MS,
      );
      const done = () => {
        clearTimeout(late);
        resolve();
      };
      waiting.push({ reached, resolve: done });
    });
  }

  return {
    journal: new Map(journals.map(journal => [journal.device, journal])),
    get published() {
      return published;
    },
    get acknowledged() {
      return acknowledged;
    },
    reached: count => when(`waiting for ${count}`, () => acknowledged >= count),
    finish() {
      clearInterval(timer);
      return when('finishing', () => acknowledged === published);
    },
    async stop() {
      clearInterval(timer);
      await Promise.all(clients.map(client => client.endAsync(true)));
    },
  };
}
