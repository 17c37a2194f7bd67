/**
 * A dashboard on one cloud node, written for this check alone: it follows all sites over `/push`, connects again for ever, and
 * notes every twin that goes back (C) and every update under an older epoch than one before it (D). As the protocol asks of every
 * client, it ignores what is older than what it holds, and so a twin that goes back is one that it really showed.
 */
export interface Dashboard {
  /** The highest own counter that it ever showed, by device. */
  readonly counters: ReadonlyMap<string, number>;
  /** One line each. */
  readonly regressions: readonly string[];
  readonly staleUpdates: readonly string[];
  readonly connected: boolean;
  readonly updates: number;
  close(): void;
}

interface Metrics {
  readonly [metric: string]: { readonly value: unknown; readonly at: number };
}
interface Twin {
  readonly device: string;
  readonly epoch: number;
  readonly version: number;
  readonly metrics: Metrics;
}
type Frame =
  | { type: 'snapshot'; twins: (Twin & { site: string })[] }
  | { type: 'update'; site: string; twins: (Twin & { since: number })[] }
  | { type: 'error'; code: string }
  | { type: 'pong' };

const CONNECT_AGAIN_MS = 100;
const ASK_AGAIN_MS = 200;
/** A connection through which nothing comes for so long, not even an answer to a ping, is given up. */
const SILENCE_MS = 3000;
const LINES_MAX = 50;

export function openDashboard(options: {
  name: string;
  url: string;
  sites: readonly string[];
  onNews: () => void;
}): Dashboard {
  const url = `${options.url.replace('http', 'ws')}/push`;
  const counters = new Map<string, number>();
  const regressions: string[] = [];
  const staleUpdates: string[] = [];
  /** The newest time ever shown, by twin and metric, over all connections. */
  const shown = new Map<string, number>();
  let updates = 0;
  let connected = false;
  let closed = false;
  let socket: WebSocket;
  connect();

  function connect(): void {
    const mine = new WebSocket(url);
    socket = mine;
    const held = new Map<string, Twin>();
    /** The highest epoch among the updates of this connection, by twin. */
    const epochs = new Map<string, number>();
    let heardAt = performance.now();
    const subscribe = () =>
      mine.readyState === 1 && mine.send(JSON.stringify({ type: 'subscribe', sites: options.sites }));
    const alive = setInterval(() => {
      if (performance.now() - heardAt > SILENCE_MS) over();
      else if (mine.readyState === 1) mine.send(JSON.stringify({ type: 'ping' }));
    }, SILENCE_MS / 3);
    let isOver = false;
    const over = () => {
      if (isOver) return;
      isOver = true;
      connected = false;
      clearInterval(alive);
      mine.close();
      if (!closed) setTimeout(connect, CONNECT_AGAIN_MS);
    };
    mine.addEventListener('open', () => {
      connected = true;
      subscribe();
    });
    mine.addEventListener('close', over);
    mine.addEventListener('error', over);
    mine.addEventListener('message', event => {
      if (isOver) return;
      heardAt = performance.now();
      const frame = JSON.parse(String(event.data)) as Frame;
      if (frame.type === 'error') setTimeout(subscribe, ASK_AGAIN_MS);
      else if (frame.type === 'snapshot') {
        for (const twin of frame.twins) apply(`${twin.site}/${twin.device}`, twin, held);
      } else if (frame.type === 'update') {
        updates++;
        for (const twin of frame.twins) {
          const name = `${frame.site}/${twin.device}`;
          const highest = epochs.get(name) ?? 0;
          if (twin.epoch < highest) {
            note(staleUpdates, `${options.name}: ${name}, epoch ${twin.epoch} after ${highest}`);
          }
          epochs.set(name, Math.max(highest, twin.epoch));
          apply(name, twin, held);
        }
      }
      options.onNews();
    });
  }

  function apply(name: string, twin: Twin, held: Map<string, Twin>): void {
    const before = held.get(name);
    if (before) {
      if (twin.epoch < before.epoch) return;
      if (twin.epoch === before.epoch && twin.version < before.version) return;
    }
    held.set(name, twin);
    for (const [metric, { value, at }] of Object.entries(twin.metrics)) {
      const key = `${name} ${metric}`;
      const last = shown.get(key) ?? Number.NEGATIVE_INFINITY;
      if (at < last) {
        note(regressions, `${options.name}: ${key} went from ${stamp(last)} back to ${stamp(at)}`);
      } else shown.set(key, at);
      if (metric === 'n' && typeof value === 'number') {
        counters.set(name, Math.max(counters.get(name) ?? 0, value));
      }
    }
  }

  return {
    counters,
    regressions,
    staleUpdates,
    get connected() {
      return connected;
    },
    get updates() {
      return updates;
    },
    close() {
      closed = true;
      socket.close();
    },
  };
}

/** Lines beyond the bound are counted by the one who reads the length, so the last one is kept too. */
function note(lines: string[], line: string): void {
  if (lines.length < LINES_MAX) lines.push(line);
  else lines[LINES_MAX - 1] = line;
}

const stamp = (at: number): string => (Number.isFinite(at) ? new Date(at).toISOString().slice(11, 23) : '-');
