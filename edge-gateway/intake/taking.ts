/**
 * What becomes of a message that the broker sends: on disk, then acknowledged.
 *
 *   PUBLISH ─▶ of a gateway? known already? ─▶ log.append ─▶ (group fdatasync) ─▶ PUBACK, only on the connection it came on
 *                                                 │ full
 *                                                 └▶ hold the connection until there is space (QoS 0: drop and count)
 *
 * A publish with a response topic is answered at the same moment as its PUBACK (`receipt.ts`). Invariants: A (PUBACK
 * after fdatasync), F (messages without PUBACK are bounded by the receive maximum, their bytes by the log), H (nothing a
 * device sends can stop the intake: only the Sparkplug observer looks at content, and what it cannot read goes on as it is).
 */
import type { IPublishPacket, MqttClient } from 'mqtt';
import type { Logger } from 'pino';
import { limits } from '../../protocol/limits.ts';
import type { DiskBuffer } from '../log/disk-buffer.ts';
import type { Message } from '../log/frame.ts';
import { keepProperties } from '../log/frame-properties.ts';
import type { MessageFacts } from '../mapping/compile.ts';
import type { Observer } from '../mapping/sparkplug/observer.ts';
import { receiptFor, receiptPayload } from '../receipt.ts';
import type { Redelivery } from '../redelivery.ts';
import { PUBACK_LATER } from './broker-session.ts';
import { isOwnTopic, RECEIPT_PROPERTY } from './own-topics.ts';

export interface IntakeClock {
  /** Milliseconds since 1970. */
  wallMs(): number;
  monotonicMs(): number;
}

export interface Taking {
  /** As mqtt.js wants its `handleMessage`. */
  accept(packet: IPublishPacket, callback: (error?: Error) => void): void;
  /** Another connection from now on, or none: what came before is not acknowledged any more. */
  connection(client: MqttClient | null): void;
  /** QoS 0 messages dropped because the buffer was full. */
  readonly dropped: number;
  /** Messages recognised as stored already. */
  readonly repeated: number;
  /** Takes nothing more; resolves when what was taken is acknowledged, or after a while. */
  close(): Promise<void>;
}

/** Receipts without the broker's PUBACK; beyond it a device gets none, and asks again. */
const RECEIPTS_UNDER_WAY_MAX = 1000;
/** A disk or broker that does not answer in time does not hold up the end. A worn card may take seconds for one fdatasync. */
const LAST_ACKNOWLEDGED_MS = 3000;

