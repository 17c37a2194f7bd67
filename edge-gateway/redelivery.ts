/**
 * Messages that come twice, pure. Two reasons, two rules; when unsure, the message is stored.
 *
 * 1. The broker sends again what it saw no PUBACK for. Recognised only by all of: DUP, session present, the same
 *    packet id and the same content, among the last frames (as many as may be unacknowledged at a time).
 * 2. A device sends again what it saw no PUBACK for, or a broker that was restored to an earlier moment does.
 *    Recognised by the same topic and the same payload when the payload carries the device's own timestamp.
 *
 * Both compare content byte by byte: no hash can turn two readings into one.
 */
import type { Message } from './log/frame.ts';

export interface Redelivery {
  /** A connection was made; without a session the broker's packet ids start anew. */
  connected(sessionPresent: boolean): void;
  /** Whether the message is stored already. */
  isKnown(message: Message): boolean;
  /** The message was accepted, or was found on disk at start. */
  remember(message: Message): void;
}

/** Content longer than this is not remembered: it is stored twice rather than held in memory. */
const CONTENT_BYTES_MAX = 4096;

export function newRedelivery(options: { receiveMaximum: number; window: number }): Redelivery {
  const byPacket = new Map<number, string>();
  const own = new Set<string>();
  let sessionPresent = false;

  return {
    connected(present) {
      sessionPresent = present;
      if (!present) byPacket.clear();
    },
    isKnown(message) {
      const content = contentOf(message);
      if (content === null) return false;
      if (hasOwnTimestamp(message) && own.has(content)) return true;
      return (
        message.duplicate && sessionPresent && message.qos > 0 && byPacket.get(message.packetId) === content
      );
    },
    remember(message) {
      const content = contentOf(message);
      if (content === null) {
        if (message.qos > 0) byPacket.delete(message.packetId);
        return;
      }
      if (message.qos > 0) {
        byPacket.delete(message.packetId);
        byPacket.set(message.packetId, content);
        if (byPacket.size > options.receiveMaximum) byPacket.delete(byPacket.keys().next().value!);
      }
      if (hasOwnTimestamp(message)) {
        own.add(content);
        if (own.size > options.window) own.delete(own.keys().next().value!);
      }
    },
  };
}

function contentOf(message: Message): string | null {
  if (message.payload.length > CONTENT_BYTES_MAX || message.payload.length !== message.payloadBytes)
    return null;
  // No topic contains U+0000, so what is before it is the topic.
  return `${message.topic}\0${asBuffer(message.payload).toString('latin1')}`;
}

const hasOwnTimestamp = (message: Message): boolean => {
  const payload = asBuffer(message.payload);
  return payload.includes('"ts"') || payload.includes('"timestamp"');
};

const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
