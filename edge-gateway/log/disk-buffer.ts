/**
 * The gateway's disk buffer: the log of this run and the older ones that are not yet settled, in one folder.
 *
 *   <directory>/gateway.lock                     lock.ts
 *   <directory>/<logId>/<sequence>-<n>.segment   segment.ts, frame.ts: bytes; segment-scan.ts, log-reader.ts: reading
 *   <directory>/<logId>/<sequence>-<n>.blocks    block.ts: batches for the wire, made of a segment that waits
 *   <directory>/<logId>/settled.json             checkpoint.ts
 *   <directory>/<logId>/sent.ranges              sent-marks.ts
 *
 * log.ts appends and commits, recent-memory.ts holds what is new, recovery.ts finds the older logs at opening,
 * reclaim.ts says what is given back, compaction.ts what becomes blocks and what is thinned.
 *
 * It keeps: A (durable before it says so; given back only when settled), F (bytes, memory and waiting frames are
 * bounded; at the bound it refuses), I (damage is found, declared and never delivered), R (every opening starts a log
 * with a fresh id, so no copy or restored image of the folder ever gives a number twice).
 */
import { join } from 'node:path';
import { type LogId, newLogId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { hasBug } from '../../protocol/planted-bug.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import type { BufferOptions, BufferStats, DiskBuffer, OpenOutcome } from './buffer-api.ts';
import { createCompaction } from './compaction.ts';
import { codeOf, type FileOperations, nodeFiles } from './files.ts';
import { frameBytesAtMost, saltOf } from './frame.ts';
import { type LockOutcome, lockFolder } from './lock.ts';
import { createCurrentLog } from './log.ts';
import { createLogReader } from './log-reader.ts';
import {
  bytesOf,
  firstSequenceOf,
  type LogState,
  newLogState,
  noteSettledSegments,
  thinnedOf,
  unsettle,
} from './log-state.ts';
import { newestFrames } from './newest-frames.ts';
import { probe } from './probe.ts';
import { createRecentMemory } from './recent-memory.ts';
import { type Recovered, recoverLogs } from './recovery.ts';
import { BOOT_ID_BYTES_MAX, SEGMENT_HEADER_BYTES } from './segment.ts';
import { createSentMarks } from './sent-marks.ts';
import { createSpace } from './space.ts';

export type {
  BufferLogger,
  BufferOptions,
  BufferStats,
  CompactionOptions,
  DiskBuffer,
  LogInfo,
  LogRun,
  OpenOutcome,
  StoredRun,
} from './buffer-api.ts';
export type { FileOperations } from './files.ts';
export type { Frame, Message } from './frame.ts';

const MIB = 1024 * 1024;
const RECENT_BYTES_MAX = 4 * MIB;
const HOUSEKEEPING_MS = 10_000;

/**
 * Opens the buffer in `directory`, which is made if it is not there, and starts a new log in it.
 * @throws RangeError when `bootId` exceeds 75 bytes
 */
export async function openDiskBuffer(options: BufferOptions): Promise<OpenOutcome> {
  const { directory, bootId, logger } = options;
  const files = options.files ?? nodeFiles;
  const nowMs = options.nowMs ?? Date.now;
  if (Buffer.byteLength(bootId) > BOOT_ID_BYTES_MAX)
    throw new RangeError(`boot id of over ${BOOT_ID_BYTES_MAX} bytes`);
  let release = () => Promise.resolve();
  try {
    await files.makeFolder(directory);
    const lock = await lockUnlessFull();
    if (lock.outcome === 'refused') return { outcome: 'unusable', reason: lock.reason };
    release = lock.release;
    const deviceAnswers = () => probe(files, directory);
    const recovered = await recoverLogs({ files, directory, nowMs: nowMs(), deviceAnswers, logger });
    return { outcome: 'open', buffer: startBuffer(options, files, recovered, deviceAnswers, release) };
  } catch (error) {
    await release();
    if (codeOf(error) === '') throw error;
    return { outcome: 'unusable', reason: reasonOf(error as Error) };
  }

  async function lockUnlessFull(): Promise<LockOutcome> {
    try {
      return await lockFolder(directory, bootId);
    } catch (error) {
      if (codeOf(error) !== 'ENOSPC') throw error;
      // What is stored must drain all the same, and frees space by that.
      logger.warn({ directory }, 'no space left for the lock file: going on without one');
      return { outcome: 'held', release };
    }
  }

  function reasonOf(error: Error): string {
    const code = codeOf(error);
    if (code === 'EROFS') return `the buffer folder ${directory} is on a read-only file system`;
    if (code === 'EACCES' || code === 'EPERM')
      return `no permission for the buffer folder ${directory}: ${error.message}`;
    if (code === 'ENOTDIR' || code === 'EEXIST') return `${directory} is not a folder`;
    return `the buffer folder ${directory} cannot be used: ${error.message}`;
  }
}

function startBuffer(
  options: BufferOptions,
  files: FileOperations,
  recovered: Recovered,
  deviceAnswers: () => Promise<boolean>,
  release: () => Promise<void>,
): DiskBuffer {
  const { directory, bytesMax, logger, bootId } = options;
  const nowMs = options.nowMs ?? Date.now;
  const segmentBytesMax =
    options.segmentBytesMax ?? Math.min(16 * MIB, Math.max(MIB, Math.floor(bytesMax / 64)));
  const generation = Math.max(0, ...recovered.logs.map(log => log.generation)) + 1;
  const logId = hasBug('reuse-log-id') ? (String(generation).padStart(32, '0') as LogId) : newLogId(nowMs());
  const state = newLogState({
    logId,
    folder: join(directory, logId),
    generation,
    bootId,
    current: true,
  });
  const logs: LogState[] = [...recovered.logs, state];
  const memory = createRecentMemory({
    salt: saltOf(logId),
    chunkBytes: Math.min(MIB, segmentBytesMax),
    bytesMax: options.recentBytesMax ?? RECENT_BYTES_MAX,
  });
  const readLog = createLogReader({ files, memory, deviceAnswers, logger });
  const { claim, mark } = createSentMarks({ files, logger });
  const durableListeners = new Set<() => void>();
  const spaceListeners = new Set<() => void>();
  /** Room for a file in the making: blocks take less than half of what they are made of, or are not made. */
  const reserveBytes = options.compaction ? Math.floor(segmentBytesMax / 2) : 0;
  const space = createSpace({
    files,
    logs,
    foreignBytes: recovered.foreignBytes,
    keepSettledMs: options.keepSettledMs ?? limits.keepSettledMs,
    keepNewest: {
      messages: options.compaction?.keepMessages ?? 0,
      bytesMax: (bytesMax - reserveBytes) / 4,
    },
    nowMs,
    logger,
  });
  let messagesRefused = 0;
  /** Bytes of the message that was refused; null when there is room as far as anybody knows. */
  let refusedBytes: number | null = null;
  let closed = false;

  const log = createCurrentLog({
    files,
    state,
    bootId,
    memory,
    segmentBytesMax,
    nowMs,
    logger,
    bytesChanged: space.grow,
    spaceWanted: bytes => {
      if (space.reclaim(bytes) > 0) void space.idle().then(log.retrySoon);
    },
    committed: () => {
      for (const listener of durableListeners) listener();
      tellSpace();
      lookAfterSealing();
    },
    rested: tellSpace,
  });
  const compaction = options.compaction
    ? createCompaction({
        ...options.compaction,
        files,
        logs,
        space,
        bytesMax: bytesMax - reserveBytes,
        reserveBytes,
        pendingBytes: () => memory.pendingBytes,
        nowMs,
        logger,
        spaceGained: tellSpace,
      })
    : null;
  let segmentSeen = state.segments.at(-1);
  function lookAfterSealing(): void {
    if (state.segments.at(-1) === segmentSeen) return;
    segmentSeen = state.segments.at(-1);
    compaction?.look();
  }
  const housekeeping = setInterval(() => {
    space.keepHouse();
    tellSpace();
    compaction?.look();
  }, HOUSEKEEPING_MS);
  housekeeping.unref();
  space.keepHouse();
  compaction?.look();
  logger.info({ directory, logId, logs: logs.length, bytes: space.diskBytes, bytesMax }, 'disk buffer open');

  const usedBytes = (): number => space.diskBytes + memory.pendingBytes;

  /** Headers of the segments that waiting frames may open: any two in a row are longer than the limit of one. */
  const headerBytes = (waiting: number): number =>
    SEGMENT_HEADER_BYTES * (2 + Math.ceil((2 * waiting) / segmentBytesMax));

  /** Whether `bytes` more stay within the bound. */
  function fits(bytes: number): boolean {
    const over = () =>
      usedBytes() + bytes + headerBytes(memory.pendingBytes + bytes) - (bytesMax - reserveBytes);
    if (over() <= 0) return true;
    space.reclaim(Math.max(over(), segmentBytesMax));
    if (over() <= 0) return true;
    // All that holds the space may be the settled segment in work.
    const inWork = state.segments.at(-1);
    if (!inWork || inWork.sealed || !state.settled.covers(inWork.firstSequence, inWork.nextSequence))
      return false;
    if (!log.sealNow()) return false;
    space.reclaim(over());
    return over() <= 0;
  }

  function tellSpace(): void {
    if (refusedBytes === null || closed || !log.accepts(refusedBytes) || !fits(refusedBytes)) return;
    refusedBytes = null;
    for (const listener of spaceListeners) listener();
  }

  function stats(): BufferStats {
    const timings = [...log.stats.timingsMs].sort((a, b) => a - b);
    const at = (share: number) => timings[Math.floor(share * (timings.length - 1))] ?? 0;
    const unsettled = (owner: LogState) =>
      owner.nextSequence -
      firstSequenceOf(owner) -
      within(owner, owner.settled.union(owner.lost).union(owner.missing));
    return {
      bytes: usedBytes(),
      bytesMax,
      full: refusedBytes !== null,
      logs: logs.length,
      segments: logs.reduce((sum, owner) => sum + owner.segments.length, 0),
      messagesUnsettled: logs.reduce((sum, owner) => sum + unsettled(owner), 0),
      messagesLost: logs.reduce((sum, owner) => sum + owner.lost.size, 0),
      messagesAppended: log.nextSequence - 1,
      messagesRefused,
      messagesPending: log.nextSequence - state.nextSequence,
      fsyncs: log.stats.fsyncs,
      fsyncMs: { p50: at(0.5), p99: at(0.99), max: at(1) },
      writeErrors: log.stats.writeErrors,
      bytesReclaimed: space.bytesReclaimed,
      messagesThinned: logs.reduce((sum, owner) => sum + thinnedOf(owner).size, 0),
      segmentsCompacted: compaction?.state.segmentsCompacted ?? 0,
      segmentsWaiting: compaction?.state.segmentsWaiting ?? 0,
      compactionFailures: compaction?.state.failures ?? 0,
    };
  }

  const ownerOf = (id: LogId): LogState | undefined => logs.find(owner => owner.logId === id);

  return {
    current: logId,

    logs: () =>
      logs.map(owner => ({
        logId: owner.logId,
        current: owner.current,
        firstSequence: firstSequenceOf(owner),
        nextSequence: owner.nextSequence,
        lost: owner.lost,
        missing: owner.gone
          ? owner.missing.union(owner.gone.ranges.difference(owner.settled))
          : owner.missing,
        settled: owner.settled,
        thinned: thinnedOf(owner),
        bytes: bytesOf(owner),
        bootId: owner.bootId,
      })),

    append(message, onDurable) {
      if (closed) throw new Error('append to a closed buffer');
      const bytes = frameBytesAtMost(message);
      if (refusedBytes !== null || !log.accepts(bytes) || !fits(bytes)) {
        if (refusedBytes === null) compaction?.look();
        refusedBytes = bytes;
        messagesRefused++;
        return 'full';
      }
      log.append(message, hasBug('puback-before-sync') ? () => {} : onDurable);
      if (hasBug('puback-before-sync')) onDurable();
      return 'accepted';
    },

    async read(id, fromSequence, { toSequence = Number.MAX_SAFE_INTEGER, messagesMax, bytesMax }) {
      const owner = ownerOf(id);
      if (!owner) return { form: 'frames', frames: [] };
      return readLog(owner, fromSequence, { toSequence, messagesMax, bytesMax }, claim);
    },

    async markSent(runs) {
      const marked = await Promise.all(
        runs.map(({ logId: id, from, to }) => {
          const owner = ownerOf(id);
          return owner ? mark(owner, from, to) : true;
        }),
      );
      // What was being thinned goes as it is then; nothing marked is thinned after that (B).
      await compaction?.workDone();
      return marked.every(isDurable => isDurable);
    },

    settle(id, settled, whole = false) {
      const owner = ownerOf(id);
      if (!owner) return;
      const back = whole ? owner.settled.difference(settled) : RangeSet.empty;
      if (!back.isEmpty) {
        unsettle(owner, back, nowMs());
        const gone = owner.gone?.ranges.toString();
        logger.warn(
          { logId: id, ranges: back.toString(), ...(gone && { gone }) },
          'history has gone back: what it lacks is kept for it',
        );
      }
      // History cannot have what was never sent; taking such a word for it would give back frames still to come.
      const news = settled.difference(owner.settled).subtract(owner.nextSequence, Number.MAX_SAFE_INTEGER);
      if (news.isEmpty) return;
      owner.settled = owner.settled.union(news);
      owner.lost = owner.lost.difference(owner.settled);
      owner.missing = owner.missing.difference(owner.settled);
      owner.checkpointStale = true;
      noteSettledSegments(owner, nowMs());
      tellSpace();
    },

    cover(id, covered) {
      const owner = ownerOf(id);
      // What is given back is decided by `settled` all the same: this only says that nobody will ask for it again.
      if (owner) owner.covered = covered;
    },

    recentFrames: countMax => newestFrames(readLog, logs, countMax, logger),

    stats,

    onDurable(listener) {
      durableListeners.add(listener);
      return () => void durableListeners.delete(listener);
    },

    onSpace(listener) {
      spaceListeners.add(listener);
      return () => void spaceListeners.delete(listener);
    },

    async close() {
      if (closed) return;
      closed = true;
      clearInterval(housekeeping);
      await log.close();
      await compaction?.close();
      await space.end();
      await release().catch(error => logger.warn({ err: error }, 'the lock file could not be removed'));
    },
  };
}

/** How many of the sequences still on disk are in the set. */
function within(owner: LogState, set: RangeSet): number {
  return set.subtract(0, firstSequenceOf(owner)).subtract(owner.nextSequence, Number.MAX_SAFE_INTEGER).size;
}
