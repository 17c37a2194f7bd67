/**
 * An answer that is too large to be put together first: sent as it is made, no faster than the client takes
 * it. In memory is what the source has made last and what the socket has not sent of it yet (F).
 *
 *   asked ─▶ refused (a Problem)
 *     └────▶ sending ─▶ ended
 *               ├─────▶ the client has gone: the source is stopped
 *               └─────▶ the source fails: the connection is cut, for a status was sent already, and what is
 *                       short must not look whole
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

export interface Client {
  isGone(): boolean;
  /**
   * Resolves when the socket takes something again, the client has gone, or the time is over.
   * @returns whether it takes
   */
  takes(waitMs: number): Promise<boolean>;
}

/** Must be called before the handler returns; uWebSockets forbids touching a response that was aborted. */
function watchClient(response: HttpResponse): Client {
  let isGone = false;
  let wake = (_takes: boolean) => {};
  response.onAborted(() => {
    isGone = true;
    wake(false);
  });
  response.onWritable(() => {
    wake(true);
    return true;
  });
  return {
    isGone: () => isGone,
    takes: waitMs =>
      new Promise(resolve => {
        const timer = setTimeout(resolve, waitMs, false);
        wake = takes => {
          clearTimeout(timer);
          resolve(takes);
        };
        if (isGone) wake(false);
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
    if (isBegun) return;
    isBegun = true;
    response
      .writeStatus('200 OK')
      .writeHeader('content-type', contentType)
      .writeHeader('content-disposition', `attachment; filename="${fileName}"`)
      .writeHeader('cache-control', 'no-store')
      .writeHeader('x-content-type-options', 'nosniff');
    for (const [name, value] of Object.entries(headers)) response.writeHeader(name, value);
  };
  const write = (bytes: Uint8Array): boolean => {
    let hasRoom = true;
    response.cork(() => {
      begin();
      hasRoom = response.write(bytes);
    });
    return hasRoom;
  };
  try {
    for await (const part of parts) {
      if (client.isGone()) return;
      if (part.length > 0 && !(await pour(part, write, client))) {
        if (!client.isGone()) response.close();
        return;
      }
    }
  } catch (error) {
    if (!isBegun) throw error;
    onFailure(error);
    if (!client.isGone()) response.close();
    return;
  }
  if (client.isGone()) return;
  response.cork(() => {
    begin();
    response.end();
  });
}

/**
 * Kept back of a part, for a client that takes nothing for a while: uWebSockets drops it 10 s after the last
 * byte that it was given.
 */
const HELD_BYTES = 4096;
const BYTE_EVERY_MS = 3000;
/** It may have gone without a word. */
const STALLED_MS = 600_000;

/** One part. @returns false when the client has gone, or takes nothing any more */
export async function pour(
  part: Uint8Array,
  write: (bytes: Uint8Array) => boolean,
  client: Client,
): Promise<boolean> {
  let at = Math.max(0, part.length - HELD_BYTES);
  let hasRoom = at === 0 || write(part.subarray(0, at));
  let tookAt = performance.now();
  while (!hasRoom && at < part.length) {
    const takes = await client.takes(BYTE_EVERY_MS);
    if (client.isGone()) return false;
    if (takes) tookAt = performance.now();
    else if (performance.now() - tookAt > STALLED_MS) return false;
    // What waits in the socket goes first; whether all of that has gone is known from this byte.
    hasRoom = write(part.subarray(at, ++at));
  }
  if (at < part.length) write(part.subarray(at));
  return true;
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
