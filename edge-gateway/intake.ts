/**
 * Intake: takes messages from the site's broker and acknowledges each once it is on disk.
 *
 *   PUBLISH ─▶ known already? ─▶ log.append ─▶ (group fdatasync) ─▶ PUBACK, only on the connection it came on
 *                                   │ full
 *                                   └▶ hold the connection until there is space (QoS 0: drop and count)
 *
 * A publish with a response topic is answered at the same moment as its PUBACK (`receipt.ts`).
 *
 * The broker keeps what has no PUBACK and sends it again after a reconnect. Invariants: A (PUBACK after fdatasync), F
 * (messages without PUBACK are bounded by the receive maximum, their bytes by the log), H (content is not
 * looked at here: nothing a device sends can stop the intake).
 */
import mqtt, { type IConnackPacket, type IPublishPacket, type MqttClient } from 'mqtt';
import type { Logger } from 'pino';
import { limits } from '../protocol/limits.ts';
import type { GatewayConfig } from './config.ts';
import type { DiskBuffer } from './log/disk-buffer.ts';
import type { Message } from './log/frame.ts';
import { keepProperties } from './log/frame-properties.ts';
import { receiptFor, receiptPayload } from './receipt.ts';
import type { Redelivery } from './redelivery.ts';

export interface Intake {
  readonly broker: { connected: boolean; reason: string | null };
  /** QoS 0 messages dropped because the buffer was full. */
  readonly dropped: number;
  /** Messages recognised as stored already. */
  readonly repeated: number;
  /** Takes no more messages; what has no PUBACK stays with the broker. */
  close(): Promise<void>;
}

/** Receipts without the broker's PUBACK; beyond it a device gets none, and asks again. */
const RECEIPTS_UNDER_WAY_MAX = 1000;
/** A refused subscription is asked for again on the same connection: rights may have changed. */
const SUBSCRIBE_AGAIN_MS = 5000;
/** A broker that does not answer the DISCONNECT is left. */
const GOODBYE_MS = 2000;
const SESSION_EXPIRY_SECONDS = 0xffff_ffff;
const CONNECT_AGAIN_MS = { first: 250, max: 10_000 };
const GRANTED_MAX = 2;

/** Given to mqtt.js in place of success, so that it does not send the PUBACK: it follows after the fdatasync. */
const PUBACK_LATER = new Error('PUBACK follows when the message is on disk');

