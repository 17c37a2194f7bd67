/**
 * What is kept of a quarantined message, made into readings once more, pure. Three forms come by:
 *
 *   with a topic       the payload as published: decoded with a mapping, as its gateway would
 *   a kept message     rows that PostgreSQL or the registry's policy refused (`registry/kept-message.ts`)
 *   a batch            bytes that nobody could decode then; a newer cloud node may
 */
import { buildBatch } from '../../edge-gateway/batch-builder.ts';
import type { Mapping } from '../../edge-gateway/mapping/route.ts';
import type { ReadingsBatch } from '../../protocol/batch.ts';
import { decodeBatch } from '../../protocol/batch-codec.ts';
import type { LogId } from '../../protocol/ids.ts';
import { decodeKeptMessage } from '../registry/kept-message.ts';

export interface QuarantinedMessage {
  readonly id: number;
  readonly site: string;
  readonly gateway: string;
  /** Number of the log in history, and its id; null when the entry has none. */
  readonly log: number | null;
  readonly logId: LogId | null;
  readonly sequence: number | null;
  /** Milliseconds since 1970. */
  readonly receivedAt: number;
  readonly reason: string;
  readonly topic: string;
  /** As published; more than `payload.length` when only its beginning was kept. */
  readonly payloadBytes: number;
  readonly payload: Uint8Array;
  readonly replayedAt: number | null;
}

export type EntryReading =
  | {
      readonly ok: true;
      readonly batch: ReadingsBatch;
      /** The registry was applied, and the twins know them, from before they were refused. */
      readonly isApplied: boolean;
    }
  | { readonly ok: false; readonly reason: string };

const unusable = (reason: string): EntryReading => ({ ok: false, reason });

/** What the gateway puts behind a topic that it has cut. */
const CUT = '…';

export function readEntry(entry: QuarantinedMessage, mapping: Mapping): EntryReading {
  const { logId, sequence, topic, payload, payloadBytes } = entry;
  if (logId === null || sequence === null) return unusable('it does not say which message it was');
  if (topic === '') return readBytes(payload, logId);
  if (payload.length < payloadBytes) {
    return unusable(`of its ${payloadBytes} bytes only the first ${payload.length} were kept`);
  }
  if (topic.endsWith(CUT)) return unusable('only the beginning of its topic was kept');
  const frame = {
    sequence,
    topic,
    payload,
    payloadBytes,
    receivedAt: entry.receivedAt,
    monotonicMs: 0,
    qos: 1 as const,
    retain: false,
    duplicate: false,
    packetId: 0,
  };
  const batch = buildBatch(logId, [frame], mapping);
  const refusal = batch.setAside[0];
  return refusal ? unusable(refusal.reason) : { ok: true, batch, isApplied: false };
}

function readBytes(bytes: Uint8Array, logId: LogId): EntryReading {
  if (bytes.length === 0) return unusable('nothing of it was kept');
  const kept = decodeKeptMessage(bytes);
  if (kept !== null) {
    return kept.batch.logId === logId ? { ok: true, ...kept } : unusable('it is of another log');
  }
  const decoded = decodeBatch(bytes);
  if (decoded.outcome !== 'batch')
    return unusable('its bytes cannot be decoded, or not all of them were kept');
  const { batch } = decoded;
  if (batch.settlement !== 'raw' || batch.logId !== logId)
    return unusable('its bytes are no readings of its log');
  return { ok: true, batch, isApplied: false };
}
