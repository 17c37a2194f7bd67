/**
 * The WebSocket side of push: clients, their subscriptions, and the site feeds they need.
 *
 *   subscribe ─▶ feed open ─▶ loading: tap messages, read snapshot ─▶ send snapshot, tapped messages ─▶ on topic
 *
 * Tapping before reading and joining the topic in the same turn as the last tapped message is sent is what leaves no
 * gap. Invariants: C, D (feed), F (bytes waiting per client, subscriptions, message size and rate are bounded: a
 * client beyond them is closed with a code that says so), H (one client never hurts another).
 */

import type { TemplatedApp, WebSocket } from 'uWebSockets.js';
import type { NatsConnection } from '@nats-io/transport-node';
import type { Logger } from 'pino';
import type { SiteId } from '../../protocol/ids.ts';
import type { LiveState } from '../live-state.ts';
import { ClientMessage, errorMessage, PONG, type Scope, snapshotMessage } from './messages.ts';
import { openSiteFeed, type SiteFeed } from './site-feed.ts';

interface Client {
  /** Release of each subscription; null while it is loading. */
  readonly scopes: Map<Scope, (() => void) | null>;
  closed: boolean;
  onDrain: (() => void) | null;
  messagesThisSecond: number;
  second: number;
}

export const pushLimits = {
  /** A client with this much unsent is closed with 1013: it reads too slowly. It reconnects to a fresh snapshot. */
  backpressureBytesMax: 8 * 1024 * 1024,
  subscriptionsPerClientMax: 10_000,
  messageBytesMax: 64 * 1024,
  messagesPerSecondMax: 100,
  /** Messages held for a client whose snapshot is being read; beyond it the snapshot starts again. */
  tappedBytesMax: 4 * 1024 * 1024,
  clientsMax: 20_000,
} as const;

const SNAPSHOT_PART = 250;
const CLOSE_TOO_MANY = 1008;
const CLOSE_TRY_LATER = 1013;

export interface PushNode {
  readonly clients: number;
  readonly messagesSent: number;
  /** The bus was cut and is back: what was lost on it is read again. */
  resync(): void;
  close(): void;
}

