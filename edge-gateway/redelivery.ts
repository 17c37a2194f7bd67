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
import { hasOwnTimestamp } from './payload-time.ts';

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
/** Bytes of content in one generation; beyond it the window is shorter. */
const GENERATION_BYTES_MAX = 16 * 1024 * 1024;

/**
 * @param options.window device's own messages that are remembered at least half of, see `newRecentSet`
 * @param options.hasOwnTime whether a message carries the device's own time, where a mapping file says more than the
 * common form
 */
export function newRedelivery(options: {
  receiveMaximum: number;
  window: number;
  hasOwnTime?: (message: Message) => boolean;
}): Redelivery {
  const hasOwnTime = options.hasOwnTime ?? (({ payload }) => hasOwnTimestamp(payload));
  const packets = newPacketMemory(options.receiveMaximum);
  const own = newRecentSet(options.window);
  let sessionPresent = false;
  /** Worked out once per message: asked about first, then remembered. */
  let last: { message: Message; content: string | null; isOwn: boolean } | undefined;

  function look(message: Message) {
    if (last?.message !== message) {
      const content = contentOf(message);
      last = { message, content, isOwn: content !== null && hasOwnTime(message) };
    }
    return last;
  }

  return {
    connected(present) {
      sessionPresent = present;
      if (!present) packets.clear();
    },
    isKnown(message) {
      const { content, isOwn } = look(message);
      if (content === null) return false;
      if (isOwn) return own.has(content);
      const again = message.duplicate && sessionPresent && message.qos > 0;
      return again && packets.contentOf(message.packetId) === content;
    },
    remember(message) {
      const { content, isOwn } = look(message);
      // Content that the second rule knows, or that is not kept, still ends what stood for its packet id.
      if (message.qos > 0) packets.set(message.packetId, isOwn ? null : content);
      if (isOwn) own.add(content!);
    },
  };
}

/** The content that last came under each packet id, among the last `size` messages. */
function newPacketMemory(size: number) {
  const contents = new Map<number, { content: string; at: number }>();
  const ids = new Uint16Array(size);
  let count = 0;
  return {
    clear: () => contents.clear(),
    contentOf: (id: number) => contents.get(id)?.content,
    set(id: number, content: string | null) {
      const slot = count % size;
      const leaving = ids[slot]!;
      if (contents.get(leaving)?.at === count - size) contents.delete(leaving);
      ids[slot] = id;
      if (content === null) contents.delete(id);
      else contents.set(id, { content, at: count });
      count++;
    },
  };
}

/**
 * The last additions, between half of `size` and all of it. Two generations: dropping the older one whole is cheap,
 * taking the oldest entries out of one Set one by one is not.
 */
function newRecentSet(size: number) {
  const generationSize = Math.ceil(size / 2);
  let newer = new Set<string>();
  let older = new Set<string>();
  let bytes = 0;
  return {
    has: (content: string) => newer.has(content) || older.has(content),
    add(content: string) {
      if (newer.size >= generationSize || bytes >= GENERATION_BYTES_MAX) {
        older = newer;
        newer = new Set();
        bytes = 0;
      }
      newer.add(content);
      bytes += content.length;
    },
  };
}

function contentOf(message: Message): string | null {
  if (message.payload.length > CONTENT_BYTES_MAX || message.payload.length !== message.payloadBytes)
    return null;
  // No topic contains U+0000, so what is before it is the topic.
  return `${message.topic}\0${asBuffer(message.payload).toString('latin1')}`;
}

const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