export function newTaking(options: {
  gateway: string;
  buffer: DiskBuffer;
  redelivery: Redelivery;
  /** Whose topics are whose, after the mapping file; without it after the common shapes alone. */
  facts?: MessageFacts | undefined;
  /** Notes what Sparkplug messages need to be read later, before they are stored. */
  sparkplug?: Observer | null | undefined;
  clock: IntakeClock;
  logger: Logger;
  /** A message of a gateway's own topics, which is no reading. */
  onOwn: (packet: IPublishPacket) => void;
  /** Every message of a device, before it is stored. */
  onMessage: (message: Message) => void;
  /** Whether the session may be another gateway's by now, without our having heard of it. */
  inDoubt: () => boolean;
  /** Calls back when the broker has answered on this connection; never, when it does not. */
  prove: (client: MqttClient, proven: () => void) => void;
}): Taking {
  const { buffer, redelivery, clock, logger } = options;
  let client: MqttClient | null = null;
  let connection = 0;
  let dropped = 0;
  let repeated = 0;
  let receiptsUnderWay = 0;
  let held: (() => void) | null = null;
  let acks: number[] = [];
  /** The newest message that was appended; a repeated one is acknowledged with it. */
  let newest: { durable: boolean; followers: (() => void)[] } = { durable: true, followers: [] };
  /** Messages of a connection in doubt, at most as many as the receive maximum. */
  let doubted: IPublishPacket[] | null = null;
  let closing = false;
  const forgetSpace = buffer.onSpace(releaseHeld);

  function accept(packet: IPublishPacket, callback: (error?: Error) => void): void {
    const done = () => callback(packet.qos === 1 ? PUBACK_LATER : undefined);
    if (closing && packet.qos > 0) done();
    else if (packet.qos === 0 || !isDoubtful()) take(packet, done);
    else {
      doubted!.push(packet);
      done();
    }
  }

  /**
   * A process that was stopped wakes up with messages in its socket that may have gone to another gateway meanwhile.
   * They wait until the broker has answered; if it does not, the session has them still.
   */
  function isDoubtful(): boolean {
    if (doubted) return true;
    if (!client || !options.inDoubt()) return false;
    doubted = [];
    const on = connection;
    options.prove(client, () => {
      if (on === connection) takeDoubted();
    });
    return true;
  }

  function takeDoubted(on = connection): void {
    for (;;) {
      if (on !== connection) return;
      const packet = doubted?.shift();
      if (!packet) {
        doubted = null;
        return;
      }
      let step: 'working' | 'done' | 'held' = 'working';
      take(packet, () => {
        if (step === 'held') takeDoubted(on);
        else step = 'done';
      });
      if (step === 'working') {
        step = 'held';
        return;
      }
    }
  }

  function take(packet: IPublishPacket, done: () => void): void {
    if (packet.retain || isOfGateway(packet)) {
      options.onOwn(packet);
      acknowledge(connection, packet);
      done();
      return;
    }
    const message = messageOf(packet, clock);
    options.onMessage(message);
    if (redelivery.isKnown(message)) {
      repeated++;
      const on = connection;
      if (newest.durable) acknowledge(on, packet);
      else newest.followers.push(() => acknowledge(on, packet));
      done();
      return;
    }
    const on = connection;
    if (!options.sparkplug) store(packet, message, on, done);
    else {
      options.sparkplug.observe(message, observed => {
        // It may have waited for a birth certificate to be on disk; another connection brings it again.
        if (on === connection) store(packet, observed, on, done);
        else done();
      });
    }
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
    const properties = packet.properties && keepProperties(packet.properties);
    const asked = receiptFor(packet, options.facts?.ownerOf({ topic: packet.topic, properties }));
    if (asked.outcome === 'refused')
      logger.warn({ topic: packet.topic, reason: asked.reason }, 'no receipt sent');
    if (asked.outcome !== 'due' || receiptsUnderWay >= RECEIPTS_UNDER_WAY_MAX || !client) return;
    const { topic, correlationData } = asked.receipt;
    const userProperties = { [RECEIPT_PROPERTY]: options.gateway };
    receiptsUnderWay++;
    client.publish(
      topic,
      receiptPayload(clock.wallMs()),
      { qos: 1, properties: correlationData ? { correlationData, userProperties } : { userProperties } },
      () => {
        receiptsUnderWay--;
      },
    );
  }

  /** All PUBACKs of a group in one write: 4 bytes each, reason code 0 left out (MQTT 5, 3.4.2.1). */
  function sendAcks(): void {
    const ids = acks;
    acks = [];
    if (!client?.connected || ids.length === 0) return;
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
    accept,
    connection(next) {
      connection++;
      client = next;
      if (next) options.sparkplug?.connected((topic, payload) => void next.publish(topic, payload));
      acks = [];
      doubted = null;
      releaseHeld();
    },
    get dropped() {
      return dropped;
    },
    get repeated() {
      return repeated;
    },
    async close() {
      closing = true;
      forgetSpace();
      releaseHeld();
      const on = client;
      if (!on?.connected) return;
      if (!newest.durable) await inTime(done => newest.followers.push(done));
      // The broker handles our packets in their order: an answer says that it has the last PUBACKs, and will not send
      // those messages again to somebody who cannot know them (a data folder that is put back, another gateway).
      if (on.connected) await inTime(done => options.prove(on, done));
    },
  };
}

/** Resolves when `work` is done, its own consequences included, or when it takes too long. */
function inTime(work: (done: () => void) => void): Promise<void> {
  return new Promise(resolve => {
    const late = setTimeout(resolve, LAST_ACKNOWLEDGED_MS);
    work(() => {
      clearTimeout(late);
      setImmediate(resolve);
    });
  });
}

/** What gateways say at the broker is no reading: their status, and receipts of another gateway. */
function isOfGateway({ topic, properties }: IPublishPacket): boolean {
  return isOwnTopic(topic) || properties?.userProperties?.[RECEIPT_PROPERTY] !== undefined;
}

function messageOf(packet: IPublishPacket, clock: IntakeClock): Message {
  const payload = packet.payload as Buffer;
  const tooLarge = payload.length > limits.payloadBytesMax;
  const properties = packet.properties && keepProperties(packet.properties);
  return {
    receivedAt: clock.wallMs(),
    monotonicMs: clock.monotonicMs(),
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
