/**
 * The pump of one partition's lane: reads the stream in order from where history stands and hands each message on.
 *
 *   locating ─▶ reading ──stream gone, reconnect, trouble──▶ locating …       stop ─▶ stopped
 *
 * The position is (stream's time of creation, sequence). Under another stream, or one that ends before the position,
 * reading starts at the first message: the ledger drops what is there already (B, R).
 */
import { type ConsumerMessages, DeliverPolicy, type JetStreamClient } from '@nats-io/jetstream';
import type { Logger } from 'pino';
import { INGEST_STREAM, ingestFilter, type Lane } from '../protocol/subjects.ts';
import type { StreamState } from './stream.ts';

export interface StreamMessage {
  readonly subject: string;
  readonly data: Uint8Array;
  readonly stream: { readonly created: string; readonly sequence: number };
}

export interface Pump {
  /** Leaves the current consumer and locates the stream again, without losing the position. */
  relocate(): void;
  stop(): Promise<void>;
}

/** Messages asked for ahead: bounds what waits in memory in front of the actor. */
const MESSAGES_AHEAD = 64;
/** When nothing comes for so long, nothing is there. */
const NOTHING_AFTER_MS = 200;

export function startPump(options: {
  partition: number;
  lane: Lane;
  stream: JetStreamClient;
  locateStream: () => Promise<StreamState>;
  /** Where history stands, or null when it has never read this lane. */
  position: { created: string; sequence: number } | null;
  /** Handles one message; the next one waits for it. */
  handle: (message: StreamMessage) => Promise<void>;
  /** Everything that was in the stream has been handled; from then on it is told again now and then. */
  onCaughtUp: () => void;
  logger: Logger;
}): Pump {
  const { partition, lane, logger } = options;
  let position = options.position;
  let messages: ConsumerMessages | undefined;
  let stopped = false;
  let lastReason = '';
  let wakeUp: () => void = () => {};

  const running = run();

  async function run(): Promise<void> {
    let waitMs = 100;
    while (!stopped) {
      try {
        const state = await options.locateStream();
        const resumable =
          position !== null && position.created === state.created && state.lastSequence >= position.sequence;
        if (!resumable && position !== null) {
          logger.info(
            { partition, lane, from: position, to: state.created },
            'pump: another stream, from its start',
          );
        }
        await read(state.created, resumable ? position!.sequence + 1 : 1);
        waitMs = 100;
      } catch (error) {
        if (stopped) return;
        logger.debug({ partition, lane, reason: (error as Error).message }, 'pump: trouble, locating again');
        await new Promise<void>(resolve => {
          const timer = setTimeout(resolve, waitMs * (0.5 + Math.random()));
          wakeUp = () => {
            clearTimeout(timer);
            resolve();
          };
        });
        waitMs = Math.min(waitMs * 2, 2000);
      }
    }
  }

  async function read(created: string, from: number): Promise<void> {
    const consumer = await options.stream.consumers.get(INGEST_STREAM, {
      filter_subjects: ingestFilter(partition, lane),
      deliver_policy: DeliverPolicy.StartSequence,
      opt_start_seq: from,
    });
    if (stopped) return;
    messages = await consumer.consume({ max_messages: MESSAGES_AHEAD });
    const nothing = setTimeout(options.onCaughtUp, NOTHING_AFTER_MS);
    try {
      for await (const message of messages) {
        clearTimeout(nothing);
        const stream = { created, sequence: message.seq };
        await handle({ subject: message.subject, data: message.data, stream });
        position = stream;
        if (stopped) return;
        if (message.info.pending === 0) options.onCaughtUp();
      }
    } finally {
      clearTimeout(nothing);
      messages.stop();
      messages = undefined;
    }
  }

  /** A message that cannot be handled now is read again; said once per reason. */
  async function handle(message: StreamMessage): Promise<void> {
    try {
      await options.handle(message);
      lastReason = '';
    } catch (error) {
      const reason = (error as Error).message;
      if (reason !== lastReason && !stopped) {
        logger.warn(
          { partition, lane, subject: message.subject, reason },
          'pump: message not handled, trying again',
        );
      }
      lastReason = reason;
      throw error;
    }
  }

  return {
    relocate() {
      messages?.stop();
    },
    async stop() {
      stopped = true;
      messages?.stop();
      wakeUp();
      await running;
    },
  };
}
