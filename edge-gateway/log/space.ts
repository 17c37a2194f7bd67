/**
 * The bytes on disk: how many there are, and giving back what is settled. Deleting happens behind the caller's back,
 * one after the other; the bytes count as free at once, and again as used when a file cannot be removed.
 */

import type { BufferLogger } from './buffer-api.ts';
import { writeCheckpoint } from './checkpoint.ts';
import { codeOf, type FileOperations } from './files.ts';
import {
  bytesOf,
  checkpointOf,
  type LogState,
  noteGone,
  noteSettledSegments,
  olderThanNewest,
} from './log-state.ts';
import { planReclaim } from './reclaim.ts';
import { removeLog } from './recovery.ts';
import type { BlockSegment, Segment } from './segment.ts';

/** Beyond so many logs (a box that restarts all the time), settled ones are not kept for longer. */
const LOGS_KEPT_MAX = 256;

export interface SpaceOptions {
  readonly files: FileOperations;
  /** Oldest first, the current one last; logs with nothing left are taken out. */
  readonly logs: LogState[];
  readonly foreignBytes: number;
  readonly keepSettledMs: number;
  /** Which messages are not given back for being covered by a backup: the newest over all logs. */
  readonly keepNewest: { readonly messages: number; readonly bytesMax: number };
  readonly nowMs: () => number;
  readonly logger: BufferLogger;
}

export interface Space {
  readonly diskBytes: number;
  readonly bytesReclaimed: number;
  /** Bytes were added to segments (or, negative, taken). */
  grow(difference: number): void;
  /** Puts one segment in the place of those it was made of, which are neighbours; their files go. */
  replace(owner: LogState, segments: readonly Segment[], by: BlockSegment): void;
  /** Gives back settled segments until `bytesToFree` are free, and those past their time or covered. @returns bytes freed */
  reclaim(bytesToFree: number): number;
  /** What is due from time to time: old segments, checkpoints, files that could not be removed. */
  keepHouse(): void;
  /** When all that was begun is done. */
  idle(): Promise<void>;
  /** Writes the last checkpoints; the current log has ended. */
  end(): Promise<void>;
}

export function createSpace(o: SpaceOptions): Space {
  const { files, logs, logger } = o;
  let diskBytes = o.foreignBytes + logs.reduce((sum, log) => sum + bytesOf(log), 0);
  let bytesReclaimed = 0;
  /** Files whose removal failed, still counted. */
  const undeletable = new Map<string, number>();
  let cleaning: Promise<void> = Promise.resolve();

  async function remove(path: string, bytes: number): Promise<void> {
    try {
      await files.remove(path);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') {
        if (undeletable.has(path)) return;
        logger.error({ err: error, path }, 'a settled segment could not be removed');
        undeletable.set(path, bytes);
        diskBytes += bytes;
        return;
      }
    }
    if (undeletable.delete(path)) diskBytes -= bytes;
  }

  async function dropIfDone(owner: LogState): Promise<void> {
    if (owner.current || owner.segments.length > 0 || !owner.lost.isEmpty || owner.gone) return;
    const index = logs.indexOf(owner);
    if (index < 0) return;
    logs.splice(index, 1);
    await removeLog(files, owner.folder);
  }

  async function saveCheckpoint(owner: LogState, ended: boolean): Promise<void> {
    // The current log has no folder before its first segment.
    if (!owner.checkpointStale || owner.nextSequence === 1) return;
    owner.checkpointStale = false;
    // A log whose bytes may be in the page cache only is looked at anew at the next start.
    const endedAtBytes = ended && owner.synced ? (owner.segments.at(-1)?.bytes ?? 0) : null;
    try {
      await writeCheckpoint(files, owner.folder, checkpointOf(owner, endedAtBytes));
    } catch (error) {
      owner.checkpointStale = true;
      logger.warn({ err: error, logId: owner.logId }, 'checkpoint not written');
    }
  }

  /**
   * The last one of a log stays for its time: with it the log goes on being named to the cloud, so that what a history
   * restored from an older backup than the confirmed one lacks is declared lost, in the open (I).
   */
  function coveredSegments(): ReadonlySet<Segment> {
    const covered = new Set<Segment>();
    if (logs.every(log => log.covered.isEmpty)) return covered;
    for (const { log, segment } of olderThanNewest(logs, o.keepNewest)) {
      if (segment === log.segments.at(-1)) continue;
      if (log.covered.covers(segment.firstSequence, segment.nextSequence)) covered.add(segment);
    }
    return covered;
  }

  function reclaim(bytesToFree: number): number {
    const nowMs = o.nowMs();
    for (const log of logs) if (log.current) noteSettledSegments(log, nowMs);
    const covered = coveredSegments();
    const candidates = logs.flatMap(owner =>
      owner.segments
        .filter(segment => segment.sealed && segment.work === null)
        .map(segment => ({
          owner,
          segment,
          bytes: segment.bytes,
          settledAtMs: segment.settledAtMs,
          covered: covered.has(segment),
        })),
    );
    const keepSettledMs = logs.length > LOGS_KEPT_MAX ? 0 : o.keepSettledMs;
    const plan = planReclaim(candidates, { bytesToFree, nowMs, keepSettledMs });
    if (plan.length === 0) return 0;
    let freed = 0;
    for (const { owner, segment } of plan) {
      owner.segments.splice(owner.segments.indexOf(segment), 1);
      owner.checkpointStale = true;
      freed += segment.bytes;
    }
    diskBytes -= freed;
    bytesReclaimed += freed;
    logger.info({ segments: plan.length, bytes: freed, diskBytes }, 'settled segments given back');
    const owners = new Set(plan.map(({ owner }) => owner));
    cleaning = cleaning.then(async () => {
      // The checkpoint first, so that a restart does not call them lost; without it they are declared, and harmless.
      for (const owner of owners) await saveCheckpoint(owner, !owner.current);
      for (const { segment } of plan) await remove(segment.path, segment.bytes);
      for (const owner of owners) await dropIfDone(owner);
    });
    return freed;
  }

  return {
    get diskBytes() {
      return diskBytes;
    },
    get bytesReclaimed() {
      return bytesReclaimed;
    },
    grow(difference) {
      diskBytes += difference;
    },
    replace(owner, segments, by) {
      owner.segments.splice(owner.segments.indexOf(segments[0]!), segments.length, by);
      owner.checkpointStale = true;
      diskBytes += by.bytes - segments.reduce((sum, segment) => sum + segment.bytes, 0);
      cleaning = cleaning.then(async () => {
        for (const segment of segments) await remove(segment.path, segment.bytes);
      });
    },
    reclaim,
    keepHouse() {
      for (const log of logs) {
        const news = noteGone(log, o.nowMs());
        if (news !== null) logger.error({ logId: log.logId, lost: log.lost.toString() }, news);
      }
      reclaim(0);
      cleaning = cleaning.then(async () => {
        for (const [path, bytes] of [...undeletable]) await remove(path, bytes);
        for (const owner of [...logs]) {
          await saveCheckpoint(owner, !owner.current);
          await dropIfDone(owner);
        }
      });
    },
    idle: () => cleaning,
    async end() {
      await cleaning;
      for (const owner of logs) {
        // The end of the current log is news even when no settlement is.
        if (owner.current) owner.checkpointStale = true;
        await saveCheckpoint(owner, true);
      }
    },
  };
}
