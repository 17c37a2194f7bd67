/**
 * Which of a site's gateways takes messages, pure. The gateways of a group share one client id, and so one persistent
 * session at the broker. The broker is the arbiter: whoever connected last has the session, and the one before is
 * thrown out. Everything here only decides when to connect.
 *
 *             nobody is active, patience is over: connect
 *   standby ───────────────────────────────────────────────▶ active (connecting ─▶ up ─lost▶ down ─again▶ connecting …)
 *      ▲                                                        │
 *      └── thrown out · while down: somebody else is active, or the session cannot be had for long ──┘
 *
 * A take-over needs proof: the active one's will, its silence for `takeOverAfterMs` on a connection that works, or that
 * nobody ever was there. Who was thrown out waits at least that long, so two gateways never throw each other out in
 * turns. There is no priority and no way back by itself. Times are of one monotonic clock, milliseconds.
 */
import type { Role } from './own-topics.ts';

export interface RoleState {
  readonly role: Role;
  /** The shared session. */
  readonly session: 'down' | 'connecting' | 'up';
  /** Since when it is down while we are the active one. */
  readonly downSinceMs: number;
  /** Whether the others are heard: without, nothing can be known of them and nothing is done. */
  readonly watching: boolean;
  /** Whether they were heard before. */
  readonly watchedBefore: boolean;
  /** Not before this is the session connected. */
  readonly patienceUntilMs: number;
  readonly tickedAtMs: number;
  /** The other gateways of the group that are online. */
  readonly peers: ReadonlyMap<string, { readonly role: Role; readonly heardAtMs: number }>;
}

export type RoleEvent =
  /** The others are heard; what they had said before has been told. */
  | { readonly is: 'watching' }
  | { readonly is: 'blind' }
  /** `retained`: it was said some time before. */
  | { readonly is: 'peer'; readonly gateway: string; readonly role: Role | null; readonly retained: boolean }
  | { readonly is: 'tick' }
  | { readonly is: 'up' }
  | { readonly is: 'lost' }
  | { readonly is: 'thrown out' };

export interface RoleStep {
  readonly state: RoleState;
  /** What is to be done: connect with the shared client id. */
  readonly connect: boolean;
}

/** Gateways of one group that are followed; more are not heard. */
const PEERS_MAX = 16;
/** Gateways that start at once, or see the same will, do not act in step. */
const START_SPREAD_MS = 1000;
const WILL_SPREAD_MS = 500;
const AGAIN_MS = 1000;
/** After a tick this late the process was stopped: what the others said meanwhile has still to be read. */
export const TICK_LATE_MS = 2000;

export const newRole = (nowMs: number): RoleState => ({
  role: 'standby',
  session: 'down',
  downSinceMs: nowMs,
  watching: false,
  watchedBefore: false,
  patienceUntilMs: nowMs,
  tickedAtMs: nowMs,
  peers: new Map(),
});

/** @param chance from [0, 1), a new one for every step */
export function stepRole(
  state: RoleState,
  event: RoleEvent,
  { nowMs, chance, takeOverAfterMs }: { nowMs: number; chance: number; takeOverAfterMs: number },
): RoleStep {
  const become = (change: Partial<RoleState>, connect = false): RoleStep => ({
    state: { ...state, ...change },
    connect,
  });
  const standby = (waitMs: number): Partial<RoleState> => ({
    role: 'standby',
    session: 'down',
    patienceUntilMs: nowMs + waitMs,
  });

  switch (event.is) {
    case 'watching': {
      const waitMs =
        state.role === 'active'
          ? chance * WILL_SPREAD_MS
          : // The active one may be on its way back to a broker that was away.
            state.watchedBefore
            ? takeOverAfterMs
            : chance * START_SPREAD_MS;
      const patienceUntilMs = Math.max(state.patienceUntilMs, nowMs + waitMs);
      return become({ watching: true, watchedBefore: true, downSinceMs: nowMs, patienceUntilMs });
    }
    case 'blind':
      return become({ watching: false });
    case 'peer': {
      const before = state.peers.get(event.gateway);
      if (!before && (event.role === null || state.peers.size >= PEERS_MAX)) return become({});
      const peers = new Map(state.peers);
      if (event.role === null) peers.delete(event.gateway);
      else peers.set(event.gateway, { role: event.role, heardAtMs: nowMs });
      const left = before?.role === 'active' && event.role !== 'active' && !event.retained;
      if (!left || state.role === 'active') return become({ peers });
      return become({ peers, patienceUntilMs: nowMs + chance * WILL_SPREAD_MS });
    }
    case 'tick': {
      const late = nowMs - state.tickedAtMs > TICK_LATE_MS;
      const ticked = { ...state, tickedAtMs: nowMs };
      if (late && state.session === 'down') {
        const patienceUntilMs = Math.max(state.patienceUntilMs, nowMs + takeOverAfterMs);
        return { state: { ...ticked, patienceUntilMs }, connect: false };
      }
      if (!state.watching || state.session !== 'down' || nowMs < state.patienceUntilMs)
        return { state: ticked, connect: false };
      if (isAnotherActive(state, nowMs, takeOverAfterMs))
        return { state: { ...ticked, role: 'standby' }, connect: false };
      // It is in vain here; another one may have the rights that this one lacks.
      if (state.role === 'active' && nowMs - state.downSinceMs > takeOverAfterMs)
        return { state: { ...ticked, ...standby(2 * takeOverAfterMs) }, connect: false };
      const downSinceMs = state.role === 'active' ? state.downSinceMs : nowMs;
      return { state: { ...ticked, role: 'active', session: 'connecting', downSinceMs }, connect: true };
    }
    case 'up':
      return become({ session: 'up' });
    case 'lost':
      if (state.role === 'standby') return become({});
      return become({
        session: 'down',
        downSinceMs: state.session === 'up' ? nowMs : state.downSinceMs,
        patienceUntilMs: nowMs + AGAIN_MS * (0.5 + chance),
      });
    case 'thrown out':
      return become(standby(takeOverAfterMs));
  }
}

/** Whether a gateway of the group has said of late that it takes the messages. */
export function isAnotherActive(state: RoleState, nowMs: number, takeOverAfterMs: number): boolean {
  for (const { role, heardAtMs } of state.peers.values()) {
    if (role === 'active' && nowMs - heardAtMs < takeOverAfterMs) return true;
  }
  return false;
}
