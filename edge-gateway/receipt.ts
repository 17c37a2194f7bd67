/**
 * End-to-end receipts, pure: a device that publishes with an MQTT 5 response topic is answered, with its correlation
 * data, once its message is on the gateway's disk. The gateway answers a device only below `devices/{the same id}/`,
 * whatever it asks for (invariant S): a response topic must not become a way to write to somebody else.
 */
import type { IPublishPacket } from 'mqtt';
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

export function receiptFor(packet: Pick<IPublishPacket, 'topic' | 'properties'>): ReceiptOutcome {
  const asked = packet.properties?.responseTopic;
  if (asked === undefined || asked === '') return { outcome: 'none' };
  const routed = routeTopic(packet.topic);
  if (!routed.ok) return { outcome: 'refused', reason: 'the message is from no device' };
  const own = `devices/${routed.route.device}/`;
  const isOwn =
    asked.startsWith(own) && asked.length > own.length && Buffer.byteLength(asked) <= TOPIC_BYTES_MAX;
  if (!isOwn || /[+#\0]/.test(asked)) {
    return { outcome: 'refused', reason: `the response topic must lie below ${own}` };
  }
  return { outcome: 'due', receipt: { topic: asked, correlationData: packet.properties?.correlationData } };
}

/** @param atMs wall clock of the gateway, milliseconds since 1970 */
export const receiptPayload = (atMs: number): string => JSON.stringify({ outcome: 'stored', at: atMs });
