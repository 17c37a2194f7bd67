/**
 * The clocks of a site: of each gateway, how far its word is complete. Durations and silences are judged by them and never
 * by this machine's clock, so an outage of the link or of the cloud makes nobody absent. They are lost with the node; the
 * next heartbeats, seconds later, bring them again. Pure.
 */
import type { Heartbeat } from '../../protocol/heartbeat.ts';

/** By gateway. Changed by {@link heardHeartbeat} alone. */
export type SiteClocks = Map<string, GatewayClock>;

interface GatewayClock {
  readonly last: Heartbeat;
  /** Heartbeats of that log in a row; 0: it was not heard yet. */
  readonly inARow: number;
  /** The last one before that, of another log: of the gateway before its restart, or of a second one that goes by its name. */
  readonly other: Heartbeat | null;
}

/** What may be judged of devices that a gateway heard last. */
export interface JudgedClock {
  /** Everything that arrived before is known. */
  readonly completeUntil: number;
  /** Since when the devices are heard without a break; null: they are not heard now, and nothing can be said of silence. */
  readonly hearingSince: number | null;
  /** Of another gateway, which stands in: the backlog of the silent one is still to come. */
  readonly standsIn: boolean;
}

/** Gateways of one site that are followed; further ones judge nothing (F). */
export const GATEWAYS_PER_SITE_MAX = 64;
/** A gateway that said nothing for so long, by another one's clock, is silent: three heartbeats of a metered link. */
export const GATEWAY_SILENT_MS = 180_000;
/** Two that go by one name speak in turn: after so many words in a row the other one is gone. */
const GONE_AFTER = 3;

/** @returns the gateways whose devices can be judged now, and by which clock */
export function heardHeartbeat(
  clocks: SiteClocks,
  gateway: string,
  heartbeat: Heartbeat,
  gatewaysWithTimers: Iterable<string>,
): Map<string, JudgedClock> {
  const judged = new Map<string, JudgedClock>();
  const before = clocks.get(gateway);
  if (!before && clocks.size >= GATEWAYS_PER_SITE_MAX) return judged;
  const clock = newClock(before, heartbeat);
  clocks.set(gateway, clock);
  const { hearingSince, coversSite } = heartbeat;
  // What one of two has told is what both have only when the other one has told it, too.
  const completeUntil = Math.min(
    heartbeat.completeUntil,
    clock.other?.completeUntil ?? Number.POSITIVE_INFINITY,
  );
  judged.set(gateway, { completeUntil, hearingSince, standsIn: false });
  if (!coversSite) return judged;
  for (const other of gatewaysWithTimers) {
    if (other === gateway) continue;
    const last = clocks.get(other);
    // One that was not heard since this node is here gets its time to speak.
    if (!last) clocks.set(other, { last: { ...heartbeat, completeUntil: 0 }, inARow: 0, other: null });
    else if (heartbeat.at - last.last.at > GATEWAY_SILENT_MS) {
      judged.set(other, { completeUntil, hearingSince, standsIn: true });
    }
  }
  return judged;
}

function newClock(before: GatewayClock | undefined, last: Heartbeat): GatewayClock {
  if (before?.last.logId !== last.logId)
    return { last, inARow: 1, other: before?.inARow ? before.last : null };
  const inARow = before.inARow + 1;
  return { last, inARow, other: inARow < GONE_AFTER ? before.other : null };
}

/** Whether the gateway has since told that what arrived then was long ago: it is catching up. */
export const cameLate = (
  clocks: SiteClocks,
  gateway: string,
  receivedAt: number,
  lateAfterMs: number,
): boolean => (clocks.get(gateway)?.last.at ?? 0) - receivedAt > lateAfterMs;
