/**
 * Counts what the sockets of one client carry, both ways, below TLS and above TCP: connects that failed and handshakes
 * included. Every socket that is opened from within `measure`, or later as a consequence of it, is counted.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';

export interface LinkMeter {
  /** Since it was opened. */
  readonly bytes: number;
  measure<T>(open: () => T): T;
  close(): void;
}

const CHANNEL = 'net.client.socket';

export function newLinkMeter(): LinkMeter {
  const measured = new AsyncLocalStorage<true>();
  const sockets = new Set<Socket>();
  let ofClosed = 0;
  const bytesOf = (socket: Socket) => (socket.bytesRead ?? 0) + (socket.bytesWritten ?? 0);

  const onSocket = (message: unknown) => {
    if (!measured.getStore()) return;
    const { socket } = message as { socket: Socket };
    sockets.add(socket);
    // The NATS client takes all listeners off a socket, so its end is noticed when somebody asks.
  };
  subscribe(CHANNEL, onSocket);

  return {
    get bytes() {
      let bytes = ofClosed;
      for (const socket of sockets) {
        bytes += bytesOf(socket);
        if (!socket.destroyed) continue;
        ofClosed += bytesOf(socket);
        sockets.delete(socket);
      }
      return bytes;
    },
    measure: open => measured.run(true, open),
    close: () => void unsubscribe(CHANNEL, onSocket),
  };
}
