/**
 * Serves the gateway's state on the box: HTTP over a Unix socket in its data folder, which only its user (and root) may open,
 * and `/metrics` on a loopback port where one is configured. Nothing is written for it, so it wears no flash.
 *
 *   GET /status    GatewayState as JSON          socket
 *   GET /metrics   Prometheus text               socket, loopback port
 *   POST /sent     sent-request.ts; 204 once it is on the disk, 507 when the disk refuses    socket
 *
 * Trouble with either is logged and the gateway goes on (R).
 */
import { rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import type { LogRun } from '../log/disk-buffer.ts';
import { asMetrics } from './metrics.ts';
import { parseRuns, SENT_BODY_BYTES_MAX, SENT_PATH } from './sent-request.ts';
import { statusSocket } from './socket-path.ts';
import type { GatewayState } from './state.ts';

export interface StatusServer {
  /** Of the loopback listener, once it listens; null without one. */
  readonly metricsPort: number | null;
  close(): Promise<void>;
}

/** Connections at a time, per listener; more are refused. */
const CONNECTIONS_MAX = 16;
const REQUEST_TIMEOUT_MS = 10_000;
const OWNER_ONLY = 0o177;

export async function startStatusServer(options: {
  dataDirectory: string;
  /** Null: none. 0: a free one. */
  metricsPort: number | null;
  state: () => GatewayState;
  /** Counts the runs as sent. @returns whether that is on the disk */
  markSent: (runs: readonly LogRun[]) => Promise<boolean>;
  logger: Logger;
}): Promise<StatusServer> {
  const { state, logger } = options;
  const releases: (() => Promise<void>)[] = [];
  let metricsPort: number | null = null;

  await listenOnSocket().catch(error =>
    logger.warn({ err: error }, 'no status socket: `holdfast edge status` shows only what is on the disk'),
  );
  if (options.metricsPort !== null) {
    await listenOnPort(options.metricsPort).catch(error =>
      logger.warn({ err: error }, 'no metrics on HOLDFAST_METRICS_PORT'),
    );
  }

  async function listenOnSocket(): Promise<void> {
    const socket = statusSocket(options.dataDirectory);
    const server = serverOf(
      {
        '/status': () => ['application/json', JSON.stringify(state())],
        '/metrics': () => ['text/plain; version=0.0.4', asMetrics(state())],
      },
      { [SENT_PATH]: takeSent },
    );
    try {
      // Whoever held it is gone: the data folder is locked by us.
      rmSync(socket.path, { force: true });
      await listening(server, () => {
        // The socket must not be open to others for a moment; it is made within this call.
        const umask = process.umask(OWNER_ONLY);
        server.listen(socket.path);
        process.umask(umask);
      });
    } catch (error) {
      socket.release();
      throw error;
    }
    releases.push(async () => {
      await closed(server);
      socket.release();
    });
  }

  async function takeSent(body: string): Promise<[status: number, reason: string]> {
    const runs = parseRuns(body);
    if (!runs) return [400, 'a line LOG FROM TO for each run'];
    if (!(await options.markSent(runs))) return [507, 'its disk does not take the mark'];
    logger.info({ runs: runs.length }, 'exported: counts as sent');
    return [204, ''];
  }

  async function listenOnPort(port: number): Promise<void> {
    const server = serverOf({ '/metrics': () => ['text/plain; version=0.0.4', asMetrics(state())] });
    await listening(server, () => server.listen(port, '127.0.0.1'));
    const address = server.address();
    if (typeof address === 'object' && address) metricsPort = address.port;
    releases.push(() => closed(server));
  }

  return {
    metricsPort,
    async close() {
      for (const release of releases.splice(0).reverse()) await release();
    },
  };
}

type Action = (body: string) => Promise<[status: number, reason: string]>;

function serverOf(
  pages: Readonly<Record<string, () => [contentType: string, body: string]>>,
  actions: Readonly<Record<string, Action>> = {},
): Server {
  const server = createServer((request, response) => {
    if (request.method === 'POST' && Object.hasOwn(actions, request.url ?? '')) {
      void act(actions[request.url!]!, request, response);
      return;
    }
    const page = request.method === 'GET' && Object.hasOwn(pages, request.url ?? '') && pages[request.url!];
    if (!page) {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('GET /status or /metrics\n');
      return;
    }
    const [contentType, body] = page();
    response.writeHead(200, { 'content-type': contentType, connection: 'close' }).end(body);
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.unref();
  return server;
}

/** A body that is too long, or does not come, ends the connection. */
async function act(action: Action, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const head = { 'content-type': 'text/plain', connection: 'close' };
  try {
    let body = '';
    for await (const piece of request.setEncoding('utf8')) {
      body += piece;
      if (body.length > SENT_BODY_BYTES_MAX) {
        response.writeHead(413, head).end('too long\n');
        return;
      }
    }
    const [status, reason] = await action(body);
    response.writeHead(status, head).end(reason);
  } catch {
    response.destroy();
  }
}

function listening(server: Server, listen: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      server.on('error', () => {});
      resolve();
    });
    listen();
  });
}

function closed(server: Server): Promise<void> {
  return new Promise(resolve => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
