/** Where the ingest stream stands, and whether it is still the one it was: another one is read from its start (R). */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { Logger } from 'pino';
import { ensureStream, type StreamState } from './stream.ts';

export interface StreamLocator {
  /** The stream's identity, as it was a moment ago at most. Rejects as `locate` does. */
  created(): Promise<string>;
  /** Creates the stream where it is missing. Rejects when the server does not answer. */
  locate(): Promise<StreamState>;
}

/** Gateways ask often. */
const RECENT_MS = 1000;

export function newStreamLocator(options: {
  manager: JetStreamManager;
  bytesMax: number;
  replicas: number;
  logger: Logger;
  /** It is another stream than at the last look. */
  onAnother: () => void;
}): StreamLocator {
  const { manager, bytesMax, replicas, logger } = options;
  let created = '';
  let locating: Promise<StreamState> | null = null;
  let locatedAtMs = Number.NEGATIVE_INFINITY;

  const look = async () => {
    const state = await ensureStream(manager, { bytesMax, replicas });
    if (created !== '' && state.created !== created) {
      logger.warn(
        { was: created, is: state.created },
        'the ingest stream is another one: reading it from its start',
      );
      options.onAnother();
    }
    created = state.created;
    locatedAtMs = performance.now();
    return state;
  };

  /** All pumps ask at the same time after a reconnect: one question serves them. */
  function locate(): Promise<StreamState> {
    locating ??= look().finally(() => {
      locating = null;
    });
    return locating;
  }

  return {
    locate,
    async created() {
      if (performance.now() - locatedAtMs > RECENT_MS) await locate();
      return created;
    },
  };
}
