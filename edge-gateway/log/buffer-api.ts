import type { LogId } from '../../protocol/ids.ts';
import type { Range, RangeSet } from '../../protocol/range-set.ts';
import type { Compactor } from './compaction-job.ts';
import type { FileOperations } from './files.ts';
import type { Frame, Message } from './frame.ts';

export type { FileOperations } from './files.ts';
export type { Frame, Message } from './frame.ts';

/** A run of one log, in the form in which it is stored. */
export type StoredRun =
  /** Consecutive except over lost and reclaimed ranges; none when nothing is there. */
  | { readonly form: 'frames'; readonly frames: readonly Frame[] }
  /** A whole block: `batch` is what goes on the wire, and covers `range`. It may be thinned. */
  | { readonly form: 'block'; readonly range: Range; readonly batch: Buffer };

/** A run of one log. */
export interface LogRun extends Range {
  readonly logId: LogId;
}

/** The part of a pino logger that the buffer uses. */
export interface BufferLogger {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}

export interface LogInfo {
  readonly logId: LogId;
  /** Whether it is the one that this process appends to. */
  readonly current: boolean;
  /** The first sequence still on disk; `nextSequence` when none is. */
  readonly firstSequence: number;
  /** One past the last durable sequence. */
  readonly nextSequence: number;
  /** What can no longer be read and is not settled: to be declared (invariant I). Grows when reading finds damage. */
  readonly lost: RangeSet;
  /**
   * What cannot be read here and is not settled, and may come from elsewhere, so it is neither sent nor declared: of a log in a
   * copied folder, where the original may have it; and for some minutes what was given back and history, restored to an
   * earlier hour, has no more, where the stream may have it. Grows when reading finds damage.
   */
  readonly missing: RangeSet;
  /** What {@link DiskBuffer.settle} has said, as far as it was remembered over restarts. */
  readonly settled: RangeSet;
  /** Of what is on disk, not settled: what is left of it in summaries only (but for its events and the like). */
  readonly thinned: RangeSet;
  readonly bytes: number;
  /** The boot that the monotonic times of its frames belong to; null when no header could be read. */
  readonly bootId: string | null;
}

export interface BufferStats {
  /** Bytes of all segments, with what waits for its fdatasync. */
  readonly bytes: number;
  readonly bytesMax: number;
  /** An append was refused, and there is no room yet. */
  readonly full: boolean;
  readonly logs: number;
  readonly segments: number;
  /** Messages on disk that are neither settled nor lost nor missing. */
  readonly messagesUnsettled: number;
  /** Messages unreadable and not yet settled as lost. */
  readonly messagesLost: number;
  /** Since start. */
  readonly messagesAppended: number;
  /** Since start. */
  readonly messagesRefused: number;
  /** Appended and not yet durable. */
  readonly messagesPending: number;
  readonly fsyncs: number;
  /** Over the last 512 groups, write and fdatasync together, in milliseconds. */
  readonly fsyncMs: { readonly p50: number; readonly p99: number; readonly max: number };
  /** Groups that could not be written or fdatasynced, each tried again on a fresh segment. */
  readonly writeErrors: number;
  /** Since start. */
  readonly bytesReclaimed: number;
  /** Messages on disk, not settled, in files that are thinned. */
  readonly messagesThinned: number;
  /** Segments that became blocks, since start. */
  readonly segmentsCompacted: number;
  /** Sealed segments that are to become blocks and have not. */
  readonly segmentsWaiting: number;
  /** Times that a file could not be compacted or thinned, since start; each is tried again later. */
  readonly compactionFailures: number;
}

