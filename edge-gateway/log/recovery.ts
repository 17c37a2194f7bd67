/**
 * Finds the older logs of a buffer at its opening. They are read-only from then on.
 *
 * Cheap, because a box must be up again at once: names and sizes of all segments and the header of each, but records
 * only of the last segment of a log that has not ended properly. There the end is searched: what stands behind the
 * last right frame was never acknowledged and is left out (the torn tail), and what can be read is fdatasynced, since
 * a killed process leaves frames in the page cache that no disk has seen. Damage inside is found when it is read.
 */
import { join } from 'node:path';
import { isLogId, type LogId } from '../../protocol/ids.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import type { BufferLogger } from './buffer-api.ts';
import { readCheckpoint, writeCheckpoint } from './checkpoint.ts';
import type { FileOperations } from './files.ts';
import { type FoundSegments, findSegments } from './found-segments.ts';
import { FRAME_HEADER_BYTES, saltOf } from './frame.ts';
import {
  checkpointOf,
  firstSequenceOf,
  type LogState,
  newLogState,
  noteLost,
  noteSettledSegments,
} from './log-state.ts';
import { BLOCKS_HEADER_BYTES, isKnownVersion, SEGMENT_HEADER_BYTES, type Segment } from './segment.ts';
import { scanSegment } from './segment-scan.ts';
import { ALL_SENT, readSent, writeSent } from './sent-marks.ts';

export interface RecoveryOptions {
  readonly files: FileOperations;
  readonly directory: string;
  readonly nowMs: number;
  readonly deviceAnswers: () => Promise<boolean>;
  readonly logger: BufferLogger;
}

export interface Recovered {
  /** Oldest first. */
  readonly logs: LogState[];
  /** Logs in a format of a newer version: kept, counted, not read. */
  readonly foreignBytes: number;
}

/** Rejects with the system error when the folder cannot be read. */
export async function recoverLogs(o: RecoveryOptions): Promise<Recovered> {
  const logs: LogState[] = [];
  let foreignBytes = 0;
  for (const name of await o.files.list(o.directory)) {
    if (!isLogId(name)) continue;
    const found = await recoverLog(name, o);
    if (found === null) continue;
    if ('foreignBytes' in found) foreignBytes += found.foreignBytes;
    else logs.push(found);
  }
  // The generation first: a box that lost its clock makes log ids that sort before older ones.
  logs.sort((a, b) => a.generation - b.generation || (a.logId < b.logId ? -1 : 1));
  return { logs, foreignBytes };
}

