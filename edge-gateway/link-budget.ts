/**
 * How a metered link's budget is spent, pure: what may be sent now, and how long to gather for it.
 *
 *   used of the period's budget   live telemetry               events                    backlog            hello
 *   ahead of 80 % pro rata        gathers, so that it lasts    a tenth of that at most   waits              ≤ 5 % of it
 *   otherwise                     the same                     the same                  in its hours       the same
 *   all but the rest for hellos   waits for the period's end   waits                     waits              every 5 minutes
 *
 * Gathering makes batches larger and so fewer and cheaper: the time is what the last batch cost at the rate that spreads
 * what is left evenly over the rest of the period. A full batch goes at once, because waiting makes it no cheaper. What
 * waits, waits on disk: nothing is dropped for a budget (A, F).
 */
import { limits } from '../protocol/limits.ts';
import { type Budget, isWithin, type LinkTerms } from './link-terms.ts';

/** Bytes both ways in the period that began at `startsAt`. */
export interface Usage {
  readonly startsAt: number;
  readonly bytes: number;
}

export interface Allowance {
  readonly live: boolean;
  readonly backfill: boolean;
  /** How far apart live batches leave, unless full. */
  readonly gatherMs: number;
  /** The same when an event waits. */
  readonly eventGatherMs: number;
  readonly helloMs: number;
  /** The budget is used up but for the hellos. */
  readonly exhausted: boolean;
}

/** Share of the budget, pro rata, that is left to live data and never goes to a backlog. */
const BACKFILL_SHARE_MAX = 0.8;
const HELLO_SHARE_MAX = 0.05;
const HELLO_MS = { unmetered: 5000, max: 300_000 };
/** Of the budget: beyond it hellos have to fit into what live leaves by chance. */
const HELLO_RESERVE_SHARE_MAX = 0.5;
const EVENT_GATHER_SHARE = 0.1;
/** NATS keeps up a connection with these; each is two packets and their acknowledgements. */
export const PING_MS = { unmetered: 5000, metered: 120_000 } as const;
/** Besides the batch itself: subject and inbox of the publish, the stream's answer, the notice when it is settled. */
export const BATCH_OVERHEAD_BYTES = 600;

/** The period of `nowMs`, by the local calendar. */
export function periodOf(per: Budget['per'], nowMs: number): { startsAt: number; endsAt: number } {
  const now = new Date(nowMs);
  const day = per === 'day' ? now.getDate() : 1;
  const startsAt = new Date(now.getFullYear(), now.getMonth(), day).getTime();
  const endsAt =
    per === 'day'
      ? new Date(now.getFullYear(), now.getMonth(), day + 1).getTime()
      : new Date(now.getFullYear(), now.getMonth() + 1, 1).getTime();
  return { startsAt, endsAt };
}

/**
 * The usage that counts now: a later period starts at nothing. A clock that was not set yet starts no period, and one that
 * went back takes along what was used, so that no box gets its budget twice by losing its clock.
 */
export function usageNow(usage: Usage | null, budget: Budget, nowMs: number): Usage {
  const { startsAt } = periodOf(budget.per, nowMs);
  if (!usage) return { startsAt, bytes: 0 };
  if (startsAt === usage.startsAt || nowMs < limits.earliestBelievedMs) return usage;
  return { startsAt, bytes: startsAt > usage.startsAt ? 0 : usage.bytes };
}

/**
 * @param usage of now, see {@link usageNow}; null on a link without a budget
 * @param costs bytes on the wire of the last live batch and of a hello with its answer, and of batches under way
 */
export function allowanceNow(
  terms: LinkTerms,
  usage: Usage | null,
  nowMs: number,
  costs: { readonly batchBytes: number; readonly helloBytes: number; readonly inFlightBytes: number },
  flushIntervalMs: number,
): Allowance {
  const inHours = isWithin(terms.backfillHours, new Date(nowMs));
  const { budget } = terms;
  if (!budget || !usage) {
    return {
      live: true,
      backfill: inHours,
      gatherMs: flushIntervalMs,
      eventGatherMs: flushIntervalMs,
      helloMs: HELLO_MS.unmetered,
      exhausted: false,
    };
  }
  const { startsAt, endsAt } = periodOf(budget.per, Math.max(nowMs, usage.startsAt));
  const msLeft = Math.max(1, endsAt - nowMs);
  const elapsedShare = Math.min(1, Math.max(0, (nowMs - startsAt) / (endsAt - startsAt)));
  const used = usage.bytes + costs.inFlightBytes;
  const helloReserve = Math.min(
    costs.helloBytes * (1 + msLeft / HELLO_MS.max),
    budget.bytesMax * HELLO_RESERVE_SHARE_MAX,
  );
  const bytesLeft = budget.bytesMax - helloReserve - used;
  const exhausted = bytesLeft < costs.batchBytes;
  const evenly = (costs.batchBytes * msLeft) / Math.max(1, bytesLeft);
  const gatherMs = Math.min(Math.max(evenly, flushIntervalMs), Math.max(terms.gatherMsMax, flushIntervalMs));
  const helloEvenly =
    (costs.helloBytes * (endsAt - startsAt)) / Math.max(1, budget.bytesMax * HELLO_SHARE_MAX);
  return {
    live: !exhausted,
    backfill: !exhausted && inHours && used < budget.bytesMax * BACKFILL_SHARE_MAX * elapsedShare,
    gatherMs,
    eventGatherMs: Math.max(gatherMs * EVENT_GATHER_SHARE, flushIntervalMs),
    helloMs: exhausted ? HELLO_MS.max : Math.min(HELLO_MS.max, Math.max(HELLO_MS.unmetered, helloEvenly)),
    exhausted,
  };
}
