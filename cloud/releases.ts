/** What a node has opened, and how each of it is closed again: last in, first out. */
import type { Logger } from 'pino';

export interface Releases {
  /** Whether `close` was called. */
  readonly closing: boolean;
  onClose(what: string, release: Release['release']): void;
  /** Each in its time; one that fails, or takes longer, does not keep the others. Never rejects. */
  close(): Promise<void>;
}

interface Release {
  readonly what: string;
  release(): Promise<void> | void;
}

/** Above the partitions' drain and the time limit of a NATS request together: the pumps' last one is waited for. */
const RELEASE_MS = 15_000;

export function newReleases(logger: Logger): Releases {
  const releases: Release[] = [];
  let closing = false;
  return {
    get closing() {
      return closing;
    },
    onClose: (what, release) => void releases.push({ what, release }),
    async close() {
      closing = true;
      for (const { what, release } of releases.splice(0).reverse()) {
        const deadline = Promise.withResolvers<never>();
        const timer = setTimeout(
          () => deadline.reject(new Error(`not released within ${RELEASE_MS} ms`)),
          RELEASE_MS,
        );
        try {
          await Promise.race([release(), deadline.promise]);
        } catch (error) {
          logger.warn({ what, err: error }, 'not closed cleanly');
        }
        clearTimeout(timer);
      }
    },
  };
}