export function startIntake(options: {
  config: Pick<GatewayConfig, 'mqttUrl' | 'site' | 'gateway' | 'topics' | 'receiveMaximum'>;
  buffer: DiskBuffer;
  redelivery: Redelivery;
  logger: Logger;
}): Intake {
  const { config, buffer, redelivery, logger } = options;
  const broker: Intake['broker'] = { connected: false, reason: 'not connected yet' };
  let connection = 0;
  let dropped = 0;
  let repeated = 0;
  let receiptsUnderWay = 0;
  let connectAgainMs = CONNECT_AGAIN_MS.first;
  let held: (() => void) | null = null;
  let acks: number[] = [];
  /** The newest message that was appended; a repeated one is acknowledged with it. */
  let newest: { durable: boolean; followers: (() => void)[] } = { durable: true, followers: [] };

  const client: MqttClient = mqtt.connect(config.mqttUrl, {
    protocolVersion: 5,
    clientId: `holdfast-${config.site}-${config.gateway}`,
    clean: false,
    properties: {
      sessionExpiryInterval: SESSION_EXPIRY_SECONDS,
      receiveMaximum: config.receiveMaximum,
    },
    keepalive: 30,
    reconnectPeriod: connectAgainMs,
    reconnectOnConnackError: true,
    connectTimeout: 10_000,
    resubscribe: false,
  });

  client.handleMessage = (packet, callback) => accept(packet, callback);

  client.on('connect', connack => {
    connection++;
    acks = [];
    const sessionPresent = (connack as IConnackPacket).sessionPresent;
    redelivery.connected(sessionPresent);
    connectAgainMs = CONNECT_AGAIN_MS.first;
    subscribe(sessionPresent);
  });
  client.on('close', () => {
    connection++;
    broker.connected = false;
    // A fleet of gateways must not come back in step.
    connectAgainMs = Math.min(connectAgainMs * 2, CONNECT_AGAIN_MS.max);
    client.options.reconnectPeriod = connectAgainMs * (0.5 + Math.random() / 2);
    releaseHeld();
  });
  client.on('error', error => trouble(reasonOf(error, config.mqttUrl)));

  const forgetSpace = buffer.onSpace(releaseHeld);

  function trouble(reason: string): void {
    if (reason !== broker.reason) logger.warn({ reason }, 'broker: no connection, trying again');
    broker.reason = reason;
  }

  function subscribe(sessionPresent: boolean): void {
    const wanted = Object.fromEntries(
      // Own publishes do not come back; retained values are not new readings.
      config.topics.map(topic => [topic, { qos: 1 as const, nl: true, rap: false, rh: 1 }]),
    );
    client.subscribe(wanted, (error, granted) => {
      const refused = (granted ?? []).filter(entry => entry.qos > GRANTED_MAX).map(entry => entry.topic);
      if (error || refused.length > 0) {
        trouble(error ? error.message : `the broker does not let us subscribe to ${refused.join(', ')}`);
        const on = connection;
        setTimeout(() => {
          if (on === connection && client.connected) subscribe(sessionPresent);
        }, SUBSCRIBE_AGAIN_MS).unref();
        return;
      }
      broker.connected = true;
      broker.reason = null;
      logger.info({ sessionPresent, topics: config.topics }, 'broker: connected');
    });
  }

  function accept(packet: IPublishPacket, callback: (error?: Error) => void): void {
    const done = () => callback(packet.qos === 1 ? PUBACK_LATER : undefined);
    if (packet.retain) {
      acknowledge(connection, packet);
      done();
      return;
    }
    const message = messageOf(packet);
    if (redelivery.isKnown(message)) {
      repeated++;
      const on = connection;
      if (newest.durable) acknowledge(on, packet);
      else newest.followers.push(() => acknowledge(on, packet));
      done();
      return;
    }
    store(packet, message, connection, done);
  }

  function store(packet: IPublishPacket, message: Message, on: number, done: () => void): void {
    const entry = { durable: false, followers: [] as (() => void)[] };
    const outcome = buffer.append(message, () => {
      entry.durable = true;
      acknowledge(on, packet);
      for (const follower of entry.followers) follower();
    });
    if (outcome === 'full') {
      if (message.qos === 0) {
        dropped++;
        done();
        return;
      }
      // Not read any further until there is space: the broker keeps the rest.
      held = () => (on === connection ? store(packet, message, on, done) : done());
      return;
    }
    newest = entry;
    redelivery.remember(message);
    done();
  }

  function releaseHeld(): void {
    const waiting = held;
    held = null;
    waiting?.();
  }

  /** The message is on disk: PUBACK, and the receipt where one was asked for. */
  function acknowledge(on: number, packet: IPublishPacket): void {
    if (on !== connection) return;
    if (packet.properties?.responseTopic) sendReceipt(packet);
    if (packet.qos === 0) return;
    if (acks.length === 0) queueMicrotask(sendAcks);
    acks.push(packet.messageId!);
  }

  function sendReceipt(packet: IPublishPacket): void {
    const asked = receiptFor(packet);
    if (asked.outcome === 'refused')
      logger.warn({ topic: packet.topic, reason: asked.reason }, 'no receipt sent');
    if (asked.outcome !== 'due' || receiptsUnderWay >= RECEIPTS_UNDER_WAY_MAX) return;
    const { topic, correlationData } = asked.receipt;
    receiptsUnderWay++;
    client.publish(
      topic,
      receiptPayload(Date.now()),
      { qos: 1, properties: correlationData ? { correlationData } : {} },
      () => {
        receiptsUnderWay--;
      },
    );
  }

  /** All PUBACKs of a group in one write: 4 bytes each, reason code 0 left out (MQTT 5, 3.4.2.1). */
  function sendAcks(): void {
    const ids = acks;
    acks = [];
    if (!client.connected || ids.length === 0) return;
    const bytes = Buffer.allocUnsafe(ids.length * 4);
    let offset = 0;
    for (const id of ids) {
      bytes[offset++] = 0x40;
      bytes[offset++] = 2;
      offset = bytes.writeUInt16BE(id, offset);
    }
    client.stream.write(bytes);
  }

  return {
    broker,
    get dropped() {
      return dropped;
    },
    get repeated() {
      return repeated;
    },
    async close() {
      forgetSpace();
      const goodbye = client.endAsync().then(() => true);
      const late = new Promise<false>(resolve => setTimeout(() => resolve(false), GOODBYE_MS));
      if (!(await Promise.race([goodbye, late]))) client.end(true);
    },
  };
}

function messageOf(packet: IPublishPacket): Message {
  const payload = packet.payload as Buffer;
  const tooLarge = payload.length > limits.payloadBytesMax;
  const properties = packet.properties && keepProperties(packet.properties);
  return {
    receivedAt: Date.now(),
    monotonicMs: performance.now(),
    qos: packet.qos,
    retain: false,
    duplicate: packet.dup,
    packetId: packet.messageId ?? 0,
    topic: packet.topic,
    payload: tooLarge ? payload.subarray(0, limits.quarantinedPayloadBytesMax) : payload,
    payloadBytes: payload.length,
    ...(properties && { properties }),
  };
}

const BAD_CREDENTIALS = new Set([4, 5, 134, 135]);

function reasonOf(error: Error & { code?: unknown }, url: string): string {
  const { host, username } = new URL(url);
  if (typeof error.code === 'number' && BAD_CREDENTIALS.has(error.code)) {
    const user = username === '' ? 'a client without a user name' : `user "${username}"`;
    return `the broker at ${host} refuses ${user} (${error.message}): check the user and password in HOLDFAST_MQTT_URL`;
  }
  const message = error.message || String(error.code);
  return `the broker at ${host} does not answer (${message}): check HOLDFAST_MQTT_URL and that the broker runs`;
}
