/** The HTTP side: every request has a deadline and comes back as an outcome; a failed request is a value. */
import { field, isFields, textOf } from './model.ts';

export type Problem = { readonly status: number; readonly title: string; readonly detail: string };
export type Outcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problem: Problem };

const REQUEST_TIMEOUT_MS = 15_000;

/** The server's clock minus ours, in ms, from the last answer that carried a Date; 0 until one did. */
let clockOffsetMs = 0;
/** Now by the server's clock: on a machine whose own clock is wrong, an old value must not look fresh. */
export const serverNow = (): number => Date.now() + clockOffsetMs;

function learnClock(response: Response, sentAt: number): void {
  const date = Date.parse(response.headers.get('date') ?? '');
  if (Number.isNaN(date)) return;
  // The header has whole seconds: half of one is its mean error. Small differences are only that error.
  const offset = date + 500 - (sentAt + Date.now()) / 2;
  clockOffsetMs = Math.abs(offset) < 2_000 ? 0 : offset;
}

export const getJson = <T>(
  path: string,
  read: (body: unknown) => T,
  signal?: AbortSignal,
): Promise<Outcome<T>> => ask(path, { headers: { accept: 'application/json' } }, read, signal);

export const postJson = (path: string, body: unknown): Promise<Outcome<unknown>> =>
  ask(
    path,
    { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) },
    answer => answer,
  );

async function ask<T>(
  path: string,
  request: RequestInit,
  read: (body: unknown) => T,
  signal?: AbortSignal,
): Promise<Outcome<T>> {
  const deadline = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  const sentAt = Date.now();
  try {
    const response = await fetch(path, {
      ...request,
      signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]),
    });
    learnClock(response, sentAt);
    const body: unknown = await response.json().catch(() => null);
    if (!response.ok) return { ok: false, problem: problemOf(response.status, body) };
    return { ok: true, value: read(body) };
  } catch (error) {
    const timedOut = error instanceof DOMException && error.name === 'TimeoutError';
    const title = timedOut ? 'The server did not answer in time' : 'The server cannot be reached';
    return { ok: false, problem: { status: 0, title, detail: '' } };
  }
}

function problemOf(status: number, body: unknown): Problem {
  const fields = isFields(body) ? body : {};
  const title = textOf(field(fields, 'title')) || `The server answered with status ${status}`;
  return { status, title, detail: textOf(field(fields, 'detail')) };
}

const query = (parameters: Record<string, string | number>): string =>
  new URLSearchParams(Object.entries(parameters).map(([name, value]) => [name, String(value)])).toString();

export const paths = {
  sites: '/sites',
  health: '/health',
  backups: '/backups',
  completeness: (site: string): string => `/sites/${encodeURIComponent(site)}/completeness`,
  twin: (site: string, device: string): string =>
    `/twins/${encodeURIComponent(site)}/${encodeURIComponent(device)}`,
  history: (site: string, device: string, metric: string, from: number, to: number, limit: number): string =>
    `${paths.twin(site, device)}/history?${query({ metric, from: Math.floor(from), to: Math.ceil(to), limit })}`,
  incidents: (limit: number, of?: { site: string; device: string }): string =>
    `/incidents?${query({ ...of, limit })}`,
  acknowledge: (incident: string): string => `/incidents/${encodeURIComponent(incident)}/acknowledge`,
  quarantine: (limit: number): string => `/quarantine?${query({ limit })}`,
} as const;
