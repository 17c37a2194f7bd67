/**
 * The rule against floods, pure: of one site a webhook gets 10 pages at once and one more every 6 s; what comes beyond
 * waits 3 s for others and leaves with them as one digest, at most one in 30 s.
 *
 *   page ─▶ a token is left: goes by itself
 *        └▶ none is left: held ──3 s, and 30 s after the last digest──▶ digest
 *
 * A clear whose opening is held is held with it, so that it is never told first.
 */
export const floodRule = {
  pagesAtOnce: 10,
  pageEveryMs: 6000,
  holdMs: 3000,
  digestEveryMs: 30_000,
} as const;

export interface SiteFlow {
  readonly tokens: number;
  /** When `tokens` was right. */
  readonly at: number;
  /** When the last digest left. */
  readonly digestAt: number;
}

export const freshFlow = (now: number): SiteFlow => ({
  tokens: floodRule.pagesAtOnce,
  at: now,
  digestAt: Number.NEGATIVE_INFINITY,
});

/** @returns the flow after a page went by itself, or null when it has to be held */
export function takeToken(flow: SiteFlow, now: number): SiteFlow | null {
  const tokens = tokensAt(flow, now);
  return tokens < 1 ? null : { ...flow, tokens: tokens - 1, at: now };
}

/** When pages that are held since `heldAt` leave. */
export const digestDueAt = (flow: SiteFlow, heldAt: number): number =>
  Math.max(heldAt + floodRule.holdMs, flow.digestAt + floodRule.digestEveryMs);

/** Whether nothing has to be remembered of the site. */
export const isCalm = (flow: SiteFlow, now: number): boolean =>
  tokensAt(flow, now) >= floodRule.pagesAtOnce && now - flow.digestAt > floodRule.digestEveryMs;

const tokensAt = (flow: SiteFlow, now: number): number =>
  Math.min(floodRule.pagesAtOnce, flow.tokens + Math.max(0, now - flow.at) / floodRule.pageEveryMs);
