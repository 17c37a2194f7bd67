/**
 * The demo's links (`deploy/demo/links.ts`) behind the node's own port, so that the page needs one address only.
 *
 *   GET  /demo/links          { links: [{ site, cut, changedAt, bufferBytes }] }; none when this is no demo
 *   POST /demo/links/:site    { cut: true | false }, answered the same; 404 when this is no demo
 */
import type { HttpRequest, HttpResponse, TemplatedApp } from 'uWebSockets.js';
import { getJson, send, watchAbort } from './api/http.ts';

const ANSWER_MS = 3000;
const BODY_BYTES_MAX = 1000;

const problem = (status: number, title: string) => ({ type: 'about:blank', title, status });

/** @param options.controlUrl null when this is no demo */
export function registerDemoLinks(options: {
  app: TemplatedApp;
  controlUrl: string | null;
  onError: (route: string, error: unknown) => void;
}): void {
  const { app, controlUrl, onError } = options;
  // An answer without links, not a 404: the page of every installation asks, and a browser shows a 404 as an error.
  getJson(app, '/demo/links', () => (controlUrl === null ? { links: [] } : ask(controlUrl)), onError);
  if (controlUrl === null) return;
  app.post('/demo/links/:site', (response, request) => {
    const aborted = watchAbort(response);
    const site = request.getParameter(0) ?? '';
    if (!isOwnPage(request)) {
      send(response, 403, problem(403, 'Only the page itself may do that'));
      return;
    }
    readBody(response, body => {
      const asked = ask(controlUrl, site, body);
      asked.then(
        answer => void (aborted() || send(response, 200, answer)),
        error => {
          onError('/demo/links/:site', error);
          if (!aborted()) send(response, 503, problem(503, 'The demo does not answer'));
        },
      );
    });
  });
}

async function ask(controlUrl: string, site?: string, body?: string): Promise<unknown> {
  const path = site === undefined ? '' : `/${site}`;
  const response = await fetch(`${controlUrl}/links${path}`, {
    ...(body !== undefined && { method: 'POST', body }),
    signal: AbortSignal.timeout(ANSWER_MS),
  });
  if (response.status !== 200) throw new Error(`the demo's links: ${response.status}`);
  return response.json();
}

/** A page of another origin can send a request here, but neither as JSON nor without its origin. */
const isOwnPage = (request: HttpRequest): boolean => {
  const origin = request.getHeader('origin');
  if (request.getHeader('content-type') !== 'application/json') return false;
  return origin === '' || (URL.canParse(origin) && new URL(origin).host === request.getHeader('host'));
};

function readBody(response: HttpResponse, onBody: (text: string) => void): void {
  let bytes = Buffer.alloc(0);
  let over = false;
  response.onData((chunk, isLast) => {
    if (over) return;
    bytes = Buffer.concat([bytes, Buffer.from(chunk)]);
    if (bytes.length > BODY_BYTES_MAX) {
      over = true;
      send(response, 400, problem(400, 'Too long'));
    } else if (isLast) onBody(bytes.toString('utf8'));
  });
}
