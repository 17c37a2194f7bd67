/** Frames of a log, the way the intake stores them, for tests that need no disk. */
import type { Frame } from '../../edge-gateway/log/frame.ts';
import { logId } from '../../protocol/ids.ts';

export const LOG_ID = logId('0193f5a0c1e25b6d7e8f90a1b2c3d4e5');
export const RECEIVED_AT = Date.UTC(2026, 0, 15, 12);

export function frame(
  sequence: number,
  topic: string,
  payload: string | Uint8Array,
  more: Partial<Frame> = {},
): Frame {
  const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload;
  return {
    sequence,
    receivedAt: RECEIVED_AT + sequence,
    monotonicMs: sequence,
    qos: 1,
    retain: false,
    duplicate: false,
    packetId: (sequence % 65_535) + 1,
    topic,
    payload: bytes,
    payloadBytes: bytes.length,
    ...more,
  };
}
