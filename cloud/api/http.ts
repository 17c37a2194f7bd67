/**
 * A thin layer over uWebSockets' HTTP: JSON answers, problem+json errors (RFC 9457), a response that the client may
 * have left in the meantime, and who may change something. Nothing here knows about twins.
 */

import type { HttpRequest, HttpResponse, TemplatedApp } from 'uWebSockets.js';
import { createHash, timingSafeEqual } from 'node:crypto';
import { z } from 'zod';

/** An error that the client is told. */
export class Problem extends Error {
  readonly status: number;
  readonly title: string;
  constructor(status: number, title: string, detail: string) {
    super(detail);
    this.status = status;
    this.title = title;
  }
}

export interface RouteRequest {
  readonly parameters: readonly string[];
  readonly query: URLSearchParams;
}

/**
 * Serves `GET pattern` with what `handle` returns, as JSON. A {@link Problem} becomes its status, anything else 500
 * without its text: that goes to `onError`.
 */
export function getJson(
  app: TemplatedApp,
  pattern: string,
  handle: (request: RouteRequest) => Promise<unknown> | unknown,
  onError: (pattern: string, error: unknown) => void,
): void {
  const parameterCount = pattern.split('/').filter(part => part.startsWith(':')).length;
  app.get(pattern, (response, request) => {
    const aborted = watchAbort(response);
    const input = readRequest(request, parameterCount);
    void (async () => {
      let status = 200;
      let body: unknown;
      try {
        if (input instanceof Problem) throw input;
        body = await handle(input);
      } catch (error) {
        const problem = asProblem(error);
        if (problem.status >= 500) onError(pattern, error);
        status = problem.status;
        body = problemBody(problem);
      }
      if (!aborted()) send(response, status, body);
    })();
  });
}

/** Who may change something (S). */
export interface ChangeAccess {
  /** Null: none is set, and changes are taken on loopback only. */
  readonly adminToken: string | null;
  readonly listensOnLoopback: boolean;
}

/** @param httpHost numeric address that the node listens on */
export const changeAccess = (adminToken: string | null, httpHost: string): ChangeAccess => ({
  adminToken,
  listensOnLoopback: isLoopback(httpHost),
});

export type ChangeMethod = 'post' | 'put' | 'patch' | 'del';

export interface ChangeRequest extends RouteRequest {
  /** The JSON that was sent, undefined when the body was empty. Of any shape: parse it with zod, whose error is a 400. */
  readonly body: unknown;
}

/** Bytes of a body that are read; a longer one is answered 413 (F). */
export const CHANGE_BYTES_MAX = 1024 * 1024;

/**
 * Serves a change of something: as {@link getJson}, with a JSON body, for those who may. What `handle` returns is
 * answered with 200, undefined with 204. Problems: 401 (no or a wrong token), 403 (no token is set, and the request
 * does not come over loopback, or from a page of another origin), 413, 415 (a body that is not JSON by its type), 400.
 */
export function changeJson(
  app: TemplatedApp,
  method: ChangeMethod,
  pattern: string,
  handle: (request: ChangeRequest) => Promise<unknown> | unknown,
  access: ChangeAccess,
  onError: (pattern: string, error: unknown) => void,
  bodyBytesMax = CHANGE_BYTES_MAX,
): void {
  const parameterCount = pattern.split('/').filter(part => part.startsWith(':')).length;
  app[method](pattern, (response, request) => {
    const aborted = watchAbort(response);
    const input = refusedChange(request, access) ?? readRequest(request, parameterCount);
    if (input instanceof Problem) {
      send(response, input.status, problemBody(input));
      return;
    }
    const isJson = /^application\/json(;|$)/i.test(request.getHeader('content-type').trim());
    readBody(response, bodyBytesMax, bytes => {
      void (async () => {
        let status = 200;
        let answer: unknown;
        try {
          answer = await handle({ ...input, body: parseBody(bytes, isJson) });
          if (answer === undefined) status = 204;
        } catch (error) {
          const problem = asProblem(error);
          if (problem.status >= 500) onError(pattern, error);
          status = problem.status;
          answer = problemBody(problem);
        }
        if (!aborted()) send(response, status, answer);
      })();
    });
  });
}

/** Serves `GET pattern` with a text of the given type; what fails is 503, told to `onError`. */
export function getText(
  app: TemplatedApp,
  pattern: string,
  contentType: string,
  handle: () => Promise<string>,
  onError: (pattern: string, error: unknown) => void,
): void {
  app.get(pattern, response => {
    const aborted = watchAbort(response);
    void (async () => {
      try {
        const text = await handle();
        if (aborted()) return;
        response.cork(() => {
          response
            .writeStatus(statusLine(200))
            .writeHeader('content-type', contentType)
            .writeHeader('cache-control', 'no-store')
            .end(text);
        });
      } catch (error) {
        const problem = asProblem(error);
        onError(pattern, error);
        if (!aborted()) send(response, problem.status, problemBody(problem));
      }
    })();
  });
}

