/**
 * Counts runs of a buffer as sent while no gateway runs on it: what is exported from it must not be thinned by the next one
 * (sent-marks.ts). The folder is locked meanwhile, so that no gateway begins in between.
 */
import { chown, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { isLogId } from '../../protocol/ids.ts';
import { bootId } from './boot-id.ts';
import type { LogRun } from './buffer-api.ts';
import { codeOf, type FileOperations, nodeFiles } from './files.ts';
import { lockFolder } from './lock.ts';
import { readSent, SENT_NAME, writeSent } from './sent-marks.ts';

export type MarkOutcome =
  /** All of it is on the disk. */
  { readonly outcome: 'marked' } | { readonly outcome: 'not-marked'; readonly reason: string };

/** @param directory the buffer's own folder, with one folder per log. A log that is gone was settled, and needs no mark. */
export async function markStopped(
  directory: string,
  runs: readonly LogRun[],
  files: FileOperations = nodeFiles,
): Promise<MarkOutcome> {
  try {
    const lock = await lockFolder(directory, bootId());
    if (lock.outcome === 'refused') return { outcome: 'not-marked', reason: lock.reason };
    try {
      const there = new Set((await files.list(directory)).filter(isLogId));
      for (const [logId, own] of Map.groupBy(runs, run => run.logId)) {
        if (there.has(logId)) await markLog(files, join(directory, logId), own);
      }
    } finally {
      await lock.release().catch(() => undefined);
    }
    return { outcome: 'marked' };
  } catch (error) {
    if (codeOf(error) === '') throw error;
    return { outcome: 'not-marked', reason: (error as Error).message };
  }
}

async function markLog(files: FileOperations, folder: string, runs: readonly LogRun[]): Promise<void> {
  const sent = runs.reduce((set, { from, to }) => set.add(from, to), await readSent(files, folder));
  await writeSent(files, folder, sent);
  if (process.getuid?.() !== 0) return;
  // Root exports, and the gateway, which is somebody else, reads it.
  const { uid, gid } = await stat(folder);
  await chown(join(folder, SENT_NAME), uid, gid);
}
