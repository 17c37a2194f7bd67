/**
 * A disk buffer as anybody may read it: beside the gateway that has it open, or after that one is dead and its card
 * sits in another machine. Nothing is locked, written or removed.
 *
 * It sees what a restart would see, because it runs the same recovery (recovery.ts) with a file system that takes no
 * writes: the tail of a log counts as far as right frames stand in it, and is fdatasynced before it is believed, so that
 * a power cut behind our back cannot take away what was read here. It sees the buffer as it was at opening: what is
 * appended later is left out.
 *
 * A running gateway gives settled segments back and compacts sealed ones. A file that is gone is therefore no damage:
 * the folder is listed again, and reading goes on with what stands there now.
 */
import { stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { LogId } from '../../protocol/ids.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import type { DiskBuffer } from './buffer-api.ts';
import { CHECKPOINT_NAME, readCheckpoint } from './checkpoint.ts';
import { codeOf, type FileOperations, nodeFiles } from './files.ts';
import { createLogReader } from './log-reader.ts';
import { firstSequenceOf, type LogState } from './log-state.ts';
import { createRecentMemory } from './recent-memory.ts';
import { type Recovered, recoverLogs } from './recovery.ts';

export interface ReadOnlyLog {
  readonly logId: LogId;
  /** The first sequence still on disk. */
  readonly firstSequence: number;
  /** One past the last that was readable at opening. */
  readonly nextSequence: number;
  /** As the gateway had noted it at opening: it may know of more by now. */
  readonly settled: RangeSet;
}

export interface ReadOnlyBuffer extends Pick<DiskBuffer, 'read'> {
  /** Oldest first; one that holds nothing is not there. */
  readonly logs: readonly ReadOnlyLog[];
  /** Lists the files anew: what was thinned meanwhile is read thinned. The ends of the logs stay. Rejects with the system error. */
  lookAgain(): Promise<void>;
  /** Bytes of logs that a newer version wrote, which cannot be read here. */
  readonly foreignBytes: number;
  /** Messages that are not settled and cannot be read, as far as reading has found by now. */
  unreadable(): Promise<number>;
}

export type ReadOnlyOutcome =
  | { readonly outcome: 'open'; readonly buffer: ReadOnlyBuffer }
  | { readonly outcome: 'unusable'; readonly reason: string };

/** A file that was there when its folder was listed. */
const GONE = 'EGONE';
/** How often in a row the buffer may change under us. */
const ATTEMPTS_MAX = 20;

const silent = { info() {}, warn() {}, error() {} };

/** @param directory the buffer's own folder, with one folder per log */
export async function openReadOnly(
  directory: string,
  diskFiles: FileOperations = nodeFiles,
): Promise<ReadOnlyOutcome> {
  try {
    if (!(await stat(directory)).isDirectory()) {
      return { outcome: 'unusable', reason: `${directory} is not a folder` };
    }
    return { outcome: 'open', buffer: await readBuffer(directory, diskFiles) };
  } catch (error) {
    if (codeOf(error) === '') throw error;
    return { outcome: 'unusable', reason: (error as Error).message };
  }
}

async function readBuffer(directory: string, diskFiles: FileOperations): Promise<ReadOnlyBuffer> {
  const deviceAnswers = () =>
    diskFiles.list(directory).then(
      () => true,
      () => false,
    );
  let recovered = await recoverAgain();
  const logs = recovered.logs.map((log): ReadOnlyLog => {
    const { logId, nextSequence, settled } = log;
    return { logId, firstSequence: firstSequenceOf(log), nextSequence, settled };
  });
  const ends = new Map(logs.map(log => [log.logId, log.nextSequence]));
  const { foreignBytes } = recovered;
  let readLog = newReader();

  function newReader() {
    return createLogReader({
      files: readingFiles(diskFiles),
      memory: createRecentMemory({ salt: 0, chunkBytes: 1, bytesMax: 0 }),
      deviceAnswers,
      logger: silent,
    });
  }

  async function recoverAgain(): Promise<Recovered> {
    for (let attempt = 1; ; attempt++) {
      try {
        // Read before the folders are listed: a checkpoint that is newer than the list speaks of frames behind its end.
        const files = withEarlierCheckpoints(
          readingFiles(diskFiles),
          await checkpointsIn(directory, diskFiles),
        );
        return await recoverLogs({ files, directory, nowMs: 0, deviceAnswers, logger: silent });
      } catch (error) {
        if (!isGone(error) || attempt === ATTEMPTS_MAX) throw error;
      }
    }
  }

  const stateOf = (logId: LogId): LogState | undefined => recovered.logs.find(log => log.logId === logId);

  return {
    logs,
    foreignBytes,

    async lookAgain() {
      recovered = await recoverAgain();
      readLog = newReader();
    },

    async read(logId, fromSequence, { toSequence = Number.MAX_SAFE_INTEGER, messagesMax, bytesMax }) {
      const limits = { toSequence: Math.min(toSequence, ends.get(logId) ?? 0), messagesMax, bytesMax };
      for (let attempt = 1; ; attempt++) {
        const state = stateOf(logId);
        if (!state) return { form: 'frames', frames: [] };
        try {
          return await readLog(state, fromSequence, limits, () => Promise.resolve(true));
        } catch (error) {
          if (!isGone(error) || attempt === ATTEMPTS_MAX) throw error;
          recovered = await recoverAgain();
          readLog = newReader();
        }
      }
    },

    async unreadable() {
      let messages = 0;
      for (const { logId } of logs) {
        const state = stateOf(logId);
        const lost = state ? state.lost.union(state.missing) : RangeSet.empty;
        if (lost.isEmpty) continue;
        // Segments that were given back meanwhile are settled, and nobody's loss.
        const now = await readCheckpoint(diskFiles, join(directory, logId)).catch(() => null);
        messages += lost
          .difference(now?.settled ?? RangeSet.empty)
          .subtract(ends.get(logId)!, Number.MAX_SAFE_INTEGER).size;
      }
      return messages;
    },
  };
}

const isGone = (error: unknown): boolean => ['ENOENT', GONE].includes(codeOf(error));

/** Reads, and lets every write go by. A file that is gone is not damaged, so it must not look like that. */
function readingFiles(files: FileOperations): FileOperations {
  const nothing = () => Promise.resolve();
  // One by one, so that whatever the port learns to write with later is not let through by accident.
  return {
    list: path => files.list(path),
    size: path => files.size(path),
    inode: path => files.inode(path),
    readWhole: path => files.readWhole(path),
    syncFolder: path => files.syncFolder(path),
    openToRead: path =>
      files.openToRead(path).catch(error => {
        if (codeOf(error) !== 'ENOENT') throw error;
        throw Object.assign(new Error(`${path} is gone`), { code: GONE });
      }),
    create: path => Promise.reject(Object.assign(new Error(`${path} is not written`), { code: 'EROFS' })),
    makeFolder: nothing,
    replace: nothing,
    rename: nothing,
    remove: nothing,
    removeFolder: nothing,
  };
}

async function checkpointsIn(directory: string, files: FileOperations): Promise<Map<string, Buffer>> {
  const found = new Map<string, Buffer>();
  for (const name of await files.list(directory)) {
    const path = join(directory, name, CHECKPOINT_NAME);
    const bytes = await files.readWhole(path).catch(() => null);
    if (bytes) found.set(path, bytes);
  }
  return found;
}

function withEarlierCheckpoints(
  files: FileOperations,
  checkpoints: ReadonlyMap<string, Buffer>,
): FileOperations {
  return {
    ...files,
    readWhole(path) {
      if (basename(path) !== CHECKPOINT_NAME) return files.readWhole(path);
      const bytes = checkpoints.get(path);
      if (bytes) return Promise.resolve(bytes);
      return Promise.reject(Object.assign(new Error(`no ${path} at first`), { code: 'ENOENT' }));
    },
  };
}
