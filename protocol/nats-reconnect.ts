/**
 * How our programs connect again to NATS: for ever, and by timers alone. The client's own waiting goes by the wall clock of
 * its last attempt (nats-core 3.4, `dialLoop`): when that clock was an hour ahead and is set right, it waits for an hour.
 */
import type { ConnectionOptions } from '@nats-io/transport-node';

/** The first attempt of each break; a server that takes connections and drops them is not stormed. */
const FIRST_MS = { least: 20, jitter: 200 } as const;

/** @param again the further attempts of a break wait `least` and up to `jitter` more, milliseconds */
export const reconnectForEver = (again: {
  readonly least: number;
  readonly jitter: number;
}): Pick<
  ConnectionOptions,
  'maxReconnectAttempts' | 'reconnectDelayHandler' | 'reconnectToServer' | 'ignoreAuthErrorAbort'
> => ({
  maxReconnectAttempts: -1,
  // A password that is being changed must not end it: the next attempts may be let in again.
  ignoreAuthErrorAbort: true,
  // It never waits by itself, whatever its last attempt's time is; the delay below does.
  reconnectDelayHandler: () => Number.NEGATIVE_INFINITY,
  reconnectToServer(pool) {
    const [server] = pool;
    if (!server) return null;
    if (server.lastConnect === 0) return server;
    const { least, jitter } = server.reconnects === 0 ? FIRST_MS : again;
    return { server, delay: least + Math.random() * jitter };
  },
});