export interface DiskBuffer {
  readonly current: LogId;
  /** Oldest first, the current one last. */
  logs(): LogInfo[];
  /**
   * Takes `message` into the next group. `onDurable` is called once, after the group's fdatasync, in the order of
   * appending (invariant A). 'full': nothing was stored, because the buffer is at its size bound and nothing can be
   * reclaimed, or because the disk does not keep up or refuses; {@link onSpace} tells when to go on.
   * @throws RangeError when the topic exceeds 65,535 bytes or the payload `limits.payloadBytesMax`; Error after close.
   */
  append(message: Message, onDurable: () => void): 'accepted' | 'full';
  /**
   * What is durable from `fromSequence` on, for sending. First of all frames: those below `toSequence`, at most
   * `messagesMax`, and at most `bytesMax` of payload, but at least one if any is there. Where a block comes first: that
   * block, whole, whatever the limits; it is the one with `fromSequence` in it, or begins between that and `toSequence`.
   * No frames when nothing is there, or when the file is being thinned at this moment.
   *
   * What is given counts as sent from then on, also after a restart: its file is not thinned any more. Payloads and
   * batches are views of memory that nobody writes to again. Rejects with the system error when the disk gives no answer
   * for now (too many open files, no permission, device gone); messages are declared lost only for damage.
   */
  read(
    logId: LogId,
    fromSequence: number,
    options: { readonly toSequence?: number; readonly messagesMax: number; readonly bytesMax: number },
  ): Promise<StoredRun>;
  /**
   * Counts these as sent from now on, as if they had been read: they leave by another way. Unknown logs are ignored.
   * @returns whether that is on the disk. Without that it holds until the process ends.
   */
  markSent(runs: readonly LogRun[]): Promise<boolean>;
  /**
   * What history has settled of this log; adds to what was said before. Unknown logs and sequences are ignored.
   * `whole`: it is all that history has, and what was settled before and is not in it waits again.
   */
  settle(logId: LogId, settled: RangeSet, whole?: boolean): void;
  /**
   * What of the log a confirmed backup of history has, all of it: takes the place of what was said before, and is forgotten at
   * the end of the process. Segments that are settled and in it as a whole are given back within seconds, but for the
   * newest `CompactionOptions.keepMessages` and the last one of each log. Unknown logs are ignored.
   */
  cover(logId: LogId, covered: RangeSet): void;
  /**
   * The newest durable frames over all logs, oldest of them first: for recognising re-deliveries at start. Up to
   * `CompactionOptions.keepMessages` of them are there as frames, if they take no more than a quarter of the buffer.
   * A log that cannot be read for now is left out.
   */
  recentFrames(countMax: number): Promise<Frame[]>;
  stats(): BufferStats;
  /** The durable end moved on. @returns a function that takes the listener away */
  onDurable(listener: () => void): () => void;
  /** From full to not full. @returns a function that takes the listener away */
  onSpace(listener: () => void): () => void;
  /** Commits what was appended, releases everything. What cannot be committed is not waited for; its callbacks never fire. */
  close(): Promise<void>;
}

export interface BufferOptions {
  readonly directory: string;
  readonly bytesMax: number;
  /** Size at which a segment is sealed; by default `bytesMax / 64`, within 1 to 16 MiB. */
  readonly segmentBytesMax?: number;
  /** Identifies the boot of this machine, which the monotonic times count from. */
  readonly bootId: string;
  readonly nowMs?: () => number;
  /** How long settled segments are kept when no space is needed; by default 72 hours. */
  readonly keepSettledMs?: number;
  /** Durable bytes kept in memory, so that a reader that keeps up needs no disk; by default 4 MiB. */
  readonly recentBytesMax?: number;
  /** Absent: what waits stays as it came. */
  readonly compaction?: CompactionOptions;
  readonly logger: BufferLogger;
  readonly files?: FileOperations;
}

export interface CompactionOptions {
  /** Closed with the buffer. */
  readonly compactor: Compactor;
  /** The newest messages, over all logs, that are kept as frames, for {@link DiskBuffer.recentFrames}. */
  readonly keepMessages: number;
  /** What happens when the buffer is nearly full of what waits: the oldest telemetry is thinned, or intake is refused. */
  readonly nearFull: 'thin' | 'push-back';
  /** How long a sealed segment waits for history before it is compacted, while there is room; by default a minute. */
  readonly waitMs?: number;
}

export type OpenOutcome =
  | { readonly outcome: 'open'; readonly buffer: DiskBuffer }
  | { readonly outcome: 'unusable'; readonly reason: string };
