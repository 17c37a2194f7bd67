/** What a benchmark measures: something that takes a fleet's MQTT messages, stores them and pushes them on. */
import type { PushProgress } from './push-progress.ts';

export interface TimeRange {
  readonly fromMs: number;
  readonly toMs: number;
}

/** What history holds of a time range. */
export interface StoredCount {
  /** Distinct (device, timestamp). */
  readonly messages: number;
  readonly readings: number;
  readonly duplicates: number;
}

export interface Subject {
  readonly name: string;
  /** Where devices connect, by site. */
  readonly brokers: readonly string[];
  readonly push: PushProgress;
  /** Process ids by group; their children count with them. */
  readonly processes: Readonly<Record<string, readonly number[]>>;
  /** Resolves when this many messages of the round are stored for good. Cheap to ask for while the clock runs. */
  stored(messages: number): Promise<void>;
  /** Exact, and not cheap. */
  count(range: TimeRange): Promise<StoredCount>;
  /** What its processes said last, for the message of a failure. */
  output(): string;
  close(): Promise<void>;
}

export const METRICS_PER_MESSAGE = 4;
export const benchSites = ['north', 'south'] as const;

export function pidOf(part: { readonly name: string; pid(): number | undefined }): number {
  const pid = part.pid();
  if (pid === undefined) throw new Error(`${part.name} does not run here, so its CPU cannot be measured`);
  return pid;
}
