/**
 * A dashboard with a stopwatch for many sites at once: for how long each one stood still, and how late the latest of all
 * readings was shown. Devices publish at a known interval, so the reading after the one that was shown last is known to
 * be due, even when what arrives in the end is a newer one.
 */
export interface FreshnessWindow {
  /** Longest time without a fresh value, by site, milliseconds. */
  readonly silenceMs: Readonly<Record<string, number>>;
  /** From the time of a reading to when it, or a newer one of its device, was shown. */
  readonly delayMaxMs: number;
}

export interface Freshness {
  /** Starts a new window. */
  take(): FreshnessWindow;
  /** Resolves with the wall clock at which the site shows a value from `sinceMs` on that is no older than {@link LIVE_MS}. */
  liveAgain(site: string, sinceMs: number): Promise<number>;
  close(): void;
}

/** Not a value of a backlog that is being worked off. */
export const LIVE_MS = 500;

interface Twin {
  readonly site?: string;
  readonly device: string;
  readonly metrics: Readonly<Record<string, { readonly at: number }>>;
}

export async function openFreshness(options: {
  readonly url: string;
  readonly sites: readonly string[];
  /** In which each device publishes once. */
  readonly intervalMs: number;
}): Promise<Freshness> {
  const { sites, intervalMs } = options;
  const socket = new WebSocket(`${options.url.replace('http', 'ws')}/push`);
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener('open', () => resolve(), { once: true });
    socket.addEventListener('error', () => reject(new Error(`${options.url} does not answer`)), {
      once: true,
    });
  });
  const newest = new Map<string, number>();
  const lastAt = new Map<string, number>();
  let silence = new Map<string, number>();
  let delayMaxMs = 0;
  let waiting: { site: string; sinceMs: number; resolve: (at: number) => void }[] = [];

  socket.addEventListener('message', event => {
    const now = Date.now();
    const message = JSON.parse(String(event.data)) as { site?: string; twins?: readonly Twin[] };
    for (const twin of message.twins ?? []) {
      const site = message.site ?? twin.site ?? '';
      const name = `${site}/${twin.device}`;
      let at = 0;
      for (const metric in twin.metrics) at = Math.max(at, twin.metrics[metric]!.at);
      const before = newest.get(name);
      if (before !== undefined && at <= before) continue;
      newest.set(name, at);
      noteSilence(site, now);
      lastAt.set(site, now);
      if (before !== undefined) delayMaxMs = Math.max(delayMaxMs, now - Math.min(at, before + intervalMs));
      if (waiting.length === 0 || now - at > LIVE_MS) continue;
      for (const entry of waiting) if (entry.site === site && at >= entry.sinceMs) entry.resolve(now);
      waiting = waiting.filter(entry => entry.site !== site || at < entry.sinceMs);
    }
  });

  function noteSilence(site: string, now: number): void {
    silence.set(site, Math.max(silence.get(site) ?? 0, now - (lastAt.get(site) ?? now)));
  }

  socket.send(JSON.stringify({ type: 'subscribe', sites }));
  return {
    take() {
      const now = Date.now();
      for (const site of sites) noteSilence(site, now);
      const taken = { silenceMs: Object.fromEntries(silence), delayMaxMs };
      silence = new Map();
      delayMaxMs = 0;
      return taken;
    },
    liveAgain: (site, sinceMs) =>
      new Promise(resolve => {
        waiting.push({ site, sinceMs, resolve });
      }),
    close: () => socket.close(),
  };
}
