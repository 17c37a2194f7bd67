/**
 * Which messages travel in which lane, pure. New data goes first: after an outage the newest messages go live at once,
 * and the backlog follows behind them in the backfill lane, in order.
 *
 *   older logs ── backfill ──┃        current log ── backfill ── edge ── live ──▶ tail
 *
 * The edge only moves forward, and only when more waits behind it than the live lane carries without delay: a short
 * cut is caught up in order, with no second lane.
 */

/** Messages that may wait in the live lane: some ten batches. */
export const LIVE_WAITING_MAX = 20_000;
/** Of a backlog, the newest that go live all the same, so that every device has a fresh value at once. */
export const LIVE_NEWEST = 2000;

/**
 * @param edge first sequence of the current log that is live
 * @param firstWaiting first sequence from the edge on that was not sent; `nextSequence` when all were
 * @param nextSequence one past the newest durable sequence
 * @returns the edge from now on
 */
export function liveEdge(edge: number, firstWaiting: number, nextSequence: number): number {
  if (nextSequence - firstWaiting <= LIVE_WAITING_MAX) return edge;
  return Math.max(edge, nextSequence - LIVE_NEWEST);
}
