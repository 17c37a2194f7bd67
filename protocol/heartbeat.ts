/**
 * A gateway's heartbeat: how far its word is complete. It travels in the live lane, in order with the batches, and has no
 * sequences: it is settled by being read. By it the cloud knows silence of a device from silence of a link.
 */
import type { LogId } from './ids.ts';
import { limits } from './limits.ts';

/** Times are milliseconds since 1970 by the gateway's clock. */
export interface Heartbeat {
  readonly settlement: 'heartbeat';
  /** The log that the gateway writes now. */
  readonly logId: LogId;
  readonly at: number;
  /**
   * Every message that arrived at the gateway before is in the stream's live lane before this heartbeat, or in history. After
   * an outage it stays where the outage began until the backlog is settled.
   */
  readonly completeUntil: number;
  /** Since when it hears its devices without a break; null while it does not: broker away, or standby. */
  readonly hearingSince: number | null;
  /** Whether it hears all devices of the site for as long as it does: the active one of a pair. */
  readonly coversSite: boolean;
  /** Identity of the stream that its word is about: in another one it is complete in nothing. Absent from older gateways. */
  readonly streamCreated?: string;
}

/** How often: on a link without a budget, and on a metered one. */
export const HEARTBEAT_MS = { unmetered: 5000, metered: 60_000 } as const;

/** Times of a heartbeat lie below this (the year 2248). */
export const HEARTBEAT_TIME_MAX = 2 ** 43;

/** Of what names a stream; times of creation take some 30. */
export const STREAM_CREATED_CHARACTERS_MAX = 64;

/** @returns what is wrong with it, or null */
export function heartbeatFault({ at, completeUntil, hearingSince, streamCreated }: Heartbeat): string | null {
  if ((streamCreated?.length ?? 0) > STREAM_CREATED_CHARACTERS_MAX)
    return 'the name of a stream that is none';
  for (const time of [at, completeUntil, hearingSince ?? 0]) {
    if (!(time >= 0 && time < HEARTBEAT_TIME_MAX)) return `a time of ${time}`;
  }
  if (completeUntil > at) return 'a heartbeat that is complete beyond its own time';
  if (hearingSince !== null && hearingSince > at) return 'a heartbeat that hears since a time to come';
  return null;
}

/** As it is worth in the stream that it was read from. */
export const heartbeatIn = (heartbeat: Heartbeat, streamCreated: string): Heartbeat =>
  (heartbeat.streamCreated ?? streamCreated) === streamCreated
    ? heartbeat
    : { ...heartbeat, completeUntil: 0 };

/** A gateway whose clock runs ahead of `nowMs` is not believed: its times are moved back together. */
export function boundHeartbeat(heartbeat: Heartbeat, nowMs: number): Heartbeat {
  const ahead = heartbeat.at - nowMs;
  if (ahead <= limits.futureToleranceMs) return heartbeat;
  const moved = (time: number) => Math.max(0, time - ahead);
  const { completeUntil, hearingSince } = heartbeat;
  return {
    ...heartbeat,
    at: nowMs,
    completeUntil: moved(completeUntil),
    hearingSince: hearingSince === null ? null : moved(hearingSince),
  };
}
