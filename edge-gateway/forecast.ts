/**
 * Where the buffer is heading, pure: until it is full, and until nothing waits any more, at the rates of the last minutes.
 * Rates are measured in bytes on disk, so what compaction and thinning save is in them.
 */
import type { GatewayReport } from '../protocol/handshake.ts';
import type { LogInfo } from './log/disk-buffer.ts';

export interface Sample {
  /** Monotonic, milliseconds. */
  readonly at: number;
  /** On disk that history has not settled. */
  readonly unsettledBytes: number;
  readonly unsettledMessages: number;
  /** Taken from the broker since start. */
  readonly messages: number;
}

/** Samples are kept for so long: short enough to notice soon that a link is gone. */
export const WINDOW_MS = 180_000;
/** Rates over less than this are noise. */
const MEASURED_MS_MIN = 20_000;
/** A buffer that takes longer than that to fill is none that fills. */
const FULL_SECONDS_MAX = 10 * 365 * 86_400;

/** @returns the samples with `sample`, without those too old */
export const remember = (samples: readonly Sample[], sample: Sample): Sample[] => [
  ...samples.filter(({ at }) => at > sample.at - WINDOW_MS),
  sample,
];

/**
 * @param underWayMs how old messages get on their way though nothing is held up; what arrives in that time is no backlog
 */
export function forecastOf(
  samples: readonly Sample[],
  now: { readonly bytesMax: number; readonly connected: boolean; readonly underWayMs: number },
): GatewayReport['forecast'] {
  const first = samples[0];
  const last = samples.at(-1);
  if (!first || !last) return { fullInSeconds: null, drainedInSeconds: null };
  if (last.unsettledMessages === 0) return { fullInSeconds: null, drainedInSeconds: 0 };
  const seconds = (last.at - first.at) / 1000;
  if (seconds * 1000 < MEASURED_MS_MIN) return { fullInSeconds: null, drainedInSeconds: null };
  const perSecond = (of: (sample: Sample) => number) => (of(last) - of(first)) / seconds;

  const underWay =
    (Math.max(
      0,
      perSecond(sample => sample.messages),
    ) *
      now.underWayMs) /
    1000;
  if (now.connected && last.unsettledMessages <= underWay)
    return { fullInSeconds: null, drainedInSeconds: 0 };
  const growth = perSecond(sample => sample.unsettledBytes);
  const fullInSeconds = Math.max(0, now.bytesMax - last.unsettledBytes) / growth;
  const drain = -perSecond(sample => sample.unsettledMessages);
  return {
    fullInSeconds: growth > 0 && fullInSeconds <= FULL_SECONDS_MAX ? Math.round(fullInSeconds) : null,
    drainedInSeconds: now.connected && drain > 0 ? Math.round(last.unsettledMessages / drain) : null,
  };
}

/** Of a log's bytes those that are still wanted, in proportion to its messages. */
export function unsettledBytesOf(log: Pick<LogInfo, 'firstSequence' | 'nextSequence' | 'settled' | 'bytes'>) {
  const messages = log.nextSequence - log.firstSequence;
  if (messages <= 0) return 0;
  const settled = log.settled
    .subtract(0, log.firstSequence)
    .subtract(log.nextSequence, Number.MAX_SAFE_INTEGER).size;
  return (log.bytes * (messages - settled)) / messages;
}
