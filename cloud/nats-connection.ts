/** A node's connection to NATS, and how it is doing: it is kept up for ever, whatever becomes of the server (R). */
import { connect, type NatsConnection } from '@nats-io/transport-node';
import type { Logger } from 'pino';
import { natsAddress } from '../protocol/nats-address.ts';
import { reconnectForEver } from '../protocol/nats-reconnect.ts';
import type { ServerHealth } from './health.ts';

const RECONNECT_MS = { least: 200, jitter: 800 };

export interface NatsServerConnection {
  readonly nats: NatsConnection;
  readonly health: ServerHealth;
  /** For how long the server has been away, milliseconds; 0 while it is there. */
  awayMs(): number;
  /** What is lost on a connection that has ended is asked for again, or told again; a closed one throws. */
  ifOpen(send: () => void): void;
  /** From now on its health is known, and the listener told when it is connected again. */
  follow(onReconnect: () => void): void;
  close(): Promise<void>;
}

/**
 * Rejects when the server is not there.
 * @param options.onEnd It has ended for good, by `close` or not; the reason in words.
 */
export async function connectNats(options: {
  url: string;
  name: string;
  logger: Logger;
  onEnd: (reason: string) => void;
}): Promise<NatsServerConnection> {
  const { logger } = options;
  const nats = await connect({
    ...natsAddress(options.url),
    name: options.name,
    ...reconnectForEver(RECONNECT_MS),
    pingInterval: 5000,
  });
  let lostAt = 0;
  let health: ServerHealth = { ok: true, reason: null };
  void nats
    .closed()
    .then(error =>
      options.onEnd(`NATS: the connection has ended for good: ${error?.message ?? 'no reason given'}`),
    );
  return {
    nats,
    get health() {
      return health;
    },
    awayMs: () => (health.ok ? 0 : performance.now() - lostAt),
    ifOpen(send) {
      try {
        send();
      } catch (error) {
        if (!nats.isClosed() && !nats.isDraining()) throw error;
      }
    },
    follow(onReconnect) {
      void (async () => {
        for await (const status of nats.status()) {
          if (status.type === 'disconnect') {
            if (health.ok) lostAt = performance.now();
            health = { ok: false, reason: `lost ${status.server}` };
            logger.warn({ reason: health.reason }, 'nats: disconnected');
          }
          if (status.type === 'reconnect') {
            health = { ok: true, reason: null };
            logger.info('nats: connected again');
            onReconnect();
          }
        }
      })();
    },
    // Draining asks the server: there is none to wait for while it is away.
    close: () => (health.ok ? nats.drain() : nats.close()),
  };
}
