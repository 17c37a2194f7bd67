/** The stream as the import uses it: publish into the backfill lane, and ask which stream it is. */
import { type JetStreamClient, type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { IMPORT_INBOX_PREFIX } from '../../protocol/export/import-permissions.ts';
import { natsAddress } from '../../protocol/nats-address.ts';
import { reconnectForEver } from '../../protocol/nats-reconnect.ts';
import { INGEST_STREAM } from '../../protocol/subjects.ts';

/** Every function rejects with the client's error while NATS is away or refuses. */
export interface Ingest {
  /** The stream's identity. */
  created(): Promise<string>;
  /** @returns the batch's sequence in the stream, once it is on its disk */
  publish(subject: string, bytes: Uint8Array): Promise<number>;
  close(): Promise<void>;
}

const PUBLISH_TIMEOUT_MS = 10_000;

/** Rejects when NATS is not there. */
export async function openIngest(natsUrl: string): Promise<Ingest> {
  const nats: NatsConnection = await connect({
    ...natsAddress(natsUrl),
    name: 'import',
    inboxPrefix: IMPORT_INBOX_PREFIX,
    ...reconnectForEver({ least: 500, jitter: 500 }),
    pingInterval: 5000,
    maxPingOut: 2,
  });
  const client: JetStreamClient = jetstream(nats);
  const manager: JetStreamManager = await jetstreamManager(nats, { checkAPI: false });
  return {
    created: async () => (await manager.streams.info(INGEST_STREAM)).created,
    publish: async (subject, bytes) =>
      (await client.publish(subject, bytes, { timeout: PUBLISH_TIMEOUT_MS })).seq,
    close: () => nats.close(),
  };
}
