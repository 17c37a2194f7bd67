/**
 * What one log remembers beside its segments: what history has settled, and, once the log has ended, where. It spares
 * a restart from calling reclaimed segments lost, and from reading the tail of every old log. It has a CRC because a
 * flipped digit must not settle anything; losing it is harmless, so it is never fdatasynced.
 *
 * It knows the folder it was written in. In a copy of a folder that was in use, files may be of different moments: there it
 * is no witness of messages that cannot be found, because the original may have them (invariant A). Once a copy, always a
 * copy: the checkpoints that are written there say so.
 */
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { RangeSet } from '../../protocol/range-set.ts';
import type { FileOperations } from './files.ts';
import { codeOf } from './files.ts';

export interface Checkpoint {
  readonly generation: number;
  readonly bootId: string | null;
  /** One past the last sequence known to be durable. */
  readonly nextSequence: number;
  /** Length of the last segment when the log ended; null while it is appended to. */
  readonly endedAtBytes: number | null;
  readonly settled: RangeSet;
  /** By first sequence of the segment: when it was known to be settled, wall clock milliseconds. */
  readonly settledAtMs: Readonly<Record<string, number>>;
  /** The folder is a copy of the one in which the log was written. */
  readonly isCopy: boolean;
}

export const CHECKPOINT_NAME = 'settled.json';

export async function writeCheckpoint(
  files: FileOperations,
  folder: string,
  checkpoint: Checkpoint,
): Promise<void> {
  const inode = await files.inode(folder);
  const body = JSON.stringify({ ...checkpoint, inode, settled: checkpoint.settled.toString() });
  await files.replace(join(folder, CHECKPOINT_NAME), `${body}\n${crc32(body)}\n`);
}

/** @returns the checkpoint, or null when there is none or it is damaged */
export async function readCheckpoint(files: FileOperations, folder: string): Promise<Checkpoint | null> {
  let text: string;
  try {
    text = (await files.readWhole(join(folder, CHECKPOINT_NAME))).toString('utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'EIO') return null;
    throw error;
  }
  const [body = '', sum] = text.split('\n');
  if (String(crc32(body)) !== sum) return null;
  const { inode, ...parsed } = JSON.parse(body) as Omit<Checkpoint, 'settled' | 'isCopy'> & {
    settled: string;
    inode: number;
    isCopy?: boolean;
  };
  const isCopy = parsed.isCopy === true || inode !== (await files.inode(folder));
  return { ...parsed, settled: RangeSet.parse(parsed.settled), isCopy };
}
