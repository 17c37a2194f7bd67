/**
 * A fleet at its own pace, a process of its own: the standard fleet of one site, each message published when its time has
 * come and not before. What the broker does not take in time is published late, and its age shows that.
 *
 *   connect ─▶ ready ─▶ (every tick: publish what is due) ─▶ stop ─▶ (all acknowledged) ─▶ done
 */
import { parseArgs } from 'node:util';
import { connectPlain, PACKET_IDS, publishFrame } from './plain-mqtt.ts';
import { standardFleet } from './standard-fleet.ts';

export interface SteadyProgress {
  readonly type: 'progress' | 'done';
  readonly published: number;
  readonly acknowledged: number;
}

const TICK_MS = 5;
const PROGRESS_MS = 200;

const { values: options } = parseArgs({
  options: {
    broker: { type: 'string' },
    devices: { type: 'string' },
    'interval-ms': { type: 'string' },
    seed: { type: 'string' },
  },
});

let published = 0;
let acknowledged = 0;
let stopping = false;
const connection = await connectPlain(options.broker!, `steady-${options.seed}`, acks => {
  acknowledged += acks;
  if (stopping && acknowledged === published) finish();
});
const fleet = standardFleet({
  devices: Number(options.devices),
  sites: 1,
  seed: Number(options.seed),
  startMs: Date.now() + 100,
  intervalMs: Number(options['interval-ms']),
});
let next = fleet.next().value;

const pace = setInterval(() => {
  const now = Date.now();
  const frames: Buffer[] = [];
  while (next.ts <= now && published - acknowledged < connection.receiveMaximum) {
    frames.push(publishFrame(next, (published++ % PACKET_IDS) + 1));
    next = fleet.next().value;
  }
  if (frames.length > 0) connection.socket.write(Buffer.concat(frames));
}, TICK_MS);
const telling = setInterval(() => say('progress'), PROGRESS_MS);

process.on('message', () => {
  stopping = true;
  clearInterval(pace);
  if (acknowledged === published) finish();
});
process.on('SIGTERM', () => process.exit(0));
process.on('disconnect', () => process.exit(0));
process.send?.({ type: 'ready' });

function say(type: SteadyProgress['type']): void {
  process.send?.({ type, published, acknowledged } satisfies SteadyProgress);
}

function finish(): void {
  clearInterval(telling);
  say('done');
}
