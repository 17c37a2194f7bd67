/**
 * The JetStream stream that carries batches from gateways to partitions, and its identity. Losing it costs a
 * re-send, never a reading (R): a stream with another time of creation is another stream.
 */
import {
  DiscardPolicy,
  JetStreamApiError,
  type JetStreamManager,
  RetentionPolicy,
  StorageType,
  type StreamInfo,
} from '@nats-io/jetstream';
import { INGEST_STREAM } from '../protocol/subjects.ts';

export interface StreamState {
  /** The stream's identity. */
  readonly created: string;
  readonly firstSequence: number;
  readonly lastSequence: number;
  readonly bytes: number;
}

const STREAM_NOT_FOUND = 10059;

/** Creates the stream where it is missing. At its bound it refuses new batches, so gateways keep them (F). */
export async function ensureStream(
  manager: JetStreamManager,
  options: { bytesMax: number; replicas: number },
): Promise<StreamState> {
  try {
    return stateOf(await manager.streams.info(INGEST_STREAM));
  } catch (error) {
    if (!(error instanceof JetStreamApiError) || error.code !== STREAM_NOT_FOUND) throw error;
  }
  return stateOf(
    await manager.streams.add({
      name: INGEST_STREAM,
      subjects: [`${INGEST_STREAM}.>`],
      storage: StorageType.File,
      retention: RetentionPolicy.Limits,
      discard: DiscardPolicy.New,
      max_bytes: options.bytesMax,
      num_replicas: options.replicas,
      duplicate_window: 0,
    }),
  );
}

const stateOf = (info: StreamInfo): StreamState => ({
  created: info.created,
  firstSequence: info.state.first_seq,
  lastSequence: info.state.last_seq,
  bytes: info.state.bytes,
});
