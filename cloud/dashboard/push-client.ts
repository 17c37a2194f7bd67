/**
 * The WebSocket's life: one connection, always wanted while started, whatever happens to it.
 *
 *   stopped ──start──▶ connecting ──open──▶ open
 *                          │  ▲               │ close, error, silence
 *                 close,   │  │ timer,        │
 *                 timeout  ▼  │ retryNow      ▼
 *                         waiting ◀───────────┘          stop: any phase ▶ stopped
 *
 * Timers and sockets hang on the phase that owns them. The delay before a retry is decided in `retryDelayMs` alone.
 * What is wanted (sites, twins) outlives connections and is asked for again at every opening: the server answers with
 * snapshots, so nothing that happened during a cut is missed. Silence is checked, because a half-open connection tells
 * nobody that it is dead: after `silenceMs` a ping goes out, and any frame at all counts as its answer.
 */

export type Wanted = { readonly sites: readonly string[]; readonly twins: readonly string[] };

/** What the page shows of the link; times in milliseconds since 1970. */
export type LinkStatus =
  | { readonly phase: 'stopped' }
  | { readonly phase: 'connecting'; readonly attempt: number; readonly downSince: number }
  | { readonly phase: 'open'; readonly since: number }
  | {
      readonly phase: 'waiting';
      readonly attempt: number;
      readonly downSince: number;
      readonly retryAt: number;
      readonly reason: string;
    };

type Timer = ReturnType<typeof setTimeout>;
type Phase =
  | { readonly phase: 'stopped' }
  | {
      readonly phase: 'connecting';
      readonly attempt: number;
      readonly downSince: number;
      socket: WebSocket;
      timer: Timer;
    }
  | { readonly phase: 'open'; readonly since: number; socket: WebSocket; timer: Timer; lastFrameAt: number }
  | {
      readonly phase: 'waiting';
      readonly attempt: number;
      readonly downSince: number;
      readonly retryAt: number;
      readonly reason: string;
      timer: Timer;
    };

export type PushClientOptions = {
  readonly url: string;
  readonly onFrame: (text: string) => void;
  readonly onStatus: (status: LinkStatus) => void;
  readonly connectTimeoutMs?: number;
  readonly silenceMs?: number;
  readonly delayFor?: (attempt: number, random: number) => number;
};

export type PushClient = {
  start(): void;
  stop(): void;
  /** Replaces what is wanted; only the difference is sent. */
  want(wanted: Wanted): void;
  /** Asks for fresh snapshots of twins whose updates did not follow on each other. */
  resync(keys: readonly string[]): void;
  /** The snapshot of a twin came: one that was asked for by `resync` alone is not followed by itself any longer. */
  arrived(key: string): void;
  /** Asks again for what the server could not give just then. */
  askAgain(missing: Wanted): void;
  /** Ends a wait at once: the network came back, or somebody pressed the button. */
  retryNow(): void;
};

/** Full jitter below a doubling ceiling, 0.3 s to 15 s: a thousand pages do not come back in one moment. */
export function retryDelayMs(attempt: number, random: number): number {
  const ceiling = Math.min(15_000, 600 * 2 ** Math.min(attempt, 10));
  return Math.round(300 + random * (ceiling - 300));
}

/** Twins asked for again at one time; beyond it (F) the whole site is cheaper. */
const RESYNC_TWINS_MAX = 20;
/** An unanswered request for a twin is repeated after this long, when its next update shows the gap again. */
const RESYNC_AGAIN_MS = 5_000;
/** Names in one subscribe message, so that it stays far below any limit on message size. */
const NAMES_PER_MESSAGE = 200;

