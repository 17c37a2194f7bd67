/**
 * Frames of the log into a columnar batch, pure. Every sequence of the run is accounted for: as rows, as set aside
 * with its reason, or as nothing to store.
 */
import {
  type Kind,
  kinds,
  type MetricColumn,
  type ReadingsBatch,
  RowFlag,
  type SetAside,
  type Value,
} from '../protocol/batch.ts';
import type { LogId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { Frame } from './log/frame.ts';
import { commonMapping } from './mapping/compile.ts';
import type { Mapping } from './mapping/route.ts';

type ColumnType = MetricColumn['type'];

interface GrowingColumn {
  readonly name: string;
  readonly type: ColumnType;
  readonly values: Value[];
}

/** Well below the codec's limits in bytes, at most four bytes each. */
const REASON_CHARACTERS_MAX = 250;
const TOPIC_CHARACTERS_MAX = 250;

const kindIndex = new Map<Kind, number>(kinds.map((kind, index) => [kind, index]));

/**
 * A batch in which no frame became rows, for frames that turn out not to be usable after all.
 * @param frames consecutive frames of one log, at least one
 */
export function quarantineBatch(logId: LogId, frames: readonly Frame[], reason: string): ReadingsBatch {
  const empty = buildBatch(logId, []);
  const first = frames[0]!.sequence;
  return {
    ...empty,
    firstSequence: first,
    count: frames.length,
    setAside: frames.map(frame => asideOf(frame, frame.sequence - first, reason)),
  };
}

/**
 * @param frames consecutive frames of one log, at least one
 * @param mapping what becomes of a message
 * @returns a batch that covers the longest run of them that fits a batch's row limit; `count` says how many
 */
export function buildBatch(
  logId: LogId,
  frames: readonly Frame[],
  mapping: Mapping = commonMapping,
): ReadingsBatch {
  const devices = new Map<string, number>();
  const columns = new Map<string, number>();
  const metrics: GrowingColumn[] = [];
  const shapes: number[][] = [];
  const shapeIndexes = new Map<string, number>();
  const setAside: SetAside[] = [];
  const rows = {
    sequenceOffset: [] as number[],
    element: [] as number[],
    kind: [] as number[],
    flags: [] as number[],
    device: [] as number[],
    shape: [] as number[],
    at: [] as number[],
    receivedAt: [] as number[],
  };
  const firstSequence = frames[0]?.sequence ?? 0;
  let count = 0;

  for (const frame of frames) {
    if (
      count >= limits.batchMessagesMax ||
      rows.at.length + limits.elementsPerMessageMax > limits.batchRowsMax
    )
      break;
    const sequenceOffset = frame.sequence - firstSequence;
    count = sequenceOffset + 1;
    const reason = addFrame(frame, sequenceOffset);
    if (reason !== null) setAside.push(asideOf(frame, sequenceOffset, reason));
  }

  /** @returns why the frame cannot be used, or null. */
  function addFrame(frame: Frame, sequenceOffset: number): string | null {
    if (frame.payloadBytes > limits.payloadBytesMax) {
      return `payload of ${frame.payloadBytes} bytes, at most ${limits.payloadBytesMax}`;
    }
    if (Buffer.byteLength(frame.topic) > limits.topicBytesMax)
      return `topic longer than ${limits.topicBytesMax} bytes`;
    // An empty retained message is MQTT's way to delete one, not a reading.
    if (frame.payload.length === 0 && frame.retain) return null;
    const mapped = mapping(frame);
    if (!mapped.ok) return mapped.reason;

    let element = 0;
    for (const reading of mapped.readings) {
      const device = indexOf(devices, reading.device);
      const kind = kindIndex.get(reading.kind)!;
      for (const { at, names, values } of reading.elements) {
        const index = element++;
        if (names.length === 0) continue;
        rows.sequenceOffset.push(sequenceOffset);
        rows.element.push(index);
        rows.kind.push(kind);
        rows.flags.push(at === null ? 0 : RowFlag.ownTimestamp);
        rows.device.push(device);
        rows.shape.push(addValues(names, values));
        rows.at.push(at ?? frame.receivedAt);
        rows.receivedAt.push(frame.receivedAt);
      }
    }
    return null;
  }

  function addValues(names: readonly string[], values: readonly Value[]): number {
    let signature = '';
    for (let i = 0; i < names.length; i++) signature += `${typeof values[i]}:${names[i]}\n`;
    let shape = shapeIndexes.get(signature);
    if (shape === undefined) {
      const members = names.map((name, i) => columnOf(name, typeof values[i] as ColumnType));
      shape = shapes.push(members) - 1;
      shapeIndexes.set(signature, shape);
    }
    const members = shapes[shape]!;
    for (let i = 0; i < members.length; i++) metrics[members[i]!]!.values.push(values[i]!);
    return shape;
  }

  function columnOf(name: string, type: ColumnType): number {
    const key = `${type}:${name}`;
    const known = columns.get(key);
    if (known !== undefined) return known;
    const index = metrics.push({ name, type, values: [] }) - 1;
    columns.set(key, index);
    return index;
  }

  return {
    settlement: 'raw',
    logId,
    firstSequence,
    count,
    devices: [...devices.keys()],
    metrics: metrics.map(freeze),
    shapes,
    rows: {
      length: rows.at.length,
      sequenceOffset: Uint32Array.from(rows.sequenceOffset),
      element: Uint16Array.from(rows.element),
      kind: Uint8Array.from(rows.kind),
      flags: Uint8Array.from(rows.flags),
      device: Uint32Array.from(rows.device),
      shape: Uint32Array.from(rows.shape),
      at: Float64Array.from(rows.at),
      receivedAt: Float64Array.from(rows.receivedAt),
    },
    setAside,
  };
}

function freeze({ name, type, values }: GrowingColumn): MetricColumn {
  if (type === 'number') return { name, type, values: Float64Array.from(values as number[]) };
  if (type === 'string') return { name, type, values: values as string[] };
  return { name, type, values: Uint8Array.from(values as boolean[], Number) };
}

function indexOf(dictionary: Map<string, number>, key: string): number {
  const known = dictionary.get(key);
  if (known !== undefined) return known;
  dictionary.set(key, dictionary.size);
  return dictionary.size - 1;
}

const asideOf = (frame: Frame, sequenceOffset: number, reason: string): SetAside => ({
  sequenceOffset,
  reason: shorten(reason, REASON_CHARACTERS_MAX),
  topic: shorten(frame.topic, TOPIC_CHARACTERS_MAX),
  receivedAt: frame.receivedAt,
  payloadBytes: frame.payloadBytes,
  payload: frame.payload.subarray(0, limits.quarantinedPayloadBytesMax),
});

function shorten(text: string, charactersMax: number): string {
  return text.length <= charactersMax ? text : `${text.slice(0, charactersMax).toWellFormed()}…`;
}
