/** The shell around `role.ts`: ticks, tells the shared session to connect, and says aloud who takes the messages. */
import type { Logger } from 'pino';
import type { GatewayStatus, Role } from './own-topics.ts';
import { isAnotherActive, newRole, type RoleEvent, stepRole, TICK_LATE_MS } from './role.ts';

export interface Standby {
  readonly role: Role;
  /** How often this process took the session. */
  readonly takeOvers: number;
  /** Whether another gateway of the group takes the messages, as far as is known. */
  readonly othersActive: boolean;
  /** Whether this process has not run for a while, and the broker has not answered since. */
  readonly wasStopped: boolean;
  /** The broker has answered on the session's connection. */
  trust(): void;
  tell(event: RoleEvent): void;
  tellStatus(gateway: string, status: GatewayStatus, retained: boolean): void;
  close(): void;
}

const TICK_MS = 100;

export function newStandby(options: {
  group: string;
  takeOverAfterMs: number;
  logger: Logger;
  connect: () => void;
  onRole: (role: Role) => void;
}): Standby {
  const { group, takeOverAfterMs, logger } = options;
  let state = newRole(performance.now());
  let takeOvers = 0;
  let stopped = false;
  const ticking = setInterval(() => tell({ is: 'tick' }), TICK_MS);

  const isLate = (): boolean => performance.now() - state.tickedAtMs > TICK_LATE_MS;

  function tell(event: RoleEvent): void {
    const before = state.role;
    // Whatever wakes up first, the timer or the socket, the other one has to know.
    if (event.is === 'tick') stopped ||= isLate();
    if (event.is === 'up') stopped = false;
    const step = stepRole(state, event, {
      nowMs: performance.now(),
      chance: Math.random(),
      takeOverAfterMs,
    });
    state = step.state;
    if (state.role !== before) {
      if (state.role === 'active') takeOvers++;
      const reason = event.is === 'thrown out' ? 'another gateway has taken the session' : event.is;
      logger.warn({ group, role: state.role, reason, takeOvers }, `standby group: now ${state.role}`);
      options.onRole(state.role);
    }
    if (step.connect) options.connect();
  }

  return {
    get role() {
      return state.role;
    },
    get takeOvers() {
      return takeOvers;
    },
    get othersActive() {
      return isAnotherActive(state, performance.now(), takeOverAfterMs);
    },
    get wasStopped() {
      return stopped || isLate();
    },
    trust() {
      stopped = false;
    },
    tell,
    tellStatus(gateway, status, retained) {
      if (status.group !== group) return;
      const role = status.status === 'online' ? (status.role ?? 'standby') : null;
      tell({ is: 'peer', gateway, role, retained });
    },
    close: () => clearInterval(ticking),
  };
}
