/**
 * When the demo ends: Ctrl-C (also as SIGTERM, or as the end of the launcher that holds our IPC channel), the end of
 * `--for`, or a part that died. Whatever comes first counts; a second Ctrl-C ends the process at once.
 */

export interface Ending {
  /** Resolves with null on Ctrl-C or when the time is up, with a reason when a part died. */
  readonly ended: Promise<string | null>;
  /** Aborted by Ctrl-C: ends the start-up between two of its parts. */
  readonly signal: AbortSignal;
  now(reason: string): void;
  after(ms: number): void;
}

export const EXIT_CODE_OF_INTERRUPTED = 130;

export function listenForEnd(): Ending {
  const { promise, resolve } = Promise.withResolvers<string | null>();
  const controller = new AbortController();
  const stop = () => {
    controller.abort(new Error('stopped during the start-up'));
    resolve(null);
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (controller.signal.aborted) process.exit(EXIT_CODE_OF_INTERRUPTED);
      stop();
    });
  }
  process.once('disconnect', stop);
  return {
    ended: promise,
    signal: controller.signal,
    now: resolve,
    after: ms => void setTimeout(() => resolve(null), ms),
  };
}