export function createPushClient(options: PushClientOptions): PushClient {
  const { url, onFrame, onStatus, connectTimeoutMs = 8_000, silenceMs = 15_000 } = options;
  const delayFor = options.delayFor ?? retryDelayMs;
  let phase: Phase = { phase: 'stopped' };
  let wanted: Wanted = { sites: [], twins: [] };
  /** Key of a twin, or `site:` and a site → when it was asked for. */
  const asked = new Map<string, number>();

  function enter(next: Phase): void {
    phase = next;
    onStatus(statusOf(next));
  }

  function connect(attempt: number, downSince: number): void {
    const socket = new WebSocket(url);
    const timer = setTimeout(() => lost(socket, 'no answer from the server'), connectTimeoutMs);
    socket.addEventListener('open', () => opened(socket));
    socket.addEventListener('message', event => received(socket, event.data));
    socket.addEventListener('error', () => lost(socket, 'connection failed'));
    socket.addEventListener('close', event => lost(socket, event.reason || 'connection closed'));
    enter({ phase: 'connecting', attempt, downSince, socket, timer });
  }

  function opened(socket: WebSocket): void {
    if (phase.phase !== 'connecting' || phase.socket !== socket) return;
    clearTimeout(phase.timer);
    asked.clear();
    const now = Date.now();
    enter({
      phase: 'open',
      since: now,
      socket,
      lastFrameAt: now,
      timer: setTimeout(checkSilence, silenceMs),
    });
    send('subscribe', wanted);
  }

  function received(socket: WebSocket, data: unknown): void {
    if (phase.phase !== 'open' || phase.socket !== socket) return;
    phase.lastFrameAt = Date.now();
    if (typeof data === 'string') onFrame(data);
  }

  function checkSilence(): void {
    if (phase.phase !== 'open') return;
    const { socket } = phase;
    const silentMs = Date.now() - phase.lastFrameAt;
    if (silentMs >= 2 * silenceMs) {
      lost(socket, 'the server fell silent');
      return;
    }
    if (silentMs >= silenceMs) socket.send('{"type":"ping"}');
    phase.timer = setTimeout(checkSilence, silentMs >= silenceMs ? silenceMs : silenceMs - silentMs);
  }

  function lost(socket: WebSocket, reason: string): void {
    if ((phase.phase !== 'connecting' && phase.phase !== 'open') || phase.socket !== socket) return;
    clearTimeout(phase.timer);
    const now = Date.now();
    const attempt = phase.phase === 'open' ? 0 : phase.attempt + 1;
    const downSince = phase.phase === 'open' ? now : phase.downSince;
    const delayMs = delayFor(attempt, Math.random());
    const timer = setTimeout(retryNow, delayMs);
    enter({ phase: 'waiting', attempt, downSince, retryAt: now + delayMs, reason, timer });
    socket.close();
  }

  function retryNow(): void {
    if (phase.phase !== 'waiting') return;
    clearTimeout(phase.timer);
    connect(phase.attempt, phase.downSince);
  }

  function send(type: 'subscribe' | 'unsubscribe', { sites, twins }: Wanted): void {
    if (phase.phase !== 'open') return;
    for (let i = 0; i < Math.max(sites.length, twins.length); i += NAMES_PER_MESSAGE) {
      const end = i + NAMES_PER_MESSAGE;
      phase.socket.send(JSON.stringify({ type, sites: sites.slice(i, end), twins: twins.slice(i, end) }));
    }
  }

  return {
    start(): void {
      if (phase.phase === 'stopped') connect(0, Date.now());
    },
    stop(): void {
      const { phase: name } = phase;
      if (name === 'stopped') return;
      clearTimeout(phase.timer);
      const socket = name === 'waiting' ? null : phase.socket;
      enter({ phase: 'stopped' });
      socket?.close();
    },
    want(next: Wanted): void {
      const before = wanted;
      wanted = next;
      send('unsubscribe', difference(before, next));
      send('subscribe', difference(next, before));
    },
    resync(keys: readonly string[]): void {
      const now = Date.now();
      const again = (name: string): boolean => now - (asked.get(name) ?? 0) >= RESYNC_AGAIN_MS;
      const watched = new Set(wanted.twins);
      const sites = new Set(wanted.sites);
      const twins = keys.filter(
        key => again(key) && again(`site:${siteOf(key)}`) && (watched.has(key) || sites.has(siteOf(key))),
      );
      if (twins.length === 0) return;
      for (const [name, at] of asked) {
        if (now - at >= RESYNC_AGAIN_MS && name.startsWith('site:')) asked.delete(name);
      }
      const many = asked.size + twins.length > RESYNC_TWINS_MAX && sites.size > 0;
      const request: Wanted = many
        ? { sites: [...new Set(twins.map(siteOf))].filter(site => sites.has(site)), twins: [] }
        : { sites: [], twins };
      for (const site of request.sites) asked.set(`site:${site}`, now);
      for (const key of request.twins) asked.set(key, now);
      send('subscribe', request);
    },
    arrived(key: string): void {
      if (asked.delete(key) && !wanted.twins.includes(key)) send('unsubscribe', { sites: [], twins: [key] });
    },
    askAgain(missing: Wanted): void {
      send('subscribe', {
        sites: missing.sites.filter(site => wanted.sites.includes(site)),
        twins: missing.twins.filter(twin => wanted.twins.includes(twin)),
      });
    },
    retryNow,
  };
}

const siteOf = (key: string): string => key.slice(0, key.indexOf('/'));

const difference = (a: Wanted, b: Wanted): Wanted => ({
  sites: a.sites.filter(site => !b.sites.includes(site)),
  twins: a.twins.filter(twin => !b.twins.includes(twin)),
});

function statusOf(phase: Phase): LinkStatus {
  switch (phase.phase) {
    case 'stopped':
      return { phase: 'stopped' };
    case 'connecting':
      return { phase: 'connecting', attempt: phase.attempt, downSince: phase.downSince };
    case 'open':
      return { phase: 'open', since: phase.since };
    case 'waiting': {
      const { attempt, downSince, retryAt, reason } = phase;
      return { phase: 'waiting', attempt, downSince, retryAt, reason };
    }
  }
}
