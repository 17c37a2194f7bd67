/**
 * An answer that is too large to be put together first: sent as it is made, no faster than the client takes it. In memory is what the
 * source has made last and what the socket has not sent of it yet (F).
 *
 *   asked ─▶ refused (a Problem)
 *     └────▶ sending ─▶ ended
 *               ├─────▶ the client has gone: the source is stopped
 *               └─────▶ the source fails: the connection is cut, since a status was sent already and a short answer must not look whole
 */
import type { HttpResponse, TemplatedApp } from 'uWebSockets.js';
import { z } from 'zod';
import { Problem, send } from './http.ts';

export interface StreamAnswer {
  readonly contentType: string;
  /** The name under which a browser saves it. */
  readonly fileName: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly parts: AsyncIterable<Uint8Array>;
}

/** What is too much for this node at a time is refused with 503 (F). */
export interface StreamOptions {
  readonly atOnceMax: number;
  readonly onError: (pattern: string, error: unknown) => void;
}

export function getStream(
  app: TemplatedApp,
  pattern: string,
  handle: (query: URLSearchParams) => Promise<StreamAnswer>,
  { atOnceMax, onError }: StreamOptions,
): void {
  let running = 0;
  app.get(pattern, (response, request) => {
    const client = watchClient(response);
    const query = new URLSearchParams(request.getQuery() ?? '');
    void (async () => {
      running++;
      try {
        if (running > atOnceMax) {
          throw new Problem(
            503,
            'Busy',
            `${atOnceMax} of these are running on this node already; try again later`,
          );
        }
        const answer = await handle(query);
        await sendParts(response, client, answer, error => onError(pattern, error));
      } catch (error) {
        const problem = problemOf(error);
        if (!(error instanceof Problem) && problem.status >= 500) onError(pattern, error);
        if (!client.isGone()) send(response, problem.status, bodyOf(problem));
      } finally {
        running--;
      }
    })();
  });
}

interface Client {
  isGone(): boolean;
  /** Resolves when the socket has room again, or the client has gone. */
  drained(): Promise<void>;
}

/** Must be called before the handler returns; uWebSockets forbids touching a response that was aborted. */
function watchClient(response: HttpResponse): Client {
  let isGone = false;
  let wake = () => {};
  response.onAborted(() => {
    isGone = true;
    wake();
  });
  response.onWritable(() => {
    wake();
    return true;
  });
  return {
    isGone: () => isGone,
    drained: () =>
      new Promise(resolve => {
        wake = resolve;
        if (isGone) resolve();
      }),
  };
}

async function sendParts(
  response: HttpResponse,
  client: Client,
  { contentType, fileName, headers, parts }: StreamAnswer,
  onFailure: (error: unknown) => void,
): Promise<void> {
  let isBegun = false;
  const begin = () => {
    isBegun = true;
    response
      .writeStatus('200 OK')
      .writeHeader('content-type', contentType)
      .writeHeader('content-disposition', `attachment; filename="${fileName}"`)
      .writeHeader('cache-control', 'no-store')
      .writeHeader('x-content-type-options', 'nosniff');
    for (const [name, value] of Object.entries(headers)) response.writeHeader(name, value);
  };
  try {
    for await (const part of parts) {
      if (client.isGone()) return;
      if (part.length === 0) continue;
      let hasRoom = true;
      response.cork(() => {
        if (!isBegun) begin();
        hasRoom = response.write(part);
      });
      if (!hasRoom && !client.isGone()) await client.drained();
      if (client.isGone()) return;
    }
  } catch (error) {
    if (!isBegun) throw error;
    onFailure(error);
    if (!client.isGone()) response.close();
    return;
  }
  if (client.isGone()) return;
  response.cork(() => {
    if (!isBegun) begin();
    response.end();
  });
}

function problemOf(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof z.ZodError) {
    const detail = error.issues.map(issue => `${issue.path.join('.')}: ${issue.message}`).join('; ');
    return new Problem(400, 'Bad request', detail);
  }
  return new Problem(503, 'Unavailable', 'a server behind this answer is not there now; try again');
}

const bodyOf = ({ status, title, message }: Problem) => ({
  type: 'about:blank',
  title,
  status,
  detail: message,
});
