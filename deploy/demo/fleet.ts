/**
 * The simulated fleet, a process of its own: one MQTT 5 connection per device, QoS 1, and a journal of what was
 * acknowledged, by the devices' own counters. The recording of `--replay` is one more device.
 *
 *   started with `FleetPlan` in its environment ─▶ "ready" ─▶ "progress" every second ─▶ told "finish" ─▶ "journal"
 */
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import mqtt, { type MqttClient } from 'mqtt';
import { parseRecording, shiftToEnd } from './recording.ts';
import { deviceNames, measure, newDevice, payloadOf } from './simulated-device.ts';

export interface FleetPlan {
  readonly sites: readonly { readonly site: string; readonly url: string; readonly devices: number }[];
  readonly intervalMs: number;
  readonly replay: {
    readonly file: string;
    readonly url: string;
    readonly device: string;
    readonly metric: string;
    readonly speed: number;
  } | null;
}

export interface FleetProgress {
  readonly type: 'progress';
  readonly published: number;
  readonly acknowledged: number;
  readonly replay: { readonly done: number; readonly of: number } | null;
}

export interface FleetJournal {
  readonly type: 'journal';
  readonly published: number;
  /** Acknowledged counters by `site/device`. */
  readonly acknowledged: Readonly<Record<string, readonly number[]>>;
  /** Acknowledged times of the replayed device, milliseconds since 1970. */
  readonly replayed: readonly number[];
}

const plan = JSON.parse(process.env.HOLDFAST_DEMO_FLEET ?? '') as FleetPlan;
/** Publishes without PUBACK at a time, for the replay; the fleet has at most a few per device. */
const REPLAY_IN_FLIGHT_MAX = 200;
const LAST_PUBACKS_MS = 5000;

const acknowledged = new Map<string, number[]>();
const replayed: number[] = [];
const clients: MqttClient[] = [];
const underWay = new Set<Promise<void>>();
let published = 0;
let acknowledgedCount = 0;
let replayOf = 0;
let finishing = false;

async function publish(
  client: MqttClient,
  topic: string,
  payload: string,
  onAcknowledged: () => void,
): Promise<void> {
  published++;
  try {
    await client.publishAsync(topic, payload, { qos: 1 });
    acknowledgedCount++;
    onAcknowledged();
  } catch {
    // The client was closed before the PUBACK came: published, not acknowledged.
  }
}

function track(work: Promise<void>): Promise<void> {
  underWay.add(work);
  return work.finally(() => underWay.delete(work));
}

const connect = (url: string, clientId: string) =>
  mqtt.connectAsync(url, { protocolVersion: 5, clientId, reconnectPeriod: 1000, keepalive: 30 });

async function runDevice(site: string, url: string, name: string): Promise<void> {
  const client = await connect(url, `sim-${site}-${name}`);
  clients.push(client);
  const journal: number[] = [];
  acknowledged.set(`${site}/${name}`, journal);
  let state = newDevice(name, Math.random);
  const tick = () => {
    if (finishing) return;
    const at = Date.now();
    state = measure(state, at, Math.random);
    const { counter } = state;
    void track(
      publish(client, `devices/${name}/telemetry`, payloadOf(state, at), () => {
        journal.push(counter);
      }),
    );
  };
  // Devices do not tick in step.
  await sleep(Math.random() * plan.intervalMs);
  setInterval(tick, plan.intervalMs);
}

async function runReplay({
  file,
  url,
  device,
  metric,
  speed,
}: NonNullable<FleetPlan['replay']>): Promise<void> {
  const readings = shiftToEnd(parseRecording(await readFile(file, 'utf8')), Date.now());
  replayOf = readings.length;
  const client = await connect(url, `sim-replay-${device}`);
  clients.push(client);
  const startedAt = performance.now();
  const first = readings[0]!.at;
  let inFlight = 0;
  for (const { at, value } of readings) {
    const due = startedAt + (at - first) / speed - performance.now();
    if (due > 1) await sleep(due);
    while (inFlight >= REPLAY_IN_FLIGHT_MAX && !finishing) await sleep(5);
    if (finishing) return;
    inFlight++;
    const sent = publish(
      client,
      `devices/${device}/telemetry`,
      JSON.stringify({ ts: at, [metric]: value }),
      () => {
        replayed.push(at);
      },
    );
    void track(
      sent.finally(() => {
        inFlight--;
      }),
    );
  }
}

async function finish(): Promise<void> {
  finishing = true;
  await Promise.race([Promise.all([...underWay]), sleep(LAST_PUBACKS_MS)]);
  for (const client of clients) client.end(true);
  const journal: FleetJournal = {
    type: 'journal',
    published,
    acknowledged: Object.fromEntries(acknowledged),
    replayed,
  };
  process.send?.(journal, () => process.exit(0));
}

process.on('message', message => {
  if ((message as { type?: string }).type === 'finish') void finish();
});
process.on('disconnect', () => process.exit(0));
process.on('SIGTERM', () => process.exit(0));

await Promise.all(
  plan.sites.flatMap(({ site, url, devices }) =>
    deviceNames(devices).map(name => runDevice(site, url, name)),
  ),
);
process.send?.({ type: 'ready' });
setInterval(() => {
  const progress: FleetProgress = {
    type: 'progress',
    published,
    acknowledged: acknowledgedCount,
    replay: plan.replay ? { done: replayed.length, of: replayOf } : null,
  };
  process.send?.(progress);
}, 1000);
if (plan.replay) await runReplay(plan.replay);
