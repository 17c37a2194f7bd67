/**
 * A batch: a run of sequences of one log, as columns. This is the shape in memory on both ends; `batch-codec.ts`
 * makes bytes of it. Rows stand in the order of (sequence, element); a sequence may have no row (nothing to store),
 * one row, or several (an array payload).
 */
import type { LogId } from './ids.ts';

/** What a device may report for one metric. Numbers are finite. */
export type Value = number | string | boolean;

/** What a message was about, from its topic; decides what may be thinned later. Order is part of the wire. */
export const kinds = ['telemetry', 'event', 'status', 'location'] as const;
export type Kind = (typeof kinds)[number];

/** Bits of `rows.flags`. */
export const RowFlag = {
  /** The device gave the timestamp itself; otherwise `at` is the time of arrival. */
  ownTimestamp: 1,
} as const;

/** One metric's values, for the rows whose shape names this column, in row order. A metric that comes in two types has two columns. */
export type MetricColumn =
  | { readonly name: string; readonly type: 'number'; readonly values: Float64Array }
  | { readonly name: string; readonly type: 'string'; readonly values: readonly string[] }
  | { readonly name: string; readonly type: 'boolean'; readonly values: Uint8Array };

export interface Rows {
  readonly length: number;
  /** Sequence of the row's message, counted from the batch's first sequence; never falls. */
  readonly sequenceOffset: Uint32Array;
  /** Index of the element within its message; from 0. */
  readonly element: Uint16Array;
  /** Index into `kinds`. */
  readonly kind: Uint8Array;
  readonly flags: Uint8Array;
  /** Index into `devices`. */
  readonly device: Uint32Array;
  /** Index into `shapes`. */
  readonly shape: Uint32Array;
  /** Milliseconds since 1970, may be fractional: the device's own time if it gave one, else arrival. */
  readonly at: Float64Array;
  /** Milliseconds since 1970 by the gateway's clock when the message arrived. */
  readonly receivedAt: Float64Array;
}

/** A message that could not become rows: settled as quarantined, with its reason (invariant H). */
export interface SetAside {
  readonly sequenceOffset: number;
  readonly reason: string;
  readonly topic: string;
  readonly receivedAt: number;
  /** Length of the payload as published. */
  readonly payloadBytes: number;
  /** Its first bytes, at most `limits.quarantinedPayloadBytesMax`. */
  readonly payload: Uint8Array;
}

export interface ReadingsBatch {
  readonly settlement: 'raw';
  readonly logId: LogId;
  readonly firstSequence: number;
  /** Sequences covered: firstSequence ≤ s < firstSequence + count. */
  readonly count: number;
  readonly devices: readonly string[];
  readonly metrics: readonly MetricColumn[];
  /** The distinct sets of metrics that occur in one row, as indexes into `metrics`. */
  readonly shapes: readonly (readonly number[])[];
  readonly rows: Rows;
  readonly setAside: readonly SetAside[];
}

/** Sequences that the gateway can no longer read (corruption), declared in the open (invariant I). */
export interface LostBatch {
  readonly settlement: 'lost';
  readonly logId: LogId;
  readonly firstSequence: number;
  readonly count: number;
  readonly reason: string;
}

export type Batch = ReadingsBatch | LostBatch;
