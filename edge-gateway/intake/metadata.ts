/**
 * Retained metadata and availability: topic → its newest payload, in memory and in one file of the data folder.
 *
 * Retained values come again at every connect and are no readings. Who is online is the exception the cloud needs: a
 * retained status that differs from what was last known of its topic is news, and is stored once, at its arrival.
 *
 *   retained, as known ─▶ nothing
 *   retained, other    ─▶ open ──the same comes as a live message─────────▶ known; that message is the reading
 *                          ├──── all that the session had has come ────────▶ known, and stored
 *                          └──── another gateway takes the messages ───────▶ known
 *   live               ─▶ known
 *
 * Invariants: F (topics and bytes are bounded; at the bound a new topic is left out and counted: its presence
 * comes with the device's next live status), I (a file that cannot be read counts as empty: a status too many is stored,
 * none too few).
 */
import { z } from 'zod';

export interface Metadata {
  /** From the connection that hears all of these topics. An empty payload takes the topic away. */
  heard(topic: string, payload: Uint8Array, retained: boolean): void;
  /** Topics whose retained status is open. */
  readonly open: number;
  /** A live message has come through the session. */
  cameLive(topic: string, payload: Uint8Array): void;
  /**
   * The session has given all it had: what is open now was never a live message here.
   * @param store false when there is no room for it now; it stays open
   */
  caughtUp(store: (topic: string, payload: Uint8Array) => boolean): number;
  /** Another gateway takes the messages, and has stored what is open here. */
  othersStore(): void;
  readonly topics: ReadonlyMap<string, Uint8Array>;
  readonly stats: MetadataStats;
  /** What is to be kept for the next start; null when nothing has changed since the last call. */
  toKeep(): string | null;
}

export interface MetadataStats {
  readonly topics: number;
  readonly bytes: number;
  /** Devices that a Zigbee2MQTT bridge has told of. */
  readonly zigbeeDevices: number;
  /** Topics or payloads that were too many or too large. */
  readonly leftOut: number;
}

const TOPICS_MAX = 10_000;
const BYTES_MAX = 8 * 1024 * 1024;
const PAYLOAD_BYTES_MAX = 1024 * 1024;
const OF_ENTRY_BYTES = 64;

const Kept = z.object({ version: z.literal(1), topics: z.array(z.tuple([z.string(), z.base64()])) });

/**
 * @param isStatus whether a message would be stored, and say nothing but who is online
 * @param kept what {@link Metadata.toKeep} gave in the life before, or null
 */
export function newMetadata(
  isStatus: (topic: string, payload: Uint8Array) => boolean,
  kept: string | null,
): Metadata {
  const known = new Map<string, Uint8Array>();
  const open = new Map<string, Uint8Array>();
  let bytes = 0;
  let leftOut = 0;
  let changed = false;
  for (const [topic, payload] of readKept(kept)) know(topic, Buffer.from(payload, 'base64'));
  changed = false;

  function know(topic: string, payload: Uint8Array): void {
    const before = known.get(topic);
    if (before && sameBytes(before, payload)) return;
    forget(topic);
    if (!fits(topic, payload)) {
      leftOut++;
      return;
    }
    known.set(topic, payload);
    bytes += sizeOf(topic, payload);
    changed = true;
  }

  function fits(topic: string, payload: Uint8Array): boolean {
    return (
      payload.length <= PAYLOAD_BYTES_MAX &&
      known.size + open.size < TOPICS_MAX &&
      bytes + sizeOf(topic, payload) <= BYTES_MAX
    );
  }

  function forget(topic: string): void {
    const before = known.get(topic);
    if (!before) return;
    known.delete(topic);
    bytes -= sizeOf(topic, before);
    changed = true;
  }

  function close(topic: string): void {
    const payload = open.get(topic);
    if (!payload) return;
    open.delete(topic);
    bytes -= sizeOf(topic, payload);
  }

  function settle(topic: string, payload: Uint8Array): void {
    close(topic);
    know(topic, payload);
  }

  return {
    heard(topic, payload, retained) {
      close(topic);
      if (payload.length === 0) return forget(topic);
      const own = Uint8Array.from(payload);
      const before = known.get(topic);
      const news = retained && !(before && sameBytes(before, own)) && isStatus(topic, own);
      if (!news) return know(topic, own);
      if (!fits(topic, own)) {
        leftOut++;
        return;
      }
      open.set(topic, own);
      bytes += sizeOf(topic, own);
    },
    get open() {
      return open.size;
    },
    cameLive(topic, payload) {
      const waiting = open.get(topic);
      if (!waiting) {
        if (known.has(topic)) know(topic, Uint8Array.from(payload));
      } else if (sameBytes(waiting, payload)) settle(topic, waiting);
    },
    caughtUp(store) {
      let stored = 0;
      for (const [topic, payload] of [...open]) {
        if (!store(topic, payload)) break;
        settle(topic, payload);
        stored++;
      }
      return stored;
    },
    othersStore() {
      for (const [topic, payload] of [...open]) settle(topic, payload);
    },
    topics: known,
    get stats() {
      const zigbeeDevices = [...known].reduce(
        (sum, [topic, payload]) => sum + (topic.endsWith('/bridge/devices') ? entriesOf(payload) : 0),
        0,
      );
      return { topics: known.size, bytes, zigbeeDevices, leftOut };
    },
    toKeep() {
      if (!changed) return null;
      changed = false;
      const topics = [...known].map(([topic, payload]) => [topic, Buffer.from(payload).toString('base64')]);
      return JSON.stringify({ version: 1, topics });
    },
  };
}

function readKept(text: string | null): readonly (readonly [string, string])[] {
  if (text === null) return [];
  try {
    const parsed = Kept.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data.topics : [];
  } catch {
    return [];
  }
}

const sizeOf = (topic: string, payload: Uint8Array): number =>
  OF_ENTRY_BYTES + 2 * topic.length + payload.length;

const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/** The coordinator is in the bridge's list and is no device. */
function entriesOf(payload: Uint8Array): number {
  try {
    const list: unknown = JSON.parse(Buffer.from(payload).toString());
    return Array.isArray(list) ? list.filter(entry => entry?.type !== 'Coordinator').length : 0;
  } catch {
    return 0;
  }
}
