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

/** Intervals that readings are thinned to, milliseconds: each lies within one bucket of every aggregate at or above it. */
export const thinningIntervalsMs = [60_000, 600_000, 3_600_000, 86_400_000] as const;

/**
 * Numbers of readings that are no more: one entry per device, metric and interval. Booleans count as 0 and 1. Two entries
 * of the same device, metric and interval, from different batches, are about different readings and may be merged.
 */
export interface Summaries {
  readonly length: number;
  readonly devices: readonly string[];
  readonly metrics: readonly string[];
  /** Index into `devices`. */
  readonly device: Uint32Array;
  /** Index into `metrics`. */
  readonly metric: Uint32Array;
  /** Start of the interval, milliseconds since 1970, a whole multiple of its length; by corrected times. */
  readonly from: Float64Array;
  readonly minimum: Float64Array;
  readonly maximum: Float64Array;
  /** To nine significant digits. */
  readonly mean: Float64Array;
  /** Readings it stands for, at least 1. */
  readonly count: Uint32Array;
}

/**
 * A run of sequences that the gateway had no room for as it was: rows that must not be thinned as they were (events,
 * status, texts that changed, the newest row of each device, what was set aside), and summaries of all others. It is
 * settled as a whole, and only where history has none of its run: else readings would count twice (invariant B).
 */
export interface ThinnedBatch {
  readonly settlement: 'thinned';
  readonly logId: LogId;
  readonly firstSequence: number;
  /** May be far more than of a readings batch. */
  readonly count: number;
  /** One of {@link thinningIntervalsMs}. */
  readonly intervalMs: number;
  /** When the run arrived at the gateway, by its clock, milliseconds since 1970. */
  readonly receivedFrom: number;
  readonly receivedTo: number;
  readonly summaries: Summaries;
  /** Same log, first sequence and count. */
  readonly kept: ReadingsBatch;
}

export type Batch = ReadingsBatch | LostBatch | ThinnedBatch;
