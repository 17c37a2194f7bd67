/**
 * A gateway process of the simulated site. From production: what is sent and sent again (`send-plan.ts`), in which lane
 * (`lanes.ts`), what came twice (`redelivery.ts`), how frames become a batch. Simulated: the disk with its group commit, the
 * turns of the uplink, the connection to the cloud.
 *
 *   message ─▶ pending ─▶ fdatasync ─▶ durable, PUBACK ─▶ batch ─▶ stream ─▶ settled
 */
import { buildBatch } from '../edge-gateway/batch-builder.ts';
import { newHeartbeats } from '../edge-gateway/heartbeat.ts';
import { LIVE_WAITING_MAX, liveEdge } from '../edge-gateway/lanes.ts';
import type { LogInfo } from '../edge-gateway/log/disk-buffer.ts';
import type { Frame } from '../edge-gateway/log/frame.ts';
import { newRedelivery } from '../edge-gateway/redelivery.ts';
import * as sendPlan from '../edge-gateway/send-plan.ts';
import { encodeBatch, encodeHeartbeat } from '../protocol/batch-codec.ts';
import { HelloReply, Settled, type StreamPosition } from '../protocol/handshake.ts';
import type { GatewayId, LogId, SiteId } from '../protocol/ids.ts';
import { RangeSet } from '../protocol/range-set.ts';
import {
  helloSubject,
  ingestSubject,
  type Lane,
  lanes,
  partitionOf,
  settledSubject,
} from '../protocol/subjects.ts';
import type { Broker } from './broker.ts';
import type { Connection, NatsModel } from './nats.ts';
import type { Process, World } from './world.ts';

export interface GatewayBugs {
  readonly pubackBeforeSync: boolean;
  readonly trimOnPubAck: boolean;
  readonly reuseLogId: boolean;
}

interface Log {
  readonly logId: LogId;
  /** Durable, by sequence - 1. */
  readonly frames: Frame[];
  /** Given back to the disk. */
  gone: RangeSet;
}

/** What outlives a process. */
export interface Disk {
  readonly logs: Log[];
}

export interface GatewayModel {
  readonly name: string;
  readonly process: Process;
  readonly disk: Disk;
  /** All that is on its disk is settled, as far as it knows. */
  readonly drained: boolean;
  /** Acknowledges what is durable, and ends. */
  stop(): void;
  kill(): void;
  /** It goes on draining; the broker is the other one's from now on. */
  leaveBroker(): void;
}

const BATCH_MESSAGES_MAX = 12;
const IN_FLIGHT_MAX: Readonly<Record<Lane, number>> = { live: 8, backfill: 2 };
const FLUSH_MS = 120;
const HELLO_MS = { welcome: 3000, unwelcome: 700, timeout: 1500 } as const;
/** More often than production's: a run lasts some seconds. */
const HEARTBEAT_MS = 900;
const RETRY_MS = { first: 100, max: 2000 } as const;
/** Lanes are decided for this many messages per simulated one: then a backlog of some ten is one. */
const LANE_SCALE = { backlogs: LIVE_WAITING_MAX / 30, oneLane: 1 };
const REDELIVERY_WINDOW = 4096;
const RECEIVE_MAXIMUM = 32;

export const emptyDisk = (): Disk => ({ logs: [] });
export const copyOfDisk = (disk: Disk): Disk => ({
  logs: disk.logs.map(log => ({ ...log, frames: [...log.frames] })),
});

