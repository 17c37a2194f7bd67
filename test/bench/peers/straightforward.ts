/**
 * The straightforward service: what a capable developer writes in an afternoon with the same libraries and servers.
 *
 * - one mqtt.js client per site with a persistent session, subscribed to `#` at QoS 1;
 * - per message, in the handler: one INSERT per reading into a table with the key (device, metric, ts), the four of a
 *   message side by side over a pool of 10 connections, as a prepared statement; then one Redis SET of the twin; then
 *   `ws.send` to every connected client; then the PUBACK.
 *
 * Durable like Holdfast: `synchronous_commit` is on and the PUBACK follows the commit. That makes mqtt.js take the
 * messages of a connection one by one, since it waits for the handler; the two sites run side by side. A key that is
 * there already is no error, because a broker may deliver a message twice.
 *
 * Nothing is made slow on purpose. It has no buffer at the site, no batches, no quarantine, no alerts.
 */

import { App, us_socket_local_port, type WebSocket } from 'uWebSockets.js';
import { Redis } from 'ioredis';
import mqtt from 'mqtt';
import pg from 'pg';

/** What the service sends to its clients, one message per message of a device. */
export interface TwinMessage {
  readonly site: string;
  readonly device: string;
  readonly ts: number;
  readonly values: Readonly<Record<string, number>>;
}

const INSERT = {
  name: 'insert-reading',
  text: `insert into reading (device, metric, ts, value) values ($1, $2, to_timestamp($3 / 1000.0), $4)
         on conflict do nothing`,
};

const { POSTGRES_URL, REDIS_URL, BROKERS } = process.env;
/** By site. */
const brokers = JSON.parse(BROKERS!) as Record<string, string>;

const pool = new pg.Pool({ connectionString: POSTGRES_URL!, max: 10 });
await pool.query(`
  create table if not exists reading (
    device text not null,
    metric text not null,
    ts     timestamptz not null,
    value  float8 not null,
    primary key (device, metric, ts)
  )`);
const redis = new Redis(REDIS_URL!);
const clients = new Set<WebSocket<unknown>>();

const port = await new Promise<number>((resolve, reject) => {
  App()
    .ws('/push', {
      open: socket => void clients.add(socket),
      close: socket => void clients.delete(socket),
    })
    .listen('127.0.0.1', 0, listening => {
      if (listening) resolve(us_socket_local_port(listening));
      else reject(new Error('no port for the WebSocket server'));
    });
});

const sessions = await Promise.all(
  Object.entries(brokers).map(async ([site, url]) => {
    const session = mqtt.connect(url, {
      protocolVersion: 5,
      clientId: `straightforward-${site}`,
      clean: false,
      properties: { sessionExpiryInterval: 3600 },
    });
    session.handleMessage = (packet, callback) => {
      handle(site, packet.topic, packet.payload.toString()).then(
        () => callback(),
        error => callback(error as Error),
      );
    };
    await session.subscribeAsync('#', { qos: 1 });
    return session;
  }),
);
process.send?.({ type: 'ready', port });

async function handle(site: string, topic: string, payload: string): Promise<void> {
  const device = topic.split('/')[1]!;
  const { ts, ...values } = JSON.parse(payload) as { ts: number } & Record<string, number>;
  const twin = `${site}/${device}`;
  await Promise.all(
    Object.entries(values).map(([metric, value]) =>
      pool.query({ ...INSERT, values: [twin, metric, ts, value] }),
    ),
  );
  const message: TwinMessage = { site, device, ts, values };
  const text = JSON.stringify(message);
  await redis.set(`twin:${twin}`, text);
  for (const client of clients) client.send(text);
}

let stopping = false;
async function stop(): Promise<void> {
  if (stopping) return;
  stopping = true;
  await Promise.all(sessions.map(session => session.endAsync()));
  await pool.end();
  redis.disconnect();
  process.exit(0);
}
process.on('SIGTERM', () => void stop());
process.on('disconnect', () => void stop());
