/**
 * The current log: appends gather in memory, one writer commits them in groups, and only then are they said to be
 * durable (invariant A).
 *
 *   idle ──append──▶ committing ──nothing waits──▶ idle
 *                      │    ▲
 *       failed twice   ▼    │ time is up, or space was freed
 *                   backingOff            any ──close──▶ closed
 *
 * A group is one write and one fdatasync; what arrives meanwhile is the next group. After any error the segment is
 * abandoned where its durable frames end, and never written or synced again, because a kernel may have dropped the
 * pages and report the next fdatasync as done. The group is still in memory and goes to a fresh segment; if that
 * fails too, it is held and tried again later, and appends are refused meanwhile (invariant F).
 */
import { dirname } from 'node:path';
import { hasBug } from '../../protocol/planted-bug.ts';
import { codeOf, type FileOperations, type OpenFile, writeFully } from './files.ts';
import type { Message } from './frame.ts';
import type { LogState } from './log-state.ts';
import type { Group, RecentMemory } from './recent-memory.ts';
import { encodeHeader, type FrameSegment, newSegment, segmentPath } from './segment.ts';

/** Appended and not durable: beyond this, appends are refused. */
const PENDING_BYTES_MAX = 16 * 1024 * 1024;
const BACKOFF_FIRST_MS = 100;
const BACKOFF_MAX_MS = 5_000;
const TIMINGS_KEPT = 512;

export interface CommitStats {
  fsyncs: number;
  writeErrors: number;
  /** The last {@link TIMINGS_KEPT} groups, in no order, milliseconds. */
  readonly timingsMs: number[];
}

export interface CurrentLogOptions {
  readonly files: FileOperations;
  readonly state: LogState;
  readonly bootId: string;
  readonly memory: RecentMemory;
  readonly segmentBytesMax: number;
  readonly nowMs: () => number;
  readonly logger: {
    error(details: object, message: string): void;
    info(details: object, message: string): void;
  };
  /** Bytes of segments have come (positive) or gone. */
  readonly bytesChanged: (difference: number) => void;
  /** The disk has no space left, whoever filled it: give back what can be. */
  readonly spaceWanted: (bytes: number) => void;
  /** Durable frames were added and their callbacks called. */
  readonly committed: () => void;
  /** The writer has come to rest, or a segment was sealed: time to look whether there is room. */
  readonly rested: () => void;
}

export interface CurrentLog {
  readonly stats: CommitStats;
  readonly nextSequence: number;
  /** Whether the writer takes more: it is not failing, and what waits is within its bound. */
  accepts(bytes: number): boolean;
  append(message: Message, onDurable: () => void): void;
  /** Seals the segment in work if it is at rest and holds frames, so that it can be reclaimed. @returns whether it did */
  sealNow(): boolean;
  /** Ends a waiting back-off: space was freed. */
  retrySoon(): void;
  close(): Promise<void>;
}

type Phase =
  | { readonly phase: 'idle' }
  | { readonly phase: 'committing' }
  | { readonly phase: 'backingOff'; readonly wake: () => void }
  | { readonly phase: 'closed' };

interface OpenSegment {
  readonly segment: FrameSegment;
  readonly file: OpenFile;
}

