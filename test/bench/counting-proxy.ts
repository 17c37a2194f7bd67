/** A TCP relay that counts what it carries, both ways: every byte above TCP. Close it last. */
import { connect, createServer, type Socket } from 'node:net';

export interface CountingProxy {
  readonly port: number;
  readonly bytes: { readonly up: number; readonly down: number };
  close(): Promise<void>;
}

export async function openCountingProxy(target: { host: string; port: number }): Promise<CountingProxy> {
  const bytes = { up: 0, down: 0 };
  const sockets = new Set<Socket>();
  const server = createServer(near => {
    const far = connect(target.port, target.host);
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    near.on('data', chunk => {
      bytes.up += chunk.length;
    });
    far.on('data', chunk => {
      bytes.down += chunk.length;
    });
    near.pipe(far);
    far.pipe(near);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port');
  return {
    port: address.port,
    bytes,
    close() {
      for (const socket of sockets) socket.destroy();
      return new Promise(resolve => server.close(() => resolve()));
    },
  };
}
