/**
 * A thin layer over uWebSockets' HTTP: JSON answers, problem+json errors (RFC 9457), and a response that the client
 * may have left in the meantime. Nothing here knows about twins.
 */
import type { HttpRequest, HttpResponse, TemplatedApp } from 'uWebSockets.js';
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
    response
      .writeStatus(statusLine(status))
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
  400: 'Bad Request',
  404: 'Not Found',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
};
const statusLine = (status: number) => `${status} ${reasons[status] ?? ''}`.trim();
