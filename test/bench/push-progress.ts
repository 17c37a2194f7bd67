/**
 * A dashboard that counts: hears what a subject pushes and knows how far the fleet has come.
 *
 * Updates may carry only the newest state of a device (Holdfast conflates under load), so what is counted is not
 * updates but timestamps: a round is pushed when every device's last timestamp of the round has been seen.
 */
import type { Prepared } from './mqtt-load.ts';

const INTERVAL_MS = 1000;

export interface PushProgress {
  /** Waits for these timestamps from now on. `onProgress` is told how many messages of the round dashboards are past. */
  expect(round: Prepared, onProgress: (messages: number) => void): Promise<void>;
  /** Updates of single devices so far. */
  readonly updates: number;
  close(): void;
}

/** One update of one device: its site's index, its name, the newest timestamp. */
export type ReadUpdate = (text: string, update: (site: number, device: string, ts: number) => void) => void;

export async function openPushProgress(options: {
  readonly url: string;
  /** Sent first, if any. */
  readonly subscribe: string | null;
  readonly read: ReadUpdate;
}): Promise<PushProgress> {
  let updates = 0;
  let round: Round | null = null;
  const socket = new WebSocket(options.url);
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener('open', () => resolve(), { once: true });
    socket.addEventListener('error', () => reject(new Error(`${options.url} does not answer`)), {
      once: true,
    });
  });
  let closing = false;
  socket.addEventListener('close', event => {
    if (!closing) round?.fail(new Error(`push connection closed: ${event.code} ${event.reason}`));
  });
  socket.addEventListener('message', event => {
    options.read(String(event.data), (site, device, ts) => {
      updates++;
      round?.saw(site, device, ts);
    });
    round?.tell();
  });
  if (options.subscribe) socket.send(options.subscribe);

  return {
    get updates() {
      return updates;
    },
    expect(prepared, onProgress) {
      return new Promise((resolve, reject) => {
        round = newRound(prepared, onProgress, resolve, reject);
      });
    },
    close() {
      closing = true;
      socket.close();
    },
  };
}

interface Round {
  saw(site: number, device: string, ts: number): void;
  tell(): void;
  fail(error: Error): void;
}

function newRound(
  prepared: Prepared,
  onProgress: (messages: number) => void,
  done: () => void,
  fail: (error: Error) => void,
): Round {
  const { fromMs, toMs } = prepared;
  const seen = prepared.lastTs.map(devices => new Map(Object.keys(devices).map(device => [device, fromMs])));
  let left = seen.reduce((sum, devices) => sum + devices.size, 0);
  let intervals = 0;
  let told = 0;
  return {
    saw(site, device, ts) {
      const before = seen[site]?.get(device);
      if (before === undefined || ts <= before || ts >= toMs) return;
      seen[site]!.set(device, ts);
      intervals += (ts - before) / INTERVAL_MS;
      if (ts === prepared.lastTs[site]![device]) left--;
    },
    tell() {
      const messages = Math.floor(intervals);
      if (messages !== told) onProgress(messages);
      told = messages;
      if (left === 0) done();
    },
    fail,
  };
}
