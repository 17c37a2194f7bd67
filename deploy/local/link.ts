/**
 * A TCP link that can fail: a relay on loopback in front of a server, which counts what it carries and can be cut,
 * left half-open, and healed. For benchmarks, tests, and whoever wants to see what a bad link does.
 */
import { connect, createServer, type Socket } from 'node:net';

export interface Link {
  readonly port: number;
  /** Every byte above TCP; `up` is towards the server. */
  readonly bytes: { readonly up: number; readonly down: number };
  /** Ends all connections and refuses new ones. */
  cut(): void;
  /** Connections stay open and carry nothing any more; new ones are taken and carry nothing. */
  stall(): void;
  /** Carries again. What was stalled is ended, as by a router that lost its state. */
  heal(): void;
  /** Close it last. */
  close(): Promise<void>;
}

export async function openLink(target: { host: string; port: number }): Promise<Link> {
  const bytes = { up: 0, down: 0 };
  const sockets = new Set<Socket>();
  let state: 'carrying' | 'cut' | 'stalled' = 'carrying';

  const server = createServer(near => {
    sockets.add(near);
    near.on('error', () => near.destroy());
    near.on('close', () => sockets.delete(near));
    if (state === 'cut') near.destroy();
    else if (state === 'stalled') near.pause();
    else relay(near);
  });

  function relay(near: Socket): void {
    const far = connect(target.port, target.host);
    sockets.add(far);
    far.on('error', () => near.destroy());
    far.on('close', () => {
      sockets.delete(far);
      near.destroy();
    });
    near.on('close', () => far.destroy());
    near.setNoDelay(true);
    far.setNoDelay(true);
    near.on('data', chunk => {
      bytes.up += chunk.length;
    });
    far.on('data', chunk => {
      bytes.down += chunk.length;
    });
    near.pipe(far);
    far.pipe(near);
  }

  function endAll(): void {
    for (const socket of sockets) socket.destroy();
  }

  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the link has no port');
  return {
    port: address.port,
    bytes,
    cut() {
      state = 'cut';
      endAll();
    },
    stall() {
      state = 'stalled';
      for (const socket of sockets) {
        socket.unpipe();
        socket.pause();
      }
    },
    heal() {
      if (state === 'stalled') endAll();
      state = 'carrying';
    },
    close() {
      endAll();
      return new Promise(resolve => server.close(() => resolve()));
    },
  };
}
