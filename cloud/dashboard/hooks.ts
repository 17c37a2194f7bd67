/** What the views share: redrawing on change, the ticking clock, and questions asked again and again. */
import { useEffect, useReducer, useRef, useState } from 'preact/hooks';
import { getJson, type Problem, serverNow } from './api.ts';
import type { Live } from './live.ts';

/** Draws the component again whenever live data changed. */
export function useLive(live: Live): void {
  const [, redraw] = useReducer((count: number) => count + 1, 0);
  useEffect(() => live.subscribe(() => redraw(undefined)), [live]);
}

/** Now by the server's clock, ticking once a second while the page is visible. */
export function useNow(): number {
  const [, tick] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    const timer = setInterval(() => {
      if (!document.hidden) tick(undefined);
    }, 1_000);
    const onVisible = (): void => tick(undefined);
    document.addEventListener('visibilitychange', onVisible);
    return () => {
      clearInterval(timer);
      document.removeEventListener('visibilitychange', onVisible);
    };
  }, []);
  return serverNow();
}

/** `value` stays through failures, with the time it is of, so that old figures can say that they are old. */
export type Polled<T> = {
  readonly value: T | null;
  readonly at: number | null;
  readonly problem: Problem | null;
};

/** Asks `path` at once and every `intervalMs` while the page is visible; `revision` asks again at once. */
export function usePolled<T>(
  path: string,
  read: (body: unknown) => T,
  intervalMs: number,
  revision: unknown = null,
): Polled<T> {
  const [polled, setPolled] = useState<Polled<T> & { path: string }>({
    path,
    value: null,
    at: null,
    problem: null,
  });
  const readNow = useRef(read);
  readNow.current = read;
  // A new revision is a reason to ask again
  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | null = null;
    let asking = false;
    const ask = async (): Promise<void> => {
      timer = null;
      asking = true;
      const outcome = await getJson(path, body => readNow.current(body), abort.signal);
      asking = false;
      if (abort.signal.aborted) return;
      setPolled(before =>
        outcome.ok
          ? { path, value: outcome.value, at: serverNow(), problem: null }
          : {
              path,
              value: before.path === path ? before.value : null,
              at: before.at,
              problem: outcome.problem,
            },
      );
      if (!document.hidden) timer = setTimeout(() => void ask(), intervalMs);
    };
    const onVisible = (): void => {
      if (!document.hidden && timer === null && !asking) void ask();
    };
    document.addEventListener('visibilitychange', onVisible);
    void ask();
    return () => {
      abort.abort();
      if (timer !== null) clearTimeout(timer);
      document.removeEventListener('visibilitychange', onVisible);
    };
  }, [path, intervalMs, revision]);
  return polled.path === path ? polled : { value: null, at: null, problem: null };
}

/** Changes the address without a step in the browser's history, and lets the views know. */
export function replaceHash(hash: string): void {
  history.replaceState(null, '', hash);
  dispatchEvent(new HashChangeEvent('hashchange'));
}
