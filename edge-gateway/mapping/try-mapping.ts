/** What a captured message would become, or why it would be set aside: the way of the real thing, batch included. */
import { kinds, type ReadingsBatch, RowFlag, type Value } from '../../protocol/batch.ts';
import { forEachRow } from '../../protocol/batch-rows.ts';
import { newLogId } from '../../protocol/ids.ts';
import { buildBatch } from '../batch-builder.ts';
import type { MappedMessage, Mapping } from './route.ts';

export interface TriedReading {
  readonly device: string;
  readonly kind: string;
  /** ISO 8601, or null for the time of arrival. */
  readonly time: string | null;
  readonly metrics: Readonly<Record<string, Value>>;
}

/** No readings and no reason: nothing to store. */
export interface Trial {
  readonly readings: readonly TriedReading[];
  readonly setAside: string | null;
}

export function tryMapping(mapping: Mapping, message: MappedMessage): Trial {
  const { properties, ...rest } = message;
  const frame = {
    ...rest,
    ...(properties && { properties }),
    sequence: 1,
    monotonicMs: 0,
    qos: 1 as const,
    retain: false,
    duplicate: false,
    packetId: 1,
    payloadBytes: message.payload.length,
  };
  const batch = buildBatch(newLogId(message.receivedAt), [frame], mapping);
  return { readings: readingsOf(batch), setAside: batch.setAside[0]?.reason ?? null };
}

function readingsOf(batch: ReadingsBatch): TriedReading[] {
  const readings: TriedReading[] = [];
  const { rows } = batch;
  forEachRow(batch, ({ row, names, values }) => {
    const ownTime = (rows.flags[row]! & RowFlag.ownTimestamp) !== 0;
    readings.push({
      device: batch.devices[rows.device[row]!]!,
      kind: kinds[rows.kind[row]!]!,
      time: ownTime ? new Date(rows.at[row]!).toISOString() : null,
      metrics: Object.fromEntries(names.map((name, index) => [name, values[index]!])),
    });
  });
  return readings;
}

export function trialAsText({ readings, setAside }: Trial): string {
  if (setAside !== null) return `set aside: ${setAside}\n`;
  if (readings.length === 0) return 'nothing to store\n';
  return readings.map(readingAsText).join('\n');
}

function readingAsText({ device, kind, time, metrics }: TriedReading): string {
  const width = Math.max(...Object.keys(metrics).map(name => name.length));
  const lines = [`device  ${device}`, `kind    ${kind}`, `time    ${time ?? 'arrival'}`];
  for (const [name, value] of Object.entries(metrics)) {
    lines.push(`  ${name.padEnd(width)}  ${JSON.stringify(value)}`);
  }
  return `${lines.join('\n')}\n`;
}
