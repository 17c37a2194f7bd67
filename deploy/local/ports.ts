/**
 * Loopback ports for servers that are killed and started again on the same port.
 *
 * They are taken below the range the system uses for outgoing connections: a client that keeps reconnecting to a
 * dead server inside that range is sooner or later given the server's own port as its source, connects to itself,
 * and the server cannot come back.
 */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

const firstPort = 15_000;
const lastPort = 32_000;

/** Handed out by this process, so that two calls before the first bind never get the same one. */
const handedOut = new Set<number>();

/** A TCP port nobody listens on at this moment, on 127.0.0.1. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 1000; attempt += 1) {
    const port = randomInt(firstPort, lastPort);
    if (handedOut.has(port) || !(await isFree(port))) continue;
    handedOut.add(port);
    return port;
  }
  throw new Error(`no free port between ${firstPort} and ${lastPort}`);
}

/** Whether nobody listens on the port, on any address of this machine. */
export async function isFree(port: number): Promise<boolean> {
  // Bound without a host as well: a server on 0.0.0.0 does not stop a bind to 127.0.0.1 everywhere.
  for (const host of ['0.0.0.0', '127.0.0.1']) {
    const probe = createServer();
    const bound = await new Promise<boolean>(resolve => {
      probe.once('error', () => resolve(false));
      probe.listen({ port, host }, () => resolve(true));
    });
    if (!bound) return false;
    probe.close();
    await once(probe, 'close');
  }
  return true;
}

const startAttemptsMax = 5;

/**
 * Starts on the given port, or on a free one; a port that somebody took between the look and the bind is replaced.
 * A port asked for by name is never replaced.
 */
export async function onPort<T>(port: number | undefined, start: (port: number) => Promise<T>): Promise<T> {
  if (port !== undefined) return start(port);
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await start(await freePort());
    } catch (error) {
      if (attempt === startAttemptsMax || !/address already in use|could not bind/i.test(String(error)))
        throw error;
    }
  }
}
