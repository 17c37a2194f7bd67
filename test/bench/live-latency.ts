/**
 * A dashboard with a stopwatch: how old each update of a site is when it arrives. The devices' timestamps are the
 * planned times of publishing on this machine's own clock, so the age counts everything from device to dashboard.
 */
export interface LiveLatency {
  /** Starts a new window. @returns the ages of the one that ends, milliseconds, in no order */
  take(): number[];
  /** Resolves with the wall clock when an update with a timestamp from `sinceMs` on arrives. */
  firstAfter(sinceMs: number): Promise<number>;
  close(): void;
}

interface Update {
  readonly type: string;
  readonly twins?: readonly { readonly metrics: Readonly<Record<string, { readonly at: number }>> }[];
}

export async function openLiveLatency(url: string, site: string): Promise<LiveLatency> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/push`);
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener('open', () => resolve(), { once: true });
    socket.addEventListener('error', () => reject(new Error(`${url} does not answer`)), { once: true });
  });
  let ages: number[] = [];
  let waiting: { sinceMs: number; resolve: (at: number) => void } | null = null;
  socket.addEventListener('message', event => {
    const now = Date.now();
    const message = JSON.parse(String(event.data)) as Update;
    if (message.type !== 'update') return;
    for (const { metrics } of message.twins ?? []) {
      let newest = 0;
      for (const name in metrics) newest = Math.max(newest, metrics[name]!.at);
      ages.push(now - newest);
      if (waiting && newest >= waiting.sinceMs) {
        waiting.resolve(now);
        waiting = null;
      }
    }
  });
  socket.send(JSON.stringify({ type: 'subscribe', sites: [site] }));
  return {
    take() {
      const taken = ages;
      ages = [];
      return taken;
    },
    firstAfter: sinceMs =>
      new Promise(resolve => {
        waiting = { sinceMs, resolve };
      }),
    close: () => socket.close(),
  };
}

/** @returns the value below which `share` of the values lie; NaN when there are none */
export function percentile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
