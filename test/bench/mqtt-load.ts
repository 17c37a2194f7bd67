/**
 * The load generator, a process of its own: publishes the standard fleet at QoS 1 over a few plain connections per
 * broker, so cheaply that it is not the bottleneck. All frames of a round are made before the round begins; while it
 * runs the process only slices one buffer per connection and counts 4-byte PUBACKs.
 *
 *   connect ─▶ ready ─▶ prepare N ─▶ prepared ─▶ allow …, allow … ─▶ done ─▶ prepare N …
 *
 * A connection sends the next frames while fewer than its window wait for their PUBACK (never more than the broker's
 * receive maximum) and while their place in the fleet's order is below what the harness has allowed: so the harness
 * keeps the round a closed loop all the way to the dashboard. A device always takes the same connection.
 *
 * Between two rounds one interval of the fleet is left out, so that rounds do not share a timestamp.
 */
import type { Socket } from 'node:net';
import { parseArgs } from 'node:util';
import { connectPlain, PACKET_IDS, publishFrame } from './plain-mqtt.ts';
import { type FleetMessage, standardFleet } from './standard-fleet.ts';

export type LoadCommand =
  | { readonly type: 'prepare'; readonly messages: number }
  /** Publish up to this many messages of the round. The first one starts it. */
  | { readonly type: 'allow'; readonly until: number };

export interface Prepared {
  readonly type: 'prepared';
  readonly messages: number;
  /** All timestamps of the round lie in [fromMs, toMs), those of other rounds outside. */
  readonly fromMs: number;
  readonly toMs: number;
  /** Payloads alone. */
  readonly payloadBytes: number;
  /** By site: device → its last timestamp in the round. */
  readonly lastTs: readonly Record<string, number>[];
}

export interface Done {
  readonly type: 'done';
  readonly published: number;
  readonly acknowledged: number;
  /** CPU of this process from the first `allow` to here. */
  readonly cpuMs: number;
}

const INTERVAL_MS = 1000;

interface Connection {
  readonly socket: Socket;
  readonly window: number;
  frames: Buffer;
  /** Where each frame ends. */
  ends: Uint32Array;
  /** Each frame's place in the order of the whole fleet. */
  places: Uint32Array;
  sent: number;
  acknowledged: number;
  blocked: boolean;
}

const { values: options } = parseArgs({
  options: {
    broker: { type: 'string', multiple: true },
    connections: { type: 'string', default: '2' },
    window: { type: 'string', default: '2000' },
    devices: { type: 'string', default: '1000' },
    'start-ms': { type: 'string' },
  },
});
const brokers = options.broker ?? [];
const connectionsPerSite = Number(options.connections);
const devices = Number(options.devices);
const startMs = Number(options['start-ms']);
const fleet = standardFleet({ devices, sites: brokers.length, startMs, intervalMs: INTERVAL_MS });
let interval = 0;
let allowed = 0;
let total = 0;
let acknowledged = 0;
let cpuAtStart = process.cpuUsage();

const sites: Connection[][] = await Promise.all(
  brokers.map((url, site) =>
    Promise.all(Array.from({ length: connectionsPerSite }, (_, n) => open(url, `load-${site}-${n}`))),
  ),
);

process.on('message', (command: LoadCommand) => {
  if (command.type === 'prepare') say(prepare(command.messages));
  else {
    if (allowed === 0) cpuAtStart = process.cpuUsage();
    allowed = command.until;
    for (const connection of sites.flat()) pump(connection);
  }
});
process.on('SIGTERM', () => process.exit(0));
process.on('disconnect', () => process.exit(0));
say({ type: 'ready' });

function say(message: object): void {
  process.send?.(message);
}

/** Makes the frames of the next `messages`, rounded down to whole intervals of the fleet. */
function prepare(messages: number): Prepared {
  const intervals = Math.max(1, Math.floor(messages / devices));
  // The phase of a device is up to one interval, its jitter a few milliseconds: half an interval holds rounds apart.
  const fromMs = startMs + (interval - 0.5) * INTERVAL_MS;
  const toMs = startMs + (interval + intervals + 0.5) * INTERVAL_MS;
  total = intervals * devices;
  allowed = 0;
  acknowledged = 0;
  const lastTs = brokers.map((): Record<string, number> => ({}));
  const drafts = sites.map(connections =>
    connections.map(() => ({ frames: [] as Buffer[], places: [] as number[] })),
  );
  let payloadBytes = 0;
  for (let place = 0; place < total; place++) {
    const message = fleet.next().value;
    const draft = drafts[message.site]![connectionOf(message)]!;
    draft.frames.push(publishFrame(message, (draft.frames.length % PACKET_IDS) + 1));
    draft.places.push(place);
    payloadBytes += message.payload.length;
    lastTs[message.site]![message.device] = message.ts;
  }
  for (let i = 0; i < devices; i++) fleet.next();
  interval += intervals + 1;

  drafts.forEach((connections, site) => {
    connections.forEach(({ frames, places }, n) => {
      let end = 0;
      Object.assign(sites[site]![n]!, {
        frames: Buffer.concat(frames),
        ends: Uint32Array.from(frames, frame => (end += frame.length)),
        places: Uint32Array.from(places),
        sent: 0,
        acknowledged: 0,
      });
    });
  });
  return { type: 'prepared', messages: total, fromMs, toMs, payloadBytes, lastTs };
}

const connectionOf = (message: FleetMessage) =>
  Math.floor(Number(message.device.slice('dev-'.length)) / brokers.length) % connectionsPerSite;

function pump(connection: Connection): void {
  if (connection.blocked) return;
  const { places, ends, sent } = connection;
  const limit = Math.min(places.length, connection.acknowledged + connection.window);
  let next = sent;
  while (next < limit && places[next]! < allowed) next++;
  if (next === sent) return;
  connection.sent = next;
  const flushed = connection.socket.write(
    connection.frames.subarray(sent === 0 ? 0 : ends[sent - 1]!, ends[next - 1]!),
  );
  connection.blocked = !flushed;
}

function onAcks(connection: Connection, acks: number): void {
  connection.acknowledged += acks;
  acknowledged += acks;
  pump(connection);
  if (acknowledged === total && acks > 0) finish();
}

function finish(): void {
  const { user, system } = process.cpuUsage(cpuAtStart);
  const published = sites.flat().reduce((sum, connection) => sum + connection.sent, 0);
  const done: Done = { type: 'done', published, acknowledged, cpuMs: (user + system) / 1000 };
  say(done);
}

async function open(url: string, clientId: string): Promise<Connection> {
  const opened = await connectPlain(url, clientId, acks => onAcks(connection, acks));
  const connection: Connection = {
    socket: opened.socket,
    window: Math.min(Number(options.window), opened.receiveMaximum),
    frames: Buffer.alloc(0),
    ends: new Uint32Array(),
    places: new Uint32Array(),
    sent: 0,
    acknowledged: 0,
    blocked: false,
  };
  opened.socket.on('drain', () => {
    connection.blocked = false;
    pump(connection);
  });
  return connection;
}