export function openPushNode(options: {
  app: TemplatedApp;
  path: string;
  nats: NatsConnection;
  live: LiveState;
  logger: Logger;
}): PushNode {
  const { app, nats, live, logger } = options;
  const feeds = new Map<string, { feed: Promise<SiteFeed>; users: number }>();
  const sockets = new Set<WebSocket<Client>>();
  let messagesSent = 0;

  app.ws<Client>(options.path, {
    maxPayloadLength: pushLimits.messageBytesMax,
    maxBackpressure: pushLimits.backpressureBytesMax,
    closeOnBackpressureLimit: true,
    idleTimeout: 60,
    sendPingsAutomatically: true,
    upgrade(response, request, context) {
      if (!sameOrigin(request.getHeader('origin'), request.getHeader('host'))) {
        response.writeStatus('403 Forbidden').end('this origin may not open a push connection');
        return;
      }
      if (sockets.size >= pushLimits.clientsMax) {
        response.writeStatus('503 Service Unavailable').end('too many push clients');
        return;
      }
      const client: Client = {
        scopes: new Map(),
        closed: false,
        onDrain: null,
        messagesThisSecond: 0,
        second: 0,
      };
      response.upgrade(
        client,
        request.getHeader('sec-websocket-key'),
        request.getHeader('sec-websocket-protocol'),
        request.getHeader('sec-websocket-extensions'),
        context,
      );
    },
    open: socket => void sockets.add(socket),
    message(socket, data) {
      const client = socket.getUserData();
      if (tooFast(client)) return socket.end(CLOSE_TOO_MANY, 'too many messages per second');
      const parsed = parse(Buffer.from(data).toString());
      if (typeof parsed === 'string') return void socket.send(errorMessage('bad-message', parsed));
      if (parsed.type === 'ping') return void socket.send(PONG);
      for (const [scope, site, device] of scopesOf(parsed)) {
        if (parsed.type === 'unsubscribe') leave(socket, scope);
        else void join(socket, scope, site, device);
      }
    },
    drain: socket => socket.getUserData().onDrain?.(),
    close(socket) {
      const client = socket.getUserData();
      client.closed = true;
      client.onDrain?.();
      sockets.delete(socket);
      for (const release of client.scopes.values()) release?.();
      client.scopes.clear();
    },
  });

  async function join(
    socket: WebSocket<Client>,
    scope: Scope,
    site: SiteId,
    device: string | null,
  ): Promise<void> {
    const client = socket.getUserData();
    if (client.scopes.get(scope) === null) return; // loading already
    if (client.scopes.size >= pushLimits.subscriptionsPerClientMax) {
      return void socket.send(
        errorMessage('too-many-subscriptions', `at most ${pushLimits.subscriptionsPerClientMax}`),
      );
    }
    leave(socket, scope);
    client.scopes.set(scope, null);
    const { feed, release } = openFeed(site);
    try {
      await load(socket, scope, await feed, device);
    } catch (error) {
      release();
      client.scopes.delete(scope);
      logger.debug({ scope, reason: (error as Error).message }, 'push: snapshot failed');
      if (!client.closed)
        socket.send(errorMessage('unavailable', `no snapshot of ${scope} now, subscribe again`));
      return;
    }
    const unwatch = device === null ? () => {} : (await feed).watchTwin(device);
    const done = () => {
      unwatch();
      release();
    };
    if (client.closed || !client.scopes.has(scope)) done();
    else client.scopes.set(scope, done);
  }

  /** Sends the snapshot and what happened meanwhile, and joins the topic, without a gap. */
  async function load(
    socket: WebSocket<Client>,
    scope: Scope,
    feed: SiteFeed,
    device: string | null,
  ): Promise<void> {
    const client = socket.getUserData();
    const tapped: string[] = [];
    let bytes = 0;
    const unwatch = device === null ? () => {} : feed.watchTwin(device);
    const untap = feed.tap((of, message) => {
      if (of !== device) return;
      bytes += message.length;
      if (bytes <= pushLimits.tappedBytesMax) tapped.push(message);
    });
    try {
      const twins = await feed.snapshot(device === null ? 'all' : [device]);
      const parts = Math.max(1, Math.ceil(twins.length / SNAPSHOT_PART));
      for (let part = 0; part < parts; part++) {
        if (client.closed || !client.scopes.has(scope)) return;
        socket.send(
          snapshotMessage(
            scope,
            twins.slice(part * SNAPSHOT_PART, (part + 1) * SNAPSHOT_PART),
            part + 1,
            parts,
          ),
        );
        messagesSent++;
        await drained(socket);
      }
      if (client.closed || !client.scopes.has(scope)) return;
      if (bytes > pushLimits.tappedBytesMax) throw new Error('too much happened while the snapshot was sent');
      for (const message of tapped) socket.send(message);
      socket.subscribe(scope);
    } finally {
      untap();
      unwatch();
    }
  }

  function leave(socket: WebSocket<Client>, scope: Scope): void {
    const client = socket.getUserData();
    client.scopes.get(scope)?.();
    if (client.scopes.delete(scope)) socket.unsubscribe(scope);
  }

  function openFeed(site: SiteId): { feed: Promise<SiteFeed>; release: () => void } {
    let entry = feeds.get(site);
    if (!entry) {
      const publish = (scope: Scope, message: string) => {
        if (app.publish(scope, message)) messagesSent++;
      };
      entry = { feed: openSiteFeed({ site, nats, live, logger, publish }), users: 0 };
      entry.feed.catch(() => feeds.delete(site));
      feeds.set(site, entry);
    }
    const { feed } = entry;
    entry.users++;
    let released = false;
    return {
      feed,
      release: () => {
        if (released) return;
        released = true;
        entry.users--;
        if (entry.users > 0) return;
        if (feeds.get(site) === entry) feeds.delete(site);
        void feed.then(
          open => open.close(),
          () => {},
        );
      },
    };
  }

  return {
    get clients() {
      return sockets.size;
    },
    get messagesSent() {
      return messagesSent;
    },
    resync() {
      for (const { feed } of feeds.values()) {
        feed.then(
          open => open.resync(),
          () => {},
        );
      }
    },
    close() {
      for (const socket of sockets) socket.end(CLOSE_TRY_LATER, 'the server is stopping');
    },
  };
}

/** Resolves when little of what was sent to the client is still waiting here, or the client is gone. */
function drained(socket: WebSocket<Client>): Promise<void> {
  const client = socket.getUserData();
  if (client.closed || socket.getBufferedAmount() < 256 * 1024) return Promise.resolve();
  return new Promise(resolve => {
    const before = client.onDrain;
    client.onDrain = () => {
      if (!client.closed && socket.getBufferedAmount() >= 256 * 1024) return;
      client.onDrain = before;
      before?.();
      resolve();
    };
  });
}

function tooFast(client: Client): boolean {
  const second = Math.floor(performance.now() / 1000);
  if (client.second !== second) {
    client.second = second;
    client.messagesThisSecond = 0;
  }
  client.messagesThisSecond++;
  return client.messagesThisSecond > pushLimits.messagesPerSecondMax;
}

/** @returns the message, or what is wrong with it. */
function parse(text: string): ClientMessage | string {
  try {
    const parsed = ClientMessage.safeParse(JSON.parse(text));
    return parsed.success
      ? parsed.data
      : parsed.error.issues.map(issue => `${issue.path.join('.')}: ${issue.message}`).join('; ');
  } catch {
    return 'not JSON';
  }
}

function* scopesOf(
  message: Exclude<ClientMessage, { type: 'ping' }>,
): Iterable<[Scope, SiteId, string | null]> {
  for (const site of message.sites) yield [`site:${site}`, site, null];
  for (const twin of message.twins) {
    const slash = twin.indexOf('/');
    yield [`twin:${twin}`, twin.slice(0, slash) as SiteId, twin.slice(slash + 1)];
  }
}

/** Browsers send `Origin`: it must be the page's own host. Other clients send none. */
function sameOrigin(origin: string, host: string): boolean {
  if (origin === '') return true;
  try {
    return new URL(origin).host === host;
  } catch {
    return false;
  }
}
