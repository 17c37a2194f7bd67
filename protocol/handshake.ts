/**
 * What gateway and cloud tell each other beside the batches, as JSON over core NATS.
 *
 *   gateway → cloud   hello    request: here are my logs; what has history settled of them?
 *   cloud → gateway   settled  after each commit: these ranges are in history
 *
 * Both may get lost: the next hello repeats everything that matters.
 */
import { z } from 'zod';
import { RangeSet } from './range-set.ts';

const logIdText = z.string().regex(/^[0-9a-f]{32}$/);
const rangesText = z.string().transform((text, context) => {
  try {
    return RangeSet.parse(text);
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message });
    return z.NEVER;
  }
});

const REASON_CHARACTERS_MAX = 500;
/** As PostgreSQL's jsonb takes it: without U+0000 and halves of surrogate pairs. Cut short rather than refused (H). */
const reasonText = z
  .string()
  .transform(text => text.slice(0, REASON_CHARACTERS_MAX).replaceAll('\0', '\u2400').toWellFormed());

/** Numbers are finite, or the report is refused. */
export const GatewayReport = z.object({
  bufferBytes: z.number(),
  bufferBytesMax: z.number(),
  /** Messages on disk that history has not settled, as far as the gateway knows. */
  unsettledMessages: z.number(),
  /** Messages taken from the broker since the process started. */
  messages: z.number(),
  /** Messages refused because the buffer was full; QoS 0 only, the rest is held back. */
  dropped: z.number(),
  /** Round trip of the last fdatasync, milliseconds. */
  syncMs: z.number(),
  broker: z.object({ connected: z.boolean(), reason: reasonText.nullable() }),
  /** Arrival of the oldest message that history has not settled; null when there is none. */
  oldestUnsettledAt: z.number().nullable(),
  /** Bytes on the wire that the unsettled messages still cost, as far as can be said. */
  wireBytesLeft: z.number(),
  forecast: z.object({
    /** Until the buffer is at its bound, at the rates of the last minutes; null when it does not fill. */
    fullInSeconds: z.number().nullable(),
    /** Until nothing waits any more; null when that is not in sight: no link, or more comes in than goes out. */
    drainedInSeconds: z.number().nullable(),
  }),
  /** Messages on disk of which only a summary is left. */
  thinnedMessages: z.number(),
  /** Messages that can no longer be read. */
  lostMessages: z.number(),
  /** What a metered link may carry; null where it is not metered. */
  dataBudget: z.object({ bytesMax: z.number(), bytesUsed: z.number(), resetsAt: z.number() }).nullable(),
  /** Whether it takes messages from the broker, or waits for the other gateway of its site to fail. */
  role: z.enum(['active', 'standby']),
});
export type GatewayReport = z.infer<typeof GatewayReport>;

const LOGS_MAX = 1000;

export const Hello = z
  .object({
    wireVersions: z.array(z.number().int()).min(1).max(100),
    logs: z.array(logIdText).max(LOGS_MAX),
    /** One past the newest message on disk, per log: what lies below and is not settled is missing. */
    ends: z.record(logIdText, z.number().int().positive()),
    report: GatewayReport,
  })
  // Of a log that is not asked about nobody wants the end; so there are no more of them than of `logs` (F).
  .transform(hello => {
    const named = new Set(hello.logs);
    return {
      ...hello,
      ends: Object.fromEntries(Object.entries(hello.ends).filter(([logId]) => named.has(logId))),
    };
  });
export type Hello = z.input<typeof Hello>;

/** Where history stands in the gateway's lane of the stream. */
const StreamPosition = z.object({
  /** The stream's identity: the time it was created. */
  created: z.string(),
  /** Everything of the partition up to this sequence has been handled. */
  live: z.number().int(),
  backfill: z.number().int(),
});
export type StreamPosition = z.infer<typeof StreamPosition>;

export const HelloReply = z.discriminatedUnion('outcome', [
  z.object({
    outcome: z.literal('welcome'),
    historyId: z.string(),
    partitions: z.number().int().positive(),
    stream: StreamPosition,
    /** Settled sequences per log id. */
    settled: z.record(logIdText, rangesText),
    /** The part of it that a confirmed backup of history has. An older cloud does not say it: nothing. */
    covered: z.record(logIdText, rangesText).default({}),
  }),
  z.object({ outcome: z.literal('refused'), reason: z.string() }),
  /** Not now; ask again. */
  z.object({ outcome: z.literal('unavailable'), reason: z.string() }),
]);
export type HelloReply = z.output<typeof HelloReply>;

export const Settled = z.object({
  stream: StreamPosition,
  /** Newly settled sequences per log id. */
  settled: z.record(logIdText, rangesText),
});
export type Settled = z.output<typeof Settled>;
