/**
 * Rows of one message as bytes for the quarantine, so that they can go into history later as they are. A form of the
 * cloud's own: only an entry without a topic is taken for one, and no device publishes to an empty topic (S).
 *
 *   at  bytes
 *    0   4   "HFK1"
 *    4   1   1 when the registry was applied to them already
 *    5       msgpack of log id, sequence and columns: the wire's form takes more than twice the time for one message, and a
 *            flood of unknown devices must not hold up the others
 */
import { Packr } from 'msgpackr';
import { z } from 'zod';
import type { MetricColumn, ReadingsBatch } from '../../protocol/batch.ts';
import { batchFault } from '../../protocol/batch-rules.ts';
import type { LogId } from '../../protocol/ids.ts';
import { type SelectedRows, selectRows } from './select-rows.ts';

/** Longer ones are not kept (F). A message is 256 KiB at most, and its columns are hardly ever longer. */
export const KEPT_MESSAGE_BYTES_MAX = 512 * 1024;

const MAGIC = Buffer.from('HFK1');
const packr = new Packr({ useRecords: false });

const numbers = z.array(z.number());
const Kept = z.tuple([
  z.string(),
  z.number(),
  z.array(z.string()),
  z.array(
    z.union([
      z.tuple([z.string(), z.literal('string'), z.array(z.string())]),
      z.tuple([z.string(), z.enum(['number', 'boolean']), numbers]),
    ]),
  ),
  z.array(numbers),
  // element, kind, flags, device, shape, at, receivedAt
  z.tuple([numbers, numbers, numbers, numbers, numbers, numbers, numbers]),
]);

export interface KeptMessage {
  /** `count` is 1. */
  readonly batch: ReadingsBatch;
  readonly isApplied: boolean;
}

/**
 * @param part the message's rows, as `partRows` parts them from `batch`
 * @param sequenceOffset of the message in `batch`
 * @returns null when it would be too long
 */
export function encodeKeptMessage(
  { logId, firstSequence }: Pick<ReadingsBatch, 'logId' | 'firstSequence'>,
  sequenceOffset: number,
  part: SelectedRows,
  isApplied: boolean,
): Buffer | null {
  const { devices, metrics, shapes, rows } = part;
  const kept: z.input<typeof Kept> = [
    logId,
    firstSequence + sequenceOffset,
    [...devices],
    metrics.map(column =>
      column.type === 'string'
        ? [column.name, column.type, [...column.values]]
        : [column.name, column.type, [...column.values]],
    ),
    shapes.map(shape => [...shape]),
    [
      [...rows.element],
      [...rows.kind],
      [...rows.flags],
      [...rows.device],
      [...rows.shape],
      [...rows.at],
      [...rows.receivedAt],
    ],
  ];
  const bytes = packr.pack(kept);
  if (bytes.length > KEPT_MESSAGE_BYTES_MAX) return null;
  return Buffer.concat([MAGIC, Buffer.of(isApplied ? 1 : 0), bytes]);
}

/**
 * One message of a batch that PostgreSQL refused, as history had it before it.
 * @returns empty when the message has no rows, or is too long to be kept
 */
export function keptMessageOf(batch: ReadingsBatch, sequence: number): Uint8Array {
  const offset = sequence - batch.firstSequence;
  const part = selectRows(batch, row => batch.rows.sequenceOffset[row] === offset);
  return (part.rows.length > 0 ? encodeKeptMessage(batch, offset, part, true) : null) ?? new Uint8Array();
}

/** @returns null when the bytes are no kept message */
export function decodeKeptMessage(bytes: Uint8Array): KeptMessage | null {
  if (!MAGIC.equals(bytes.subarray(0, MAGIC.length))) return null;
  let parsed: ReturnType<typeof Kept.safeParse>;
  try {
    parsed = Kept.safeParse(packr.unpack(bytes.subarray(MAGIC.length + 1)));
  } catch {
    return null;
  }
  if (!parsed.success) return null;
  const [logId, firstSequence, devices, metrics, shapes, columns] = parsed.data;
  const [element, kind, flags, device, shape, at, receivedAt] = columns;
  const batch: ReadingsBatch = {
    settlement: 'raw',
    logId: logId as LogId,
    firstSequence,
    count: 1,
    devices,
    metrics: metrics.map(columnOf),
    shapes,
    rows: {
      length: at.length,
      sequenceOffset: new Uint32Array(at.length),
      element: Uint16Array.from(element),
      kind: Uint8Array.from(kind),
      flags: Uint8Array.from(flags),
      device: Uint32Array.from(device),
      shape: Uint32Array.from(shape),
      at: Float64Array.from(at),
      receivedAt: Float64Array.from(receivedAt),
    },
    setAside: [],
  };
  return batchFault(batch) === null ? { batch, isApplied: bytes[MAGIC.length] === 1 } : null;
}

function columnOf([name, type, values]: z.output<typeof Kept>[3][number]): MetricColumn {
  if (type === 'string') return { name, type, values: values as string[] };
  return type === 'number'
    ? { name, type, values: Float64Array.from(values as number[]) }
    : { name, type, values: Uint8Array.from(values as number[]) };
}
