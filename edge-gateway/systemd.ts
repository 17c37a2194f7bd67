/**
 * Tells systemd how the gateway is: ready, alive, stopping. Node has no datagram sockets of the Unix kind, so the words go by
 * way of `systemd-notify`, which is there wherever there is systemd (the unit says `NotifyAccess=all` for it). Outside of
 * systemd nothing happens.
 *
 *   ready ─▶ WATCHDOG=1 every third of WatchdogSec, while `stuck()` is null ─▶ stopping
 */
import { execFile } from 'node:child_process';
import type { Logger } from 'pino';

export interface ServiceManager {
  ready(status: string): Promise<void>;
  stopping(): Promise<void>;
}

const NOTIFY_TIMEOUT_MS = 10_000;

/**
 * @param options.status one line for `systemctl status`
 * @param options.stuck asked before each sign of life with the patience that is due; the reason when there must be none
 */
export function openServiceManager(options: {
  environment: Readonly<Record<string, string | undefined>>;
  status: () => string;
  stuck: (patienceMs: number) => string | null;
  logger: Logger;
}): ServiceManager {
  const { environment, logger } = options;
  if (!environment.NOTIFY_SOCKET) {
    return { ready: () => Promise.resolve(), stopping: () => Promise.resolve() };
  }
  const watchdogMs = watchdogOf(environment);
  let timer: NodeJS.Timeout | undefined;

  function tell(...words: string[]): Promise<void> {
    return new Promise(resolve => {
      execFile('systemd-notify', words, { timeout: NOTIFY_TIMEOUT_MS }, error => {
        if (error) logger.warn({ err: error }, 'systemd was not told');
        resolve();
      });
    });
  }

  function signOfLife(): void {
    const reason = options.stuck(watchdogMs! / 2);
    if (reason === null) void tell('WATCHDOG=1', `--status=${options.status()}`);
    else logger.fatal({ reason }, 'no sign of life for the watchdog');
  }

  return {
    async ready(status) {
      await tell('--ready', `--status=${status}`);
      if (watchdogMs !== null) timer = setInterval(signOfLife, watchdogMs / 3).unref();
    },
    async stopping() {
      clearInterval(timer);
      // The drain is short, but may outlast what is left of the watchdog's time.
      await tell('STOPPING=1', ...(watchdogMs === null ? [] : ['WATCHDOG=1']));
    },
  };
}

/** @returns the watchdog's time in milliseconds; null when there is none, or it is another process's. */
function watchdogOf(environment: Readonly<Record<string, string | undefined>>): number | null {
  const { WATCHDOG_USEC, WATCHDOG_PID } = environment;
  if (WATCHDOG_PID !== undefined && Number(WATCHDOG_PID) !== process.pid) return null;
  const ms = Number(WATCHDOG_USEC) / 1000;
  return ms > 0 ? ms : null;
}
