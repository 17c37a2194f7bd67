/** Where the ingest stream stands, and whether it is still the one it was: another one is read from its start (R). */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { Logger } from 'pino';
import { ensureStream, type StreamState } from './stream.ts';

export interface StreamLocator {
  /** The stream's identity as it was last seen; '' before that. */
  readonly created: string;
  /** Creates the stream where it is missing. Rejects when the server does not answer. */
  locate(): Promise<StreamState>;
}

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
    return state;
  };

  return {
    get created() {
      return created;
    },
    /** All pumps ask at the same time after a reconnect: one question serves them. */
    locate() {
      locating ??= look().finally(() => {
        locating = null;
      });
      return locating;
    },
  };
}
