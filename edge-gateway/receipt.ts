/**
 * End-to-end receipts, pure: a device that publishes with an MQTT 5 response topic is answered, with its correlation
 * data, once its message is on the gateway's disk. The gateway answers a device only below `devices/{the same id}/`, or
 * where the mapping of its topic says that it listens, whatever it asks for (invariant S): a response topic must not
 * become a way to write to somebody else.
 */
import type { IPublishPacket } from 'mqtt';
import type { TopicOwner } from './mapping/compile.ts';
import { routeTopic } from './topics.ts';

export interface Receipt {
  readonly topic: string;
  readonly correlationData: Buffer | undefined;
}

export type ReceiptOutcome =
  /** None was asked for. */
  | { readonly outcome: 'none' }
  | { readonly outcome: 'due'; readonly receipt: Receipt }
  | { readonly outcome: 'refused'; readonly reason: string };

const TOPIC_BYTES_MAX = 256;

/** @param owner who publishes to the topic; by default, after the common shapes alone */
export function receiptFor(
  packet: Pick<IPublishPacket, 'topic' | 'properties'>,
  owner: TopicOwner | null = commonOwner(packet.topic),
): ReceiptOutcome {
  const asked = packet.properties?.responseTopic;
  if (asked === undefined || asked === '') return { outcome: 'none' };
  if (owner === null) return { outcome: 'refused', reason: 'the message is from no device' };
  const isOwn =
    Buffer.byteLength(asked) <= TOPIC_BYTES_MAX &&
    owner.prefixes.some(prefix => asked.startsWith(prefix) && asked.length > prefix.length);
  if (!isOwn || /[+#\0]/.test(asked)) {
    return { outcome: 'refused', reason: `the response topic must lie below ${owner.prefixes.join(' or ')}` };
  }
  return { outcome: 'due', receipt: { topic: asked, correlationData: packet.properties?.correlationData } };
}

function commonOwner(topic: string): TopicOwner | null {
  const routed = routeTopic(topic);
  if (!routed.ok) return null;
  const { device } = routed.route;
  return { device, prefixes: [`devices/${device}/`] };
}

/** @param atMs wall clock of the gateway, milliseconds since 1970 */
export const receiptPayload = (atMs: number): string => JSON.stringify({ outcome: 'stored', at: atMs });
