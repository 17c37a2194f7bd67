/**
 * What a bad link does to the bytes it carries, pure: when each piece of a direction comes out at the other end.
 *
 * A relay stands above TCP, so nothing can vanish from its stream: what a lost packet costs there is time. A lost segment
 * is held until its sender would have noticed and sent it again, and everything behind it waits as well. That is how
 * loss is modelled here: a stall of `RETRANSMIT_MS`, doubled for each time in a row that the same segment is lost.
 */

export interface Weather {
  /** One way. */
  readonly delayMs: number;
  /** On top of the delay, up to this; pieces stay in order all the same. */
  readonly jitterMs: number;
  /** Share of TCP segments that are lost at first, 0 up to but not including 1. */
  readonly lossRate: number;
  /** Each direction; 0 is without a limit. */
  readonly bytesPerSecond: number;
}

export const FAIR: Weather = { delayMs: 0, jitterMs: 0, lossRate: 0, bytesPerSecond: 0 };

/** What Ethernet leaves of 1,500 bytes for TCP's own. */
export const SEGMENT_BYTES = 1460;
/** The shortest retransmission timeout of Linux, and where doubling ends. */
const RETRANSMIT_MS = { first: 200, max: 30_000 };

export const isFair = (weather: Weather): boolean =>
  weather.delayMs === 0 && weather.jitterMs === 0 && weather.lossRate === 0 && weather.bytesPerSecond === 0;

/** @returns why the weather cannot be, or null. */
export function weatherFault({ delayMs, jitterMs, lossRate, bytesPerSecond }: Weather): string | null {
  if (!(delayMs >= 0 && jitterMs >= 0 && delayMs + jitterMs <= 60_000))
    return 'a delay is 0 to 60,000 ms, jitter included';
  if (!(lossRate >= 0 && lossRate < 1)) return 'a loss rate is at least 0 and below 1';
  if (!(bytesPerSecond >= 0)) return 'a bandwidth is not below 0';
  return null;
}

/** One direction of the link: how far ahead its line is taken. All its connections share it. */
export interface Line {
  readonly busyUntilMs: number;
}

export const FREE_LINE: Line = { busyUntilMs: Number.NEGATIVE_INFINITY };

/**
 * Puts a segment on the line.
 *
 * @param bytes at most `SEGMENT_BYTES`
 * @param previousMs when the segment before it on the same connection comes out
 * @param random numbers of [0, 1)
 */
export function sendSegment(
  line: Line,
  weather: Weather,
  segment: { readonly bytes: number; readonly nowMs: number; readonly previousMs: number },
  random: () => number,
): { readonly line: Line; readonly outMs: number } {
  const startMs = Math.max(segment.nowMs, line.busyUntilMs);
  const sentMs =
    weather.bytesPerSecond > 0 ? startMs + (1000 * segment.bytes) / weather.bytesPerSecond : startMs;
  let heldMs = 0;
  let retransmitMs = RETRANSMIT_MS.first;
  while (weather.lossRate > 0 && random() < weather.lossRate && heldMs < RETRANSMIT_MS.max) {
    heldMs += retransmitMs;
    retransmitMs *= 2;
  }
  const jitterMs = weather.jitterMs > 0 ? random() * weather.jitterMs : 0;
  const arrivesMs = sentMs + weather.delayMs + jitterMs + heldMs;
  return { line: { busyUntilMs: sentMs }, outMs: Math.max(arrivesMs, segment.previousMs) };
}
