/**
 * A TCP link that can fail: a relay on loopback in front of a server, which counts what it carries and can be cut,
 * left half-open, shaped like a bad line (`link-weather.ts`), and healed. For benchmarks, tests, the lab, and whoever
 * wants to see what a bad link does.
 *
 *   near ──▶ queue ──when it comes out──▶ far      (and the same back)
 *              └─ full: near is not read any further, so the sender is pushed back (F)
 */
import { connect, createServer, type Socket } from 'node:net';
import {
  FAIR,
  FREE_LINE,
  isFair,
  SEGMENT_BYTES,
  sendSegment,
  type Weather,
  weatherFault,
} from './link-weather.ts';

export interface Link {
  readonly port: number;
  /** Every byte above TCP; `up` is towards the server. */
  readonly bytes: { readonly up: number; readonly down: number };
  /** Bytes taken from one end and not yet given to the other. */
  readonly underWay: number;
  /** Ends all connections and refuses new ones. */
  cut(): void;
  /** Connections stay open and carry nothing any more; new ones are taken and carry nothing. */
  stall(): void;
  /** Carries again. What was stalled is ended, as by a router that lost its state. */
  heal(): void;
  /**
   * From now on the link is like that, whatever was given before; what is left out is fair.
   * @throws RangeError when there is no such weather
   */
  shape(weather: Partial<Weather>): void;
  /** Close it last. */
  close(): Promise<void>;
}

/** On the way, per connection and direction: what TCP's window is. With a delay it bounds the rate, as there. */
export const UNDER_WAY_BYTES_MAX = 256 * 1024;

type Direction = 'up' | 'down';

/** @param options.random numbers of [0, 1) for loss and jitter */
export async function openLink(
  target: { host: string; port: number },
  options: { random?: () => number } = {},
): Promise<Link> {
  const random = options.random ?? Math.random;
  const bytes = { up: 0, down: 0 };
  const sockets = new Set<Socket>();
  const carriers = new Set<Carrier>();
  const lines = { up: FREE_LINE, down: FREE_LINE };
  let state: 'carrying' | 'cut' | 'stalled' = 'carrying';
  let weather = FAIR;

  // Half-open: bytes that are still under way when one side has said its last word reach the other one.
  const server = createServer({ allowHalfOpen: true }, near => {
    add(near);
    if (state === 'cut') near.destroy();
    else if (state === 'stalled') near.pause();
    else relay(near);
  });

  function add(socket: Socket): void {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('close', () => sockets.delete(socket));
  }

  function relay(near: Socket): void {
    const far = connect({ port: target.port, host: target.host, allowHalfOpen: true });
    add(far);
    near.setNoDelay(true);
    far.setNoDelay(true);
    near.on('error', () => far.destroy());
    far.on('error', () => near.destroy());
    carry(near, far, 'up');
    carry(far, near, 'down');
  }

  function carry(from: Socket, to: Socket, direction: Direction): void {
    const carrier = newCarrier(from, to, (length, previousMs) => {
      const segment = { bytes: length, nowMs: performance.now(), previousMs };
      const sent = sendSegment(lines[direction], weather, segment, random);
      lines[direction] = sent.line;
      return sent.outMs;
    });
    carriers.add(carrier);
    to.on('close', () => carriers.delete(carrier));
    from.on('data', chunk => {
      bytes[direction] += chunk.length;
      carrier.take(chunk, isFair(weather));
    });
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
    get underWay() {
      let sum = 0;
      for (const carrier of carriers) sum += carrier.waiting;
      return sum;
    },
    cut() {
      state = 'cut';
      endAll();
    },
    stall() {
      state = 'stalled';
      for (const carrier of carriers) carrier.stop();
    },
    heal() {
      if (state === 'stalled') endAll();
      state = 'carrying';
    },
    shape(change) {
      const wanted = { ...FAIR, ...change };
      const fault = weatherFault(wanted);
      if (fault) throw new RangeError(fault);
      weather = wanted;
      // A line that was slow is not busy any more once it is fast.
      lines.up = FREE_LINE;
      lines.down = FREE_LINE;
    },
    close() {
      endAll();
      return new Promise(resolve => server.close(() => resolve()));
    },
  };
}

interface Carrier {
  readonly waiting: number;
  /** @param atOnce nothing holds the bytes up but what waits before them */
  take(chunk: Buffer, atOnce: boolean): void;
  /** Carries nothing any more. */
  stop(): void;
}

/** One direction of one connection. @param send gives the time when a segment comes out, after the one before it */
function newCarrier(from: Socket, to: Socket, send: (length: number, previousMs: number) => number): Carrier {
  const queue: { readonly bytes: Buffer; readonly outMs: number }[] = [];
  let waiting = 0;
  let lastOutMs = Number.NEGATIVE_INFINITY;
  let timer: NodeJS.Timeout | undefined;
  let clogged = false;
  let ended = false;
  /** All of it was given to the other end. */
  let done = false;
  let stopped = false;

  to.on('drain', () => {
    clogged = false;
    deliver();
  });
  from.on('end', () => {
    ended = true;
    deliver();
  });
  to.on('close', () => {
    clearTimeout(timer);
    queue.length = 0;
    waiting = 0;
    if (!done) from.destroy();
  });

  function deliver(): void {
    clearTimeout(timer);
    timer = undefined;
    while (!stopped && !clogged) {
      const next = queue[0];
      if (!next) {
        if (ended && !done) {
          done = true;
          to.end();
        }
        break;
      }
      // Timers are early by up to a millisecond.
      const dueInMs = next.outMs - performance.now();
      if (dueInMs > 1) {
        timer = setTimeout(deliver, dueInMs);
        break;
      }
      queue.shift();
      waiting -= next.bytes.length;
      clogged = !to.write(next.bytes);
    }
    if (stopped) return;
    if (waiting >= UNDER_WAY_BYTES_MAX || (clogged && waiting > 0)) from.pause();
    else if (from.isPaused()) from.resume();
  }

  return {
    get waiting() {
      return waiting;
    },
    take(chunk, atOnce) {
      if (stopped) return;
      if (atOnce && queue.length === 0 && !clogged) {
        clogged = !to.write(chunk);
        if (clogged) from.pause();
        return;
      }
      for (let at = 0; at < chunk.length; at += SEGMENT_BYTES) {
        const part = chunk.subarray(at, at + SEGMENT_BYTES);
        lastOutMs = send(part.length, lastOutMs);
        queue.push({ bytes: part, outMs: lastOutMs });
      }
      waiting += chunk.length;
      deliver();
    },
    stop() {
      stopped = true;
      clearTimeout(timer);
      from.pause();
    },
  };
}