/** Must be called before the handler returns; uWebSockets forbids touching a response that was aborted. */
export function watchAbort(response: HttpResponse): () => boolean {
  let aborted = false;
  response.onAborted(() => {
    aborted = true;
  });
  return () => aborted;
}

export function send(response: HttpResponse, status: number, body: unknown): void {
  const type = status >= 400 ? 'application/problem+json' : 'application/json';
  const text = JSON.stringify(body);
  response.cork(() => {
    response.writeStatus(statusLine(status));
    if (status === 204) {
      response.endWithoutBody();
      return;
    }
    if (status === 401) response.writeHeader('www-authenticate', 'Bearer');
    response
      .writeHeader('content-type', type)
      .writeHeader('cache-control', 'no-store')
      .writeHeader('x-content-type-options', 'nosniff')
      .end(text);
  });
}

function readRequest(request: HttpRequest, parameterCount: number): RouteRequest | Problem {
  try {
    const parameters = Array.from({ length: parameterCount }, (_, index) =>
      decodeURIComponent(request.getParameter(index) ?? ''),
    );
    return { parameters, query: new URLSearchParams(request.getQuery() ?? '') };
  } catch {
    return new Problem(400, 'Bad request', 'the path is not valid percent-encoded UTF-8');
  }
}

/** @returns why the change is refused, or null. A browser sends what a foreign page asks for, but says whose it is. */
function refusedChange(request: HttpRequest, access: ChangeAccess): Problem | null {
  if (access.adminToken !== null) {
    const [, token] = /^bearer +(.+)$/i.exec(request.getHeader('authorization')) ?? [];
    if (token !== undefined && isSame(token.trim(), access.adminToken)) return null;
    return new Problem(401, 'Unauthorized', 'send the token: Authorization: Bearer <HOLDFAST_ADMIN_TOKEN>');
  }
  const host = request.getHeader('host');
  if (!access.listensOnLoopback || !isLoopback(hostnameOf(host))) {
    const detail = 'no HOLDFAST_ADMIN_TOKEN is set on this node: it takes changes over loopback only';
    return new Problem(403, 'Forbidden', detail);
  }
  const origin = request.getHeader('origin');
  if (origin !== '' && (!URL.canParse(origin) || new URL(origin).host !== host)) {
    return new Problem(403, 'Forbidden', 'a page of another origin may change nothing');
  }
  return null;
}

/** In a time that does not tell how much of it is right. */
const isSame = (given: string, expected: string): boolean =>
  timingSafeEqual(
    createHash('sha256').update(given).digest(),
    createHash('sha256').update(expected).digest(),
  );

const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host);

/** Of a Host header; one that names another host than loopback may be a foreign name that was pointed here. */
const hostnameOf = (host: string): string =>
  URL.canParse(`http://${host}`) ? new URL(`http://${host}`).hostname : '';

function parseBody(bytes: Buffer, isJson: boolean): unknown {
  if (bytes.length === 0) return undefined;
  if (!isJson) throw new Problem(415, 'Unsupported media type', 'send JSON, as application/json');
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    throw new Problem(400, 'Bad request', 'the body is not JSON');
  }
}

function readBody(response: HttpResponse, bytesMax: number, onBody: (bytes: Buffer) => void): void {
  const chunks: Buffer[] = [];
  let length = 0;
  response.onData((chunk, isLast) => {
    if (length > bytesMax) return;
    length += chunk.byteLength;
    if (length > bytesMax) {
      const problem = new Problem(413, 'Content too large', `the body may have ${bytesMax} bytes`);
      send(response, problem.status, problemBody(problem));
      return;
    }
    // The chunk's memory is not ours after this call.
    chunks.push(Buffer.from(chunk.slice(0)));
    if (isLast) onBody(Buffer.concat(chunks));
  });
}

function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof z.ZodError) {
    const detail = error.issues.map(issue => `${issue.path.join('.')}: ${issue.message}`).join('; ');
    return new Problem(400, 'Bad request', detail);
  }
  return new Problem(503, 'Unavailable', 'a server behind this answer is not there now; try again');
}

const problemBody = ({ status, title, message }: Problem) => ({
  type: 'about:blank',
  title,
  status,
  detail: message,
});

const reasons: Record<number, string> = {
  200: 'OK',
  204: 'No Content',
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  409: 'Conflict',
  413: 'Content Too Large',
  415: 'Unsupported Media Type',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
};
const statusLine = (status: number) => `${status} ${reasons[status] ?? ''}`.trim();
