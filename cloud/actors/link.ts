/**
 * A dead link: one incident per gateway that the cloud does not hear any more, whatever its devices would say. Pure.
 *
 *   heard ─silent for the link's time, while we listened─▶ open ─next heartbeat─▶ heard
 *
 * The id names the heartbeat that was the last one, so every node, and one that takes over, finds the same incident.
 */
import type { IncidentTransition } from './incident.ts';

export interface LinkState {
  /** The incident that is open; null while the gateway is heard. */
  readonly open: IncidentTransition | null;
}

export interface LinkNews {
  readonly site: string;
  readonly gateway: string;
  /** `GatewayLink.silentSince`: when it was last heard, if that is too long ago; else null. Milliseconds since 1970. */
  readonly silentSince: number | null;
  /** Of its last heartbeat, by its own clock; null when none was read since this node is here. */
  readonly completeUntil: number | null;
  /** When this is said, by the cloud's clock. */
  readonly now: number;
}

export const HEARD: LinkState = { open: null };

/** @returns the state from now on, and what is to be told; null: nothing */
export function judgeLink(
  state: LinkState,
  news: LinkNews,
): { readonly state: LinkState; readonly transition: IncidentTransition | null } {
  const { site, gateway, silentSince, completeUntil, now } = news;
  if (silentSince === null) {
    if (!state.open) return { state, transition: null };
    const transition = { ...state.open, clearedAt: Math.max(now, state.open.openedAt) };
    return { state: HEARD, transition };
  }
  if (state.open) return { state, transition: null };
  const transition: IncidentTransition = {
    id: `link:${site}/${gateway}:${completeUntil ?? silentSince}`,
    rule: 'link',
    kind: 'link',
    severity: 'critical',
    site,
    device: null,
    metric: null,
    summary: `no link to gateway ${gateway}: nothing of its devices is known since`,
    threshold: null,
    openedAt: silentSince,
    openedValue: null,
    clearedAt: null,
    clearedValue: null,
    late: false,
  };
  return { state: { open: transition }, transition };
}

/** The state that a node which takes over goes on from: the incident of the gateway that is open in history, or null. */
export const linkStateOf = (open: IncidentTransition | null): LinkState => (open ? { open } : HEARD);
