/**
 * A dashboard for tests: holds the twins of its scopes as told over `/push`, connects again for ever, and notes every
 * breach of the promise: a gap between versions, or a metric that goes back in time (invariants C, D).
 *
 * As the protocol asks of every client, it ignores what is older than what it holds.
 */
export interface SeenMetric {
  readonly value: unknown;
  readonly at: number;
}

export interface SeenTwin {
  epoch: number;
  version: number;
  metrics: Record<string, SeenMetric>;
  alerts: Record<string, unknown>;
}

export interface SnapshotPart {
  readonly scope: string;
  readonly part: number;
  readonly parts: number;
  readonly twins: number;
}

export interface Watcher {
  /** By `site/device`, of the present connection. */
  readonly twins: ReadonlyMap<string, SeenTwin>;
  /** One line per breach; empty when all is well. */
  readonly breaches: readonly string[];
  readonly snapshots: readonly SnapshotPart[];
  /** Changes applied. */
  readonly updates: number;
  readonly connections: number;
  readonly errors: readonly { code: string; detail: string }[];
  /** Every change of alerts, in order. */
  readonly alertChanges: readonly { twin: string; alerts: Record<string, unknown> }[];
  /** Sends any text as it is. */
  send(text: string): void;
  close(): void;
}

type Frame =
  | {
      type: 'snapshot';
      scope: string;
      part: number;
      parts: number;
      twins: (SeenTwin & { site: string; device: string })[];
    }
  | {
      type: 'update';
      site: string;
      twins: {
        device: string;
        epoch: number;
        since: number;
        version: number;
        metrics: Record<string, SeenMetric>;
        alerts?: Record<string, unknown>;
      }[];
    }
  | { type: 'incidents'; site: string }
  | { type: 'error'; code: string; detail: string };

const CONNECT_AGAIN_MS = 100;

/** Resolves when the first connection is open and asked for. */
export async function openWatcher(options: {
  url: string;
  sites?: readonly string[];
  twins?: readonly string[];
}): Promise<Watcher> {
  const { sites = [], twins: wantedTwins = [] } = options;
  const url = `${options.url.replace('http', 'ws')}/push`;
  let twins = new Map<string, SeenTwin>();
  /** The newest time ever shown per metric, over all connections. */
  const shown = new Map<string, number>();
  const breaches: string[] = [];
  const snapshots: SnapshotPart[] = [];
  const errors: { code: string; detail: string }[] = [];
  const alertChanges: { twin: string; alerts: Record<string, unknown> }[] = [];
  let updates = 0;
  let connections = 0;
  let closed = false;
  let socket: WebSocket;
  const first = Promise.withResolvers<void>();
  connect();

  function connect(): void {
    socket = new WebSocket(url);
    socket.addEventListener('open', () => {
      connections++;
      twins = new Map();
      subscribe();
      first.resolve();
    });
    socket.addEventListener('message', event => receive(JSON.parse(String(event.data)) as Frame));
    // A connection that is refused ends with `error` alone, one that was open with `close`, or with both.
    let over = false;
    const again = () => {
      if (over || closed) return;
      over = true;
      setTimeout(connect, CONNECT_AGAIN_MS);
    };
    socket.addEventListener('close', again);
    socket.addEventListener('error', again);
  }

  function subscribe(): void {
    socket.send(JSON.stringify({ type: 'subscribe', sites, twins: wantedTwins }));
  }

  function receive(frame: Frame): void {
    // What it tells is asked for over HTTP by those tests that look at it.
    if (frame.type === 'incidents') return;
    if (frame.type === 'error') {
      errors.push(frame);
      if (frame.code === 'unavailable')
        setTimeout(() => socket.readyState === 1 && subscribe(), CONNECT_AGAIN_MS);
      return;
    }
    if (frame.type === 'snapshot') {
      snapshots.push({ scope: frame.scope, part: frame.part, parts: frame.parts, twins: frame.twins.length });
      for (const twin of frame.twins) {
        const name = `${twin.site}/${twin.device}`;
        const held = twins.get(name);
        if (held && (twin.epoch < held.epoch || (twin.epoch === held.epoch && twin.version < held.version)))
          continue;
        show(name, twin.metrics);
        twins.set(name, twin);
      }
      return;
    }
    for (const change of frame.twins) {
      const name = `${frame.site}/${change.device}`;
      const held = twins.get(name);
      if (
        held &&
        (change.epoch < held.epoch || (change.epoch === held.epoch && change.version <= held.version))
      )
        continue;
      if (change.since !== (held?.version ?? 0)) {
        breaches.push(
          `${name}: update from ${change.since} to ${change.version}, held ${held?.version ?? 'nothing'}`,
        );
      }
      show(name, change.metrics);
      updates++;
      if (change.alerts) alertChanges.push({ twin: name, alerts: change.alerts });
      twins.set(name, {
        epoch: change.epoch,
        version: change.version,
        metrics: { ...held?.metrics, ...change.metrics },
        alerts: change.alerts ?? held?.alerts ?? {},
      });
    }
  }

  function show(name: string, metrics: Record<string, SeenMetric>): void {
    for (const [metric, { at }] of Object.entries(metrics)) {
      const key = `${name} ${metric}`;
      const before = shown.get(key) ?? Number.NEGATIVE_INFINITY;
      if (at < before) breaches.push(`${key}: went back from ${before} to ${at}`);
      else shown.set(key, at);
    }
  }

  await first.promise;
  return {
    get twins() {
      return twins;
    },
    breaches,
    snapshots,
    get updates() {
      return updates;
    },
    get connections() {
      return connections;
    },
    errors,
    alertChanges,
    send: text => socket.send(text),
    close() {
      closed = true;
      socket.close();
    },
  };
}