export function createCurrentLog(o: CurrentLogOptions): CurrentLog {
  const { files, state, memory } = o;
  const stats: CommitStats = { fsyncs: 0, writeErrors: 0, timingsMs: [] };
  let nextSequence = 1;
  let phase: Phase = { phase: 'idle' };
  let running: Promise<void> = Promise.resolve();
  let closing = false;
  let inWork: OpenSegment | null = null;
  let folderMade = false;
  let attempt = 0;
  let lettingGo: Promise<void> = Promise.resolve();

  async function startSegment(firstSequence: number): Promise<OpenSegment> {
    if (!folderMade) {
      await files.makeFolder(state.folder);
      await files.syncFolder(dirname(state.folder));
      folderMade = true;
    }
    const segment = newSegment(segmentPath(state.folder, firstSequence, attempt++ % 10_000), firstSequence);
    const file = await files.create(segment.path);
    const { logId, generation } = state;
    const header = { createdAtMs: o.nowMs(), firstSequence, generation, logId, bootId: o.bootId };
    inWork = { segment, file };
    await writeFully(file, encodeHeader(header), 0);
    return inWork;
  }

  /** Closing a file gives no news about its data: what counts was fdatasynced. */
  function letGo(file: OpenFile): void {
    lettingGo = lettingGo.then(() =>
      file.close().catch(error => o.logger.error({ err: error }, 'a segment file could not be closed')),
    );
  }

  function seal(): void {
    if (!inWork) return;
    inWork.segment.sealed = true;
    letGo(inWork.file);
    inWork = null;
  }

  /** Throws the system error when the group did not become durable. */
  async function commit(group: Group): Promise<void> {
    const bytes = group.bytes.length;
    if (inWork && inWork.segment.bytes + bytes > o.segmentBytesMax) seal();
    const fresh = inWork === null;
    const { segment, file } = inWork ?? (await startSegment(group.firstSequence));
    const startedMs = performance.now();
    await writeFully(file, group.bytes, segment.bytes);
    if (!hasBug('no-sync')) await file.datasync();
    if (fresh) await files.syncFolder(state.folder);
    stats.timingsMs[stats.fsyncs++ % TIMINGS_KEPT] = performance.now() - startedMs;
    if (fresh) state.segments.push(segment);
    segment.bytes += bytes;
    segment.nextSequence = group.nextSequence;
    state.nextSequence = group.nextSequence;
    o.bytesChanged(fresh ? segment.bytes : bytes);
  }

  async function abandon(group: Group): Promise<void> {
    if (!inWork) return;
    const { segment } = inWork;
    const durable = segment.nextSequence > segment.firstSequence;
    seal();
    if (durable) {
      // The failed bytes lie behind its end; whoever reads it stops at the last durable sequence.
      segment.bytes += group.bytes.length;
      o.bytesChanged(group.bytes.length);
      return;
    }
    // Nothing counts on this file; if it cannot be removed, its place in the order says that it holds nothing.
    await files.remove(segment.path).catch(() => undefined);
  }

  function backOff(failures: number): Promise<void> {
    const delayMs = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** (failures - 2));
    return new Promise(resolve => {
      const timer = setTimeout(wake, delayMs);
      phase = { phase: 'backingOff', wake };
      function wake(): void {
        clearTimeout(timer);
        resolve();
      }
    });
  }

  async function run(): Promise<void> {
    let failures = 0;
    for (let group = memory.nextGroup(); group; group = memory.nextGroup()) {
      phase = { phase: 'committing' };
      try {
        await commit(group);
      } catch (error) {
        failures++;
        stats.writeErrors++;
        const held = { bytes: memory.pendingBytes, failures };
        o.logger.error({ err: error, ...held }, 'a group could not be stored; segment abandoned');
        await abandon(group);
        if (codeOf(error) === 'ENOSPC') o.spaceWanted(group.bytes.length);
        if (closing && failures > 1) return;
        if (failures > 1) await backOff(failures);
        continue;
      }
      if (failures > 0) o.logger.info({ failures }, 'the disk takes data again');
      failures = 0;
      for (const onDurable of memory.settleGroup(group)) guarded(onDurable);
      guarded(o.committed);
    }
    if (closing) return;
    // In the same turn as the look at what waits, so that no append falls between the two.
    phase = { phase: 'idle' };
    guarded(o.rested);
  }

  /** One wrong callback must not keep the others from theirs. */
  function guarded(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      o.logger.error({ err: error }, 'a callback of the log threw');
    }
  }

  function start(): void {
    phase = { phase: 'committing' };
    // After this turn of the loop, so that the messages of one network read make one group.
    running = new Promise(resolve => setImmediate(resolve)).then(run);
  }

  return {
    stats,
    get nextSequence() {
      return nextSequence;
    },

    accepts: bytes =>
      !closing &&
      phase.phase !== 'backingOff' &&
      (memory.pendingBytes === 0 || memory.pendingBytes + bytes <= PENDING_BYTES_MAX),

    append(message, onDurable) {
      memory.append(message, nextSequence, onDurable);
      nextSequence++;
      if (phase.phase === 'idle') start();
    },

    sealNow() {
      if (phase.phase !== 'idle' || !inWork) return false;
      seal();
      return true;
    },

    retrySoon() {
      if (phase.phase === 'backingOff') phase.wake();
    },

    async close() {
      closing = true;
      if (phase.phase === 'backingOff') phase.wake();
      await running;
      phase = { phase: 'closed' };
      seal();
      await lettingGo;
    },
  };
}