export function startGateway(options: {
  world: World;
  nats: NatsModel;
  broker: Broker;
  site: SiteId;
  gateway: GatewayId;
  host: string;
  disk: Disk;
  syncMs: number;
  /** Gives space back as soon as it may. */
  reclaims: boolean;
  /** What waits is never enough for a second lane. */
  oneLane: boolean;
  bugs: GatewayBugs;
}): GatewayModel {
  const { world, broker, site, gateway, host, disk, bugs } = options;
  const process = world.spawn(host);
  const scale = LANE_SCALE[options.oneLane ? 'oneLane' : 'backlogs'];
  const redelivery = newRedelivery({ receiveMaximum: RECEIVE_MAXIMUM, window: REDELIVERY_WINDOW });
  const plans = new Map<LogId, sendPlan.SendPlan>();
  const current = openLog();
  let edge = 1;
  let atBroker = true;
  const pending: { frame: Frame; acknowledge: () => void }[] = [];
  let syncing = false;
  let link: Connection;
  let welcome: { partitions: number; created: string } | null = null;
  let retryMs: number = RETRY_MS.first;
  let notices = 0;
  let turnDue = false;
  let lastFlushAt = -FLUSH_MS;
  const heartbeats = newHeartbeats();
  let hears = false;
  let heartbeatUnderWay = false;
  const inFlight: Record<Lane, number> = { live: 0, backfill: 0 };

  function openLog(): Log {
    const last = disk.logs.at(-1);
    if (bugs.reuseLogId && last) return last;
    let logId = Math.floor(world.now()).toString(16).padStart(12, '0');
    while (logId.length < 32) logId += Math.floor(world.random() * 16).toString(16);
    const log = { logId: logId as LogId, frames: [], gone: RangeSet.empty };
    disk.logs.push(log);
    return log;
  }

  // --- intake

  const client = {
    process,
    host,
    disk,
    onConnected(sessionPresent: boolean) {
      hears = atBroker;
      redelivery.connected(sessionPresent);
    },
    onMessage(
      delivery: Parameters<Parameters<Broker['connect']>[0]['onMessage']>[0],
      acknowledge: () => void,
    ) {
      const { packetId, duplicate, topic, payload } = delivery;
      const message = {
        receivedAt: Date.now(),
        monotonicMs: world.elapsed(),
        qos: 1 as const,
        retain: false,
        duplicate,
        packetId,
        topic,
        payload,
        payloadBytes: payload.length,
      };
      // Known, and perhaps not durable yet: it is acknowledged behind what is pending.
      if (redelivery.isKnown(message)) return afterSync(acknowledge);
      redelivery.remember(message);
      const sequence = current.frames.length + pending.length + 1;
      if (bugs.pubackBeforeSync) acknowledge();
      pending.push({
        frame: { ...message, sequence } as Frame,
        acknowledge: bugs.pubackBeforeSync ? () => {} : acknowledge,
      });
      sync();
    },
    onClosed() {
      hears = false;
      world.after(100 + world.random() * 900, process, 'mqtt connect', () => {
        if (atBroker) broker.connect(client);
      });
    },
  };
  const alsoAcknowledge: (() => void)[] = [];
  function afterSync(acknowledge: () => void): void {
    if (pending.length === 0) acknowledge();
    else alsoAcknowledge.push(acknowledge);
  }

  /** One group after another, each with its fdatasync. */
  function sync(): void {
    if (syncing || pending.length === 0) return;
    syncing = true;
    const group = pending.length;
    world.after(options.syncMs * (0.2 + world.random()), process, 'fdatasync', () => {
      syncing = false;
      const durable = pending.splice(0, group);
      for (const { frame, acknowledge } of durable) {
        current.frames.push(frame);
        acknowledge();
      }
      for (const acknowledge of alsoAcknowledge.splice(0)) acknowledge();
      sync();
      ring();
    });
  }

  // --- uplink

  const planOf = (log: Log) => {
    const plan = plans.get(log.logId) ?? sendPlan.newSendPlan();
    plans.set(log.logId, plan);
    return plan;
  };
  const change = (logId: LogId, apply: (plan: sendPlan.SendPlan) => sendPlan.SendPlan) => {
    const plan = plans.get(logId);
    if (plan) plans.set(logId, apply(plan));
  };

  function ring(): void {
    if (turnDue) return;
    turnDue = true;
    world.after(Math.max(0, lastFlushAt + FLUSH_MS - world.elapsed()), process, 'uplink', () => {
      turnDue = false;
      lastFlushAt = world.elapsed();
      while (sendNext('live')) {}
      while (sendNext('backfill')) {}
    });
  }

  function sendNext(lane: Lane): boolean {
    if (!welcome || !link.connected || inFlight[lane] >= IN_FLIGHT_MAX[lane]) return false;
    for (const log of lane === 'live' ? [current] : disk.logs) {
      const end = log.frames.length + 1;
      if (lane === 'live') {
        const first = sendPlan.waiting(planOf(log), edge, end).ranges[0]?.from ?? end;
        edge = Math.ceil(liveEdge(edge * scale, first * scale, end * scale) / scale);
      }
      const [from, to] = lane === 'live' ? [edge, end] : [1, log === current ? edge : end];
      const next = sendPlan.waiting(planOf(log), from, to).difference(log.gone).ranges[0];
      if (!next) continue;
      publish(lane, log, next.from, Math.min(next.to, next.from + BATCH_MESSAGES_MAX));
      return true;
    }
    return false;
  }

  function publish(lane: Lane, log: Log, from: number, to: number): void {
    const batch = buildBatch(log.logId, log.frames.slice(from - 1, to - 1));
    const bytes = encodeBatch(batch, { compression: 'none' });
    const range = { from, to };
    const { created, partitions } = welcome!;
    change(log.logId, plan => sendPlan.take(plan, range, created, lane, bytes.length));
    inFlight[lane]++;
    const subject = ingestSubject(partitionOf(site, partitions), lane, site, gateway);
    link.publishBatch(subject, bytes).then(
      sequence => {
        retryMs = RETRY_MS.first;
        inFlight[lane]--;
        change(log.logId, plan => sendPlan.acknowledged(plan, range, sequence));
        if (bugs.trimOnPubAck) log.gone = log.gone.add(from, to);
        ring();
      },
      () => {
        const waitMs = retryMs * (0.5 + world.random());
        retryMs = Math.min(retryMs * 2, RETRY_MS.max);
        world.after(waitMs, process, 'publish again', () => {
          inFlight[lane]--;
          change(log.logId, plan => sendPlan.failed(plan, range));
          ring();
        });
      },
    );
  }

  /** Behind all batches that are under way, on the same connection. */
  function heartbeat(): void {
    heartbeats.hearing({ hears, coversSite: false }, Date.now(), world.elapsed());
    if (!welcome) return;
    const beat = heartbeats.next({
      nowMs: Date.now(),
      monotonicMs: world.elapsed(),
      logs: disk.logs.map(log => infoOf(log, log === current)),
      messagesPending: pending.length,
      planOf: log => plans.get(log.logId),
      streamCreated: welcome.created,
    });
    if (heartbeatUnderWay || !link.connected) return;
    heartbeatUnderWay = true;
    const subject = ingestSubject(partitionOf(site, welcome.partitions), 'live', site, gateway);
    link
      .publishBatch(subject, encodeHeartbeat(beat))
      .catch(() => {})
      .finally(() => {
        heartbeatUnderWay = false;
      });
  }
  function beat(): void {
    world.after(HEARTBEAT_MS, process, 'heartbeat', () => {
      heartbeat();
      beat();
    });
  }

  function onSettled(
    settled: Readonly<Record<string, RangeSet>>,
    stream: StreamPosition,
    whole: boolean,
  ): void {
    if (welcome && stream.created > welcome.created) welcome = { ...welcome, created: stream.created };
    for (const log of disk.logs) {
      const ranges = settled[log.logId];
      let plan = planOf(log);
      if (whole) plan = sendPlan.resettle(plan, ranges ?? RangeSet.empty);
      else if (ranges) plan = sendPlan.settle(plan, ranges);
      if (ranges && options.reclaims) log.gone = log.gone.union(ranges);
      for (const lane of lanes) {
        plan = sendPlan.passed(plan, { created: stream.created, sequence: stream[lane] }, lane);
      }
      plans.set(log.logId, plan);
    }
    ring();
  }

  async function hello(): Promise<void> {
    if (!link.connected) return;
    const noticesBefore = notices;
    const message = JSON.stringify({
      wireVersions: [1],
      logs: disk.logs.map(log => log.logId),
      ends: Object.fromEntries(disk.logs.map(log => [log.logId, log.frames.length + 1])),
      report: REPORT,
    });
    try {
      const reply = HelloReply.parse(
        JSON.parse(await link.request(helloSubject(site, gateway), message, HELLO_MS.timeout)),
      );
      if (reply.outcome !== 'welcome') return;
      onSettled(reply.settled, reply.stream, notices === noticesBefore);
      welcome = { partitions: reply.partitions, created: reply.stream.created };
      ring();
    } catch {
      // Asked again soon.
    }
  }

  function greet(): void {
    world.after(welcome ? HELLO_MS.welcome : HELLO_MS.unwelcome, process, 'hello', () => {
      void hello();
      greet();
    });
  }

  world.after(0, process, 'start', () => {
    for (const log of disk.logs) for (const frame of log.frames) redelivery.remember(frame);
    link = options.nats.connect(process, host);
    link.nats.subscribe(settledSubject(site, gateway), {
      callback: (_error, { data }) => {
        notices++;
        const { settled, stream } = Settled.parse(JSON.parse(Buffer.from(data).toString()));
        onSettled(settled, stream, false);
      },
    });
    link.listen({ onDisconnect: () => {}, onReconnect: () => void hello() });
    void hello();
    greet();
    beat();
    broker.connect(client);
  });

  return {
    name: host,
    process,
    disk,
    get drained() {
      return (
        pending.length === 0 &&
        disk.logs.every(log => RangeSet.of(1, log.frames.length + 1).difference(planOf(log).settled).isEmpty)
      );
    },
    stop() {
      atBroker = false;
      for (const { frame, acknowledge } of pending.splice(0)) {
        current.frames.push(frame);
        acknowledge();
      }
      world.kill(process);
    },
    kill: () => world.kill(process),
    leaveBroker() {
      atBroker = false;
      hears = false;
    },
  };
}

const infoOf = (log: Log, current: boolean): LogInfo => ({
  logId: log.logId,
  current,
  firstSequence: 1,
  nextSequence: log.frames.length + 1,
  lost: RangeSet.empty,
  missing: RangeSet.empty,
  settled: RangeSet.empty,
  thinned: RangeSet.empty,
  bytes: 0,
  bootId: null,
});

const REPORT = {
  bufferBytes: 0,
  bufferBytesMax: 1e9,
  unsettledMessages: 0,
  messages: 0,
  dropped: 0,
  syncMs: 1,
  broker: { connected: true, reason: null },
  oldestUnsettledAt: null,
  wireBytesLeft: 0,
  forecast: { fullInSeconds: null, drainedInSeconds: null },
  thinnedMessages: 0,
  lostMessages: 0,
  dataBudget: null,
  role: 'active',
} as const;
