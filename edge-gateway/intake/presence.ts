/**
 * The gateway's second connection to the broker, which takes no readings: it says that the gateway is there, with a
 * will for when it is not; it hears the other gateways of the site; and it reads retained metadata and availability anew
 * each time it connects. It has a clean session and an own client id, so nothing of it disturbs the session that takes the messages.
 *
 *   connecting ─▶ subscribed ─▶ own status published ─▶ own status heard: watching ──lost──▶ connecting …
 *
 * A broker answers a subscription with what it has retained, and only then with what comes live: when the own status
 * comes back, all that was retained has come. Invariant R: it comes back for ever; F: it queues nothing while it is away.
 */
import mqtt, { type ISubscriptionMap } from 'mqtt';
import type { Logger } from 'pino';
import type { GatewayId, SiteId } from '../../protocol/ids.ts';
import { brokerTrouble, isThrownOut } from './broker-trouble.ts';
import {
  type GatewayStatus,
  gatewayOf,
  isOwnTopic,
  type Role,
  readStatus,
  statusFilter,
  statusTopic,
} from './own-topics.ts';

export interface Presence {
  /** Connected, and all that was retained has come. */
  readonly watching: boolean;
  setRole(role: Role): void;
  /** Publishes to a topic that the other connection hears. */
  mark(topic: string, note: string): void;
  /** Says offline, and goes. */
  close(): Promise<void>;
}

const BROKER_VERSION = '$SYS/broker/version';
/** A box that loses its power is missed after one and a half of it. */
const KEEPALIVE_SECONDS = 10;
const CONNECT_AGAIN_MS = 1000;
/** When it is thrown out, somebody uses its client id; to fight for it helps nobody. */
const THROWN_OUT_AGAIN_MS = 60_000;
const GOODBYE_MS = 1000;
const GRANTED_MAX = 2;

export function openPresence(options: {
  mqttUrl: string;
  site: SiteId;
  gateway: GatewayId;
  group: GatewayId | null;
  role: Role;
  /** The status is said again this often, for those who judge by silence; null: never. */
  heartbeatMs: number | null;
  /** Topic filters of retained metadata and availability. */
  metadata: readonly string[];
  nowMs: () => number;
  logger: Logger;
  onWatching: () => void;
  onBlind: () => void;
  /** A gateway of the site has said what it is; `retained`: some time before. */
  onStatus: (gateway: string, status: GatewayStatus, retained: boolean) => void;
  onMetadata: (topic: string, payload: Uint8Array, retained: boolean) => void;
  onBrokerVersion: (version: string) => void;
  /** The connection is lost, or was taken over. */
  onLost: () => void;
  /** It cannot connect, or may not do what it has to. */
  onTrouble: (reason: string) => void;
}): Presence {
  const { site, gateway, group, logger } = options;
  const topic = statusTopic(site, gateway);
  const since = options.nowMs();
  let role = options.role;
  let watching = false;
  let closed = false;
  let lastTrouble = '';

  const subscriptions: ISubscriptionMap = {
    [BROKER_VERSION]: { qos: 0, rh: 0 },
    [statusFilter(site)]: { qos: 0, rh: 0 },
  };
  // QoS 0: a broker bounds what waits for one client at QoS 1, and drops the rest of ten thousand retained values.
  for (const filter of options.metadata) subscriptions[filter] = { qos: 0, rh: 0 };

  const client = mqtt.connect(options.mqttUrl, {
    protocolVersion: 5,
    clientId: `holdfast-${site}-${gateway}.presence`,
    clean: true,
    keepalive: KEEPALIVE_SECONDS,
    reconnectPeriod: again(),
    reconnectOnConnackError: true,
    connectTimeout: 10_000,
    resubscribe: false,
    queueQoSZero: false,
    will: { topic, payload: Buffer.from(JSON.stringify(offline())), qos: 1, retain: true },
  });
  const heartbeat =
    options.heartbeatMs === null
      ? undefined
      : setInterval(() => {
          if (watching) client.publish(topic, statusNow(), { qos: 0 });
        }, options.heartbeatMs);
  heartbeat?.unref();

  client.on('connect', () => {
    client.options.reconnectPeriod = again();
    client.subscribe(subscriptions, (error, granted) => {
      // Without metadata or `$SYS` it still says that it is there.
      const refused = (granted ?? []).filter(entry => entry.qos > GRANTED_MAX).map(entry => entry.topic);
      if (error) trouble(error.message);
      else if (refused.length > 0) trouble(`it does not let us subscribe to ${refused.join(', ')}`);
      publishStatus();
    });
  });
  client.on('message', (from, payload, packet) => {
    if (from === BROKER_VERSION) options.onBrokerVersion(payload.toString());
    else if (isOwnTopic(from)) onStatus(from, payload, packet.retain);
    else options.onMetadata(from, payload, packet.retain);
  });
  client.on('disconnect', packet => {
    if (isThrownOut(packet)) client.options.reconnectPeriod = THROWN_OUT_AGAIN_MS * (0.5 + Math.random());
  });
  client.on('close', () => {
    if (!watching) return;
    watching = false;
    options.onBlind();
    options.onLost();
  });
  client.on('error', error => options.onTrouble(brokerTrouble(error, options.mqttUrl)));

  function onStatus(from: string, payload: Uint8Array, retained: boolean): void {
    const who = gatewayOf(from);
    const status = readStatus(payload);
    if (who === null || !status) return;
    if (who !== gateway) options.onStatus(who, status, retained);
    if (who !== gateway || retained) return;
    // The will of a connection before this one came late.
    if (status.status === 'offline' && client.connected && !closed) publishStatus();
    if (status.status !== 'online' || watching) return;
    watching = true;
    lastTrouble = '';
    options.onWatching();
  }

  function offline(): GatewayStatus {
    return { status: 'offline', group };
  }

  function statusNow(): string {
    return JSON.stringify({ status: 'online', since, role, group } satisfies GatewayStatus);
  }

  function publishStatus(): void {
    client.publish(topic, statusNow(), { qos: 1, retain: true }, error => {
      if (error && client.connected) trouble(`it does not let us publish ${topic} (${error.message})`);
    });
  }

  function trouble(reason: string): void {
    if (reason !== lastTrouble) logger.warn({ reason }, 'presence: the broker refuses it');
    lastTrouble = reason;
    options.onTrouble(`presence at the broker: ${reason}`);
  }

  return {
    get watching() {
      return watching;
    },
    setRole(next) {
      if (role === next) return;
      role = next;
      if (client.connected) publishStatus();
    },
    mark(on, note) {
      if (client.connected) client.publish(on, note, { qos: 1 });
    },
    async close() {
      closed = true;
      clearInterval(heartbeat);
      const goodbye = (async () => {
        if (client.connected)
          await client.publishAsync(topic, JSON.stringify(offline()), { qos: 1, retain: true });
        await client.endAsync();
      })().then(
        () => true,
        () => false,
      );
      const late = new Promise<false>(resolve => setTimeout(() => resolve(false), GOODBYE_MS));
      if (!(await Promise.race([goodbye, late]))) client.end(true);
    },
  };
}

const again = (): number => CONNECT_AGAIN_MS * (0.5 + Math.random());
