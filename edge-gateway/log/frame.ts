/**
 * The byte layout of one frame: a message in the log. Pure.
 *
 *    0  u32  crc32 of all that follows, seeded with the log's salt
 *    4  u32  length of the whole frame
 *    8  u48  sequence
 *   14  u16  MQTT packet id, 0 for QoS 0
 *   16  f64  receivedAt, wall clock milliseconds
 *   24  f64  monotonic milliseconds
 *   32  u32  length of the payload as published
 *   36  u16  length of the topic
 *   38  u8   qos (bits 0 and 1), retain (bit 2), duplicate (bit 3), has properties (bit 4)
 *   39  u8   zero
 *   40       topic (UTF-8), then the properties if there are any (`frame-properties.ts`), then the payload (all the rest)
 *
 * All little-endian. The salt comes from the random log id, so a frame of another log, or one that a device has
 * forged inside a payload, never passes for a frame of this one (invariants B, I). It is of the log and not of the
 * segment so that frames whose segment failed can go to the next one as they are.
 */
import { crc32 } from 'node:zlib';
import type { LogId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import {
  decodeProperties,
  encodeProperties,
  type MessageProperties,
  PROPERTIES_BYTES_MAX,
  propertiesBytesAt,
  propertiesBytesAtMost,
} from './frame-properties.ts';

/** One accepted MQTT message. */
export interface Message {
  /** Wall clock at arrival, milliseconds since 1970; may be fractional. */
  readonly receivedAt: number;
  /** Monotonic clock at arrival, milliseconds since boot. */
  readonly monotonicMs: number;
  readonly qos: 0 | 1 | 2;
  readonly retain: boolean;
  readonly duplicate: boolean;
  /** MQTT packet id; 0 for QoS 0. */
  readonly packetId: number;
  readonly topic: string;
  readonly payload: Uint8Array;
  /** Length as published; more than `payload.length` when the payload was cut to its first bytes. */
  readonly payloadBytes: number;
  /** What MQTT 5 says beside the payload; absent when it says nothing. */
  readonly properties?: MessageProperties;
}

/** A message with its place in its log. */
export interface Frame extends Message {
  readonly sequence: number;
}

export const FRAME_HEADER_BYTES = 40;
const TOPIC_BYTES_MAX = 65_535;
export const FRAME_BYTES_MAX =
  FRAME_HEADER_BYTES + TOPIC_BYTES_MAX + PROPERTIES_BYTES_MAX + limits.payloadBytesMax;
const SEQUENCE_HIGH = 2 ** 32;
const RETAIN = 4;
const DUPLICATE = 8;
const HAS_PROPERTIES = 16;

/** The seed of all CRCs of one log. */
export const saltOf = (logId: LogId): number => crc32(logId);

/** Bytes that {@link encodeFrame} may need for `message`; the frame itself may turn out shorter. */
export const frameBytesAtMost = (message: Message): number =>
  FRAME_HEADER_BYTES +
  3 * message.topic.length +
  (message.properties ? propertiesBytesAtMost(message.properties) : 0) +
  message.payload.length;

/**
 * Writes `message` at `offset` of `buffer`, which has room for {@link frameBytesAtMost}.
 * @returns the length of the frame
 * @throws RangeError when topic or payload are longer than a frame may hold; the caller cuts payloads before.
 */
export function encodeFrame(
  buffer: Buffer,
  view: DataView,
  offset: number,
  message: Message,
  sequence: number,
  salt: number,
): number {
  const topicBytes = buffer.write(message.topic, offset + FRAME_HEADER_BYTES, 'utf8');
  const payload = message.payload;
  if (topicBytes > TOPIC_BYTES_MAX) throw new RangeError(`a topic of ${topicBytes} bytes`);
  if (payload.length > limits.payloadBytesMax) throw new RangeError(`a payload of ${payload.length} bytes`);
  const propertiesOffset = offset + FRAME_HEADER_BYTES + topicBytes;
  const propertiesBytes = message.properties
    ? encodeProperties(buffer, propertiesOffset, message.properties)
    : 0;
  const length = FRAME_HEADER_BYTES + topicBytes + propertiesBytes + payload.length;
  view.setUint32(offset + 4, length, true);
  view.setUint32(offset + 8, sequence % SEQUENCE_HIGH, true);
  view.setUint16(offset + 12, Math.floor(sequence / SEQUENCE_HIGH), true);
  view.setUint16(offset + 14, message.packetId, true);
  view.setFloat64(offset + 16, message.receivedAt, true);
  view.setFloat64(offset + 24, message.monotonicMs, true);
  view.setUint32(offset + 32, message.payloadBytes, true);
  view.setUint16(offset + 36, topicBytes, true);
  const flags =
    message.qos |
    (message.retain ? RETAIN : 0) |
    (message.duplicate ? DUPLICATE : 0) |
    (propertiesBytes > 0 ? HAS_PROPERTIES : 0);
  view.setUint16(offset + 38, flags, true);
  buffer.set(payload, propertiesOffset + propertiesBytes);
  view.setUint32(offset, crc32(buffer.subarray(offset + 4, offset + length), salt), true);
  return length;
}

export const frameLengthAt = (view: DataView, offset: number): number => view.getUint32(offset + 4, true);

export const frameSequenceAt = (view: DataView, offset: number): number =>
  view.getUint32(offset + 8, true) + view.getUint16(offset + 12, true) * SEQUENCE_HIGH;

/**
 * Looks for a frame at `offset`.
 * @param end where the known bytes end
 * @param sequenceFrom the sequence that may stand here at the earliest
 * @param sequenceTo one past the last one that may
 * @returns 'right' when a whole, right one stands there; 'short' when it may be one that goes on behind `end`;
 *   'bad' when it is none.
 */
export function checkFrame(
  buffer: Buffer,
  view: DataView,
  offset: number,
  end: number,
  sequenceFrom: number,
  sequenceTo: number,
  salt: number,
): 'right' | 'short' | 'bad' {
  if (offset + FRAME_HEADER_BYTES > end) return 'short';
  const length = frameLengthAt(view, offset);
  if (length < FRAME_HEADER_BYTES || length > FRAME_BYTES_MAX) return 'bad';
  const sequence = frameSequenceAt(view, offset);
  if (sequence < sequenceFrom || sequence >= sequenceTo) return 'bad';
  if (view.getUint16(offset + 36, true) > length - FRAME_HEADER_BYTES) return 'bad';
  if (offset + length > end) return 'short';
  const sum = crc32(buffer.subarray(offset + 4, offset + length), salt);
  return sum === view.getUint32(offset, true) ? 'right' : 'bad';
}

/** The frame at `offset`, which {@link checkFrame} has found right. Its payload is a view of `buffer`. */
export function decodeFrame(buffer: Buffer, view: DataView, offset: number): Frame {
  const topicEnd = offset + FRAME_HEADER_BYTES + view.getUint16(offset + 36, true);
  const flags = view.getUint8(offset + 38);
  const hasProperties = (flags & HAS_PROPERTIES) !== 0;
  const payloadStart = hasProperties ? topicEnd + propertiesBytesAt(buffer, topicEnd) : topicEnd;
  const frame: Frame = {
    sequence: frameSequenceAt(view, offset),
    receivedAt: view.getFloat64(offset + 16, true),
    monotonicMs: view.getFloat64(offset + 24, true),
    qos: (flags & 3) as 0 | 1 | 2,
    retain: (flags & RETAIN) !== 0,
    duplicate: (flags & DUPLICATE) !== 0,
    packetId: view.getUint16(offset + 14, true),
    topic: buffer.toString('utf8', offset + FRAME_HEADER_BYTES, topicEnd),
    payload: buffer.subarray(payloadStart, offset + frameLengthAt(view, offset)),
    payloadBytes: view.getUint32(offset + 32, true),
  };
  return hasProperties ? { ...frame, properties: decodeProperties(buffer, topicEnd) } : frame;
}