/** @returns null when the log holds nothing any more; its folder is gone then. */
async function recoverLog(
  logId: LogId,
  o: RecoveryOptions,
): Promise<LogState | { foreignBytes: number } | null> {
  const { files, logger } = o;
  const folder = join(o.directory, logId);
  const found = await findSegments(files, folder, saltOf(logId));
  const { headers, segments } = found;
  const foreign = headers.find(header => !isKnownVersion(header) || header.logId !== logId);
  if (foreign) {
    const bytes = [...segments, ...found.replaced].reduce((sum, segment) => sum + segment.bytes, 0);
    const { version, logId: writtenAs } = foreign;
    logger.error(
      { logId, bytes, version, writtenAs },
      'a log of a newer version or another name: kept, not read',
    );
    return { foreignBytes: bytes };
  }
  await removeReplaced(found);
  const checkpoint = await readCheckpoint(files, folder);
  const marked = await readSent(files, folder);
  // Where the checkpoint is gone, the mark still says it: it is only in copies that all is marked.
  const isCopy = checkpoint?.isCopy ?? marked.equals(ALL_SENT);
  const tail = segments.at(-1);
  const ended =
    checkpoint !== null &&
    tail?.form !== 'blocks' &&
    checkpoint.endedAtBytes === (tail?.bytes ?? 0) &&
    checkpoint.nextSequence >= (tail?.firstSequence ?? 1);
  const log = newLogState({
    logId,
    folder,
    generation: headers[0]?.generation ?? checkpoint?.generation ?? 0,
    bootId: headers[0]?.bootId ?? checkpoint?.bootId ?? null,
    current: false,
    segments,
    nextSequence: checkpoint && (ended || !isCopy) ? checkpoint.nextSequence : 1,
    settled: checkpoint?.settled ?? RangeSet.empty,
    sent: isCopy ? ALL_SENT : marked,
    isCopy,
    // Blocks are on the disk before they have their name.
    synced: tail?.form !== 'frames' || ended || (await isSynced(tail)),
  });
  if (tail && ended) tail.nextSequence = log.nextSequence;
  else if (tail) await findEnd(log, tail, o);
  noteLost(log, 1, firstSequenceOf(log));
  for (const segment of segments) {
    segment.settledAtMs = checkpoint?.settledAtMs[segment.firstSequence] ?? null;
  }
  noteSettledSegments(log, o.nowMs);
  const holdsNothing = log.nextSequence === 1 || (segments.length === 0 && log.lost.isEmpty);
  if (holdsNothing) {
    await removeLog(files, folder);
    return null;
  }
  if (isCopy && !marked.equals(ALL_SENT)) await writeSent(files, folder, ALL_SENT).catch(notMarked);
  if (!ended && log.synced) {
    await writeCheckpoint(files, folder, checkpointOf(log, tail?.bytes ?? 0)).catch(error =>
      logger.warn({ err: error, logId }, 'checkpoint not written; the next start reads this tail again'),
    );
  }
  return log;

  function notMarked(error: unknown): void {
    logger.warn({ err: error, logId }, 'a copy could not be marked: only its checkpoint says what it is');
  }

  async function isSynced(segment: Segment): Promise<boolean> {
    try {
      const file = await files.openToRead(segment.path);
      await file.datasync().finally(() => file.close());
      await files.syncFolder(folder);
      await files.syncFolder(o.directory);
      return true;
    } catch (error) {
      logger.error(
        { err: error, logId },
        'a log could not be synced: read, but not trusted for re-deliveries',
      );
      return false;
    }
  }

  async function removeReplaced({ replaced, unfinished }: FoundSegments): Promise<void> {
    if (replaced.length + unfinished.length === 0) return;
    try {
      // The name of what counts instead is on the disk first.
      await files.syncFolder(folder);
      for (const path of [...replaced.map(segment => segment.path), ...unfinished]) await files.remove(path);
    } catch (error) {
      logger.warn({ err: error, logId }, 'files that were replaced by compaction could not be removed');
    }
  }
}

/** Looks for the last right record of a log of which no checkpoint says where it ended. */
async function findEnd(log: LogState, tail: Segment, o: RecoveryOptions): Promise<void> {
  if (tail.form === 'blocks' && tail.nextSequence > tail.firstSequence) {
    // Its header says it.
    noteLost(log, tail.nextSequence, log.nextSequence);
    log.nextSequence = Math.max(log.nextSequence, tail.nextSequence);
    tail.nextSequence = log.nextSequence;
    return;
  }
  const lost: { from: number; to: number }[] = [];
  const end = await scanSegment(
    tail,
    {
      sequence: tail.firstSequence,
      offset: tail.form === 'frames' ? SEGMENT_HEADER_BYTES : BLOCKS_HEADER_BYTES,
      window: null,
    },
    {
      files: o.files,
      salt: log.salt,
      sequenceTo:
        tail.form === 'frames'
          ? tail.firstSequence + Math.floor(tail.bytes / FRAME_HEADER_BYTES) + 1
          : Number.MAX_SAFE_INTEGER,
      deviceAnswers: o.deviceAnswers,
      visit: () => true,
      lost: (from, to) => lost.push({ from, to }),
    },
  );
  for (const { from, to } of lost) noteLost(log, from, to);
  // A checkpoint that knows of more durable messages than can be found: those were acknowledged, so they are lost.
  noteLost(log, end.sequence, log.nextSequence);
  log.nextSequence = Math.max(log.nextSequence, end.sequence);
  tail.nextSequence = log.nextSequence;
  const tornBytes = Math.max(0, tail.bytes - Math.max(end.offset, SEGMENT_HEADER_BYTES));
  const { logId, nextSequence, lost: unreadable, missing } = log;
  const found = {
    logId,
    nextSequence,
    lost: unreadable.toString(),
    missing: missing.toString(),
    tornBytes,
  };
  if (tornBytes > 0)
    o.logger.warn(found, 'log did not end properly; its torn tail, never acknowledged, is left out');
  else o.logger.info(found, 'log did not end properly; nothing is missing at its end');
}

/** Removes what is left of a log. Best effort: a remainder is found again at the next start. */
export async function removeLog(files: FileOperations, folder: string): Promise<void> {
  try {
    for (const name of await files.list(folder)) await files.remove(join(folder, name));
    await files.removeFolder(folder);
  } catch {
    return;
  }
}
