/**
 * Bytes on the wire: what gateways and cloud exchange per reading, in full batches of 500 messages of the standard
 * fleet. Every byte above TCP of the gateways' NATS connections counts, both ways: batches, NATS framing, the
 * stream's acknowledgements, settled notices, hellos and pings. A counting relay stands between them, in a phase of its
 * own because it costs CPU.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Binaries } from '../../deploy/local/binaries.ts';
import { type Link, openLink } from '../../deploy/local/link.ts';
import { startHoldfast } from './holdfast-subject.ts';
import { startLoadGenerator } from './load-generator.ts';
import type { Releases } from './releases.ts';
import { runRound } from './round.ts';
import { type FleetMessage, gzipBytes, standardFleet } from './standard-fleet.ts';
import { benchSites } from './subject.ts';

const BATCH_MESSAGES = 500;
/** Long enough that every batch is full. */
const FLUSH_INTERVAL_MS = 5000;
const QUIET_MS = 300;

export interface WireFigures {
  readonly messages: number;
  readonly wire_bytes_per_reading: number;
  /** Of that the encoded batches alone. */
  readonly batch_bytes_per_reading: number;
  readonly wire_up_bytes_per_reading: number;
  readonly wire_down_bytes_per_reading: number;
  /** The same batches as gzipped lines of topic and payload, without any framing. */
  readonly wire_gzip_bytes_per_reading: number;
  /** The JSON payloads as they are. */
  readonly raw_bytes_per_reading: number;
  readonly batch_messages_mean: number;
}

export async function measureWire(options: {
  readonly directory: string;
  readonly binaries: Binaries;
  readonly releases: Releases;
  /** Rounded down to whole batches of every site. */
  readonly messages: number;
}): Promise<WireFigures> {
  const { binaries, directory, releases } = options;
  const whole = BATCH_MESSAGES * benchSites.length;
  const messages = Math.max(1, Math.floor(options.messages / whole)) * whole;
  const startMs = Date.now() - messages - 10_000;
  const proxies: Link[] = [];
  releases.add(() => Promise.all(proxies.map(proxy => proxy.close())));
  const subject = await startHoldfast({
    directory,
    binaries,
    gatewayEnv: {
      HOLDFAST_BATCH_MESSAGES_MAX: String(BATCH_MESSAGES),
      HOLDFAST_FLUSH_INTERVAL_MS: String(FLUSH_INTERVAL_MS),
    },
    async gatewayNatsUrl(url) {
      const through = new URL(url);
      const proxy = await openLink({ host: through.hostname, port: Number(through.port) });
      proxies.push(proxy);
      through.port = String(proxy.port);
      return through.toString();
    },
  });
  releases.add(() => subject.close());
  // One connection per site, so that messages arrive in the order of their times, as from a fleet at its own pace:
  // two that take turns in bursts would shuffle them as no fleet does.
  const load = await startLoadGenerator({ brokers: subject.brokers, startMs, connections: 1 });
  releases.add(() => load.stop());

  const carried = (way: 'up' | 'down') => proxies.reduce((sum, proxy) => sum + proxy.bytes[way], 0);
  await quiet(() => carried('up') + carried('down'));
  const before = { up: carried('up'), down: carried('down'), ...(await subject.totals()) };
  const round = await runRound(subject, load, messages);
  await quiet(() => carried('up') + carried('down'));
  const up = carried('up') - before.up;
  const down = carried('down') - before.down;
  const { batches, bytes } = await subject.totals();
  return {
    messages: round.messages,
    wire_bytes_per_reading: (up + down) / round.readings,
    batch_bytes_per_reading: (bytes - before.bytes) / round.readings,
    wire_up_bytes_per_reading: up / round.readings,
    wire_down_bytes_per_reading: down / round.readings,
    wire_gzip_bytes_per_reading: gzipOfBatches(startMs, round.messages) / round.readings,
    raw_bytes_per_reading: round.payloadBytes / round.readings,
    batch_messages_mean: round.messages / (batches - before.batches),
  };
}

/** Gzip of the same messages in the same batches: each site's, 500 at a time. */
function gzipOfBatches(startMs: number, messages: number): number {
  const batches = benchSites.map((): FleetMessage[] => []);
  const fleet = standardFleet({ sites: benchSites.length, startMs });
  let bytes = 0;
  for (let i = 0; i < messages; i++) {
    const message = fleet.next().value;
    const batch = batches[message.site]!;
    batch.push(message);
    if (batch.length < BATCH_MESSAGES) continue;
    bytes += gzipBytes(batch);
    batch.length = 0;
  }
  return bytes;
}

/** Resolves when nothing has been carried for a while: all notices have come. */
async function quiet(carried: () => number): Promise<void> {
  for (let last = -1, now = carried(); now !== last; now = carried()) {
    last = now;
    await sleep(QUIET_MS);
  }
}
