/**
 * A dashboard without a screen: subscribes to the sites as the page does and measures the time from a device's own
 * clock to here. Device, cloud and probe share this machine's clock.
 */
import { setTimeout as sleep } from 'node:timers/promises';

interface UpdateMessage {
  readonly type: string;
  readonly twins: readonly { readonly metrics: Readonly<Record<string, { readonly at: number }>> }[];
}

export interface Percentiles {
  readonly p50: number | null;
  readonly p99: number | null;
}

export interface Probe {
  /** Twin updates received. */
  readonly pushed: number;
  /** Over the whole run, milliseconds. */
  total(): Percentiles;
  /** Over the last `LATEST_KEPT` updates. */
  latest(): Percentiles;
  close(): void;
}

/** The metric that every simulated device sends with each message, and the replay does not. */
const LIVE_METRIC = 'counter';
const LATEST_KEPT = 2000;
/** Histogram of whole milliseconds; what is slower counts as the last one. */
const SLOWEST_MS = 60_000;

export function startProbe(url: string, sites: readonly string[]): Probe {
  const histogram = new Uint32Array(SLOWEST_MS + 1);
  const latest: number[] = [];
  let pushed = 0;
  let closed = false;
  let socket: WebSocket | undefined;

  function receive(text: string): void {
    const message = JSON.parse(text) as UpdateMessage;
    if (message.type !== 'update') return;
    const now = Date.now();
    for (const twin of message.twins) {
      pushed++;
      const live = twin.metrics[LIVE_METRIC];
      if (!live) continue;
      const ms = Math.max(0, now - live.at);
      const slot = Math.min(SLOWEST_MS, Math.round(ms));
      histogram[slot] = histogram[slot]! + 1;
      latest.push(ms);
      if (latest.length > LATEST_KEPT) latest.shift();
    }
  }

  function connect(): void {
    const opening = new WebSocket(`${url.replace(/^http/, 'ws')}/push`);
    socket = opening;
    opening.onopen = () => opening.send(JSON.stringify({ type: 'subscribe', sites }));
    opening.onmessage = event => receive(String(event.data));
    opening.onclose = () => {
      if (!closed) void sleep(500).then(connect);
    };
    opening.onerror = () => {};
  }
  connect();

  return {
    get pushed() {
      return pushed;
    },
    total() {
      const count = histogram.reduce((sum, n) => sum + n, 0);
      const at = (share: number): number | null => {
        if (count === 0) return null;
        let seen = 0;
        return histogram.findIndex(n => {
          seen += n;
          return seen >= share * count;
        });
      };
      return { p50: at(0.5), p99: at(0.99) };
    },
    latest() {
      const sorted = [...latest].sort((a, b) => a - b);
      const at = (share: number) =>
        sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? null;
      return { p50: at(0.5), p99: at(0.99) };
    },
    close() {
      closed = true;
      socket?.close();
    },
  };
}
