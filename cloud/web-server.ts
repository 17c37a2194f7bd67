/** The node's one HTTP port: dashboard files, API routes, push. */
import {
  App,
  type TemplatedApp,
  type us_listen_socket,
  us_listen_socket_close,
  us_socket_local_port,
} from 'uWebSockets.js';
import { contentSecurityPolicy, type DashboardAsset } from './dashboard-assets.ts';

/** uWebSockets declares it as a type only. */
const LIBUS_LISTEN_EXCLUSIVE_PORT = 1;

export type ListenOutcome =
  | { readonly outcome: 'listening'; readonly port: number; close(): void }
  | { readonly outcome: 'refused'; readonly reason: string };

export const newApp = (): TemplatedApp => App();

export function serveDashboard(app: TemplatedApp, assets: ReadonlyMap<string, DashboardAsset>): void {
  const policy = contentSecurityPolicy(assets.get('/')!);
  for (const [path, { type, body, etag }] of assets) {
    app.get(path, (response, request) => {
      if (request.getHeader('if-none-match') === etag) {
        response.writeStatus('304 Not Modified').endWithoutBody();
        return;
      }
      response
        .writeHeader('content-type', type)
        .writeHeader('etag', etag)
        .writeHeader('cache-control', 'no-cache')
        .writeHeader('content-security-policy', policy)
        .writeHeader('x-content-type-options', 'nosniff')
        .end(body);
    });
  }
  app.any('/*', response => {
    response.writeStatus('404 Not Found').writeHeader('content-type', 'application/problem+json');
    response.end(
      JSON.stringify({ type: 'about:blank', title: 'Not found', status: 404, detail: 'no such page' }),
    );
  });
}

/** `host` is a numeric address; port 0 takes a free one. */
export function listen(app: TemplatedApp, host: string, port: number): Promise<ListenOutcome> {
  return new Promise(resolve => {
    // The native call takes options behind host and port, which its types leave out. Without the exclusive option a
    // second process would silently share the port.
    const listenExclusively = app.listen.bind(app) as unknown as (
      host: string,
      port: number,
      options: number,
      callback: (socket: us_listen_socket | false) => void,
    ) => void;
    listenExclusively(host, port, LIBUS_LISTEN_EXCLUSIVE_PORT, socket => {
      if (!socket) {
        resolve({ outcome: 'refused', reason: `port ${port} on ${host} is taken or not allowed` });
        return;
      }
      resolve({
        outcome: 'listening',
        port: us_socket_local_port(socket),
        close: () => us_listen_socket_close(socket),
      });
    });
  });
}
