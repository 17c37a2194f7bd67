/** Sparkplug payloads as Eclipse Tahu's own library writes them. */
import sparkplug from 'sparkplug-payload';
import type { UPayload } from 'sparkplug-payload/lib/sparkplugbpayload.js';

const library = sparkplug.get('spBv1.0')!;

export const AT = Date.UTC(2026, 0, 15, 12);

export type Metric = NonNullable<UPayload['metrics']>[number];

/** @param seq null for none, as in deaths of nodes */
export const encoded = (seq: number | null, metrics: readonly object[], timestamp = AT): Buffer =>
  Buffer.from(
    library.encodePayload({ timestamp, ...(seq !== null && { seq }), metrics: metrics as Metric[] }),
  );

export const decoded = (bytes: Uint8Array): UPayload => library.decodePayload(bytes);

export const bdSeq = (value: number) => ({ name: 'bdSeq', type: 'UInt64', value });
