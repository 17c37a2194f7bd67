/**
 * Writes a file of blocks beside the files it is made of. It has its name only once it is whole, read back and on the
 * disk, so whoever finds it may delete those (invariant A): a kill or a power cut at any point leaves them as they were.
 *
 *   <name>.new ──written──▶ fdatasync ──▶ read back ──▶ rename ──▶ folder synced
 */
import { dirname } from 'node:path';
import type { LogId } from '../../protocol/ids.ts';
import type { Range } from '../../protocol/range-set.ts';
import { encodeBlock } from './block.ts';
import { codeOf, type FileOperations, writeFully } from './files.ts';
import { saltOf } from './frame.ts';
import {
  BLOCKS_HEADER_BYTES,
  decodeHeader,
  encodeBlocksHeader,
  encodeHeader,
  newBlockSegment,
  SEGMENT_HEADER_BYTES,
} from './segment.ts';
import { scanSegment } from './segment-scan.ts';

/** What the header of a file of blocks says. */
export interface BlocksTarget {
  /** Where it goes; nothing is there yet. */
  readonly path: string;
  readonly logId: LogId;
  readonly generation: number;
  readonly bootId: string;
  readonly firstSequence: number;
  readonly nextSequence: number;
  /** More is not written: it would not pay, and the buffer's bound has no room for it (F). */
  readonly bytesMax: number;
}

/** The file would be larger than it may be. */
export class TooLarge extends Error {}

/** Rejects with the system error of the disk, and with Error when what is read back is not what was written. */
export async function writeBlocks(
  files: FileOperations,
  target: BlocksTarget,
  /** What it is made of, or the first part of that. */
  source: string,
  fill: (add: (batch: Uint8Array, range: Range) => Promise<void>) => Promise<void>,
): Promise<{ readonly bytes: number }> {
  const { path, logId, firstSequence, nextSequence, bytesMax } = target;
  const salt = saltOf(logId);
  const unfinished = `${path}.new`;
  const written: number[] = [];
  let bytes = BLOCKS_HEADER_BYTES;
  try {
    await removeIfThere(files, unfinished);
    const file = await files.create(unfinished);
    try {
      const header = encodeHeader({ ...target, createdAtMs: await createdAtOf(files, source) });
      await writeFully(file, encodeBlocksHeader(header, nextSequence, salt), 0);
      await fill(async (batch, { from, to }) => {
        const block = encodeBlock(batch, from, to - from, salt);
        if (bytes + block.length > bytesMax) throw new TooLarge();
        await writeFully(file, block, bytes);
        bytes += block.length;
        written.push(from);
      });
      await file.datasync();
    } finally {
      await file.close();
    }
    await readBack();
    await files.rename(unfinished, path);
    await files.syncFolder(dirname(path));
    return { bytes };
  } catch (error) {
    await removeIfThere(files, unfinished).catch(() => undefined);
    throw error;
  }

  async function readBack(): Promise<void> {
    const found: number[] = [];
    await scanSegment(
      newBlockSegment({ path: unfinished, firstSequence, nextSequence, bytes, level: 0 }),
      { sequence: firstSequence, offset: BLOCKS_HEADER_BYTES, window: null },
      {
        files,
        salt,
        sequenceTo: nextSequence,
        deviceAnswers: () => Promise.resolve(false),
        visit: (_buffer, _view, _offset, sequence) => found.push(sequence) > 0,
        lost: () => undefined,
      },
    );
    if (found.join() !== written.join()) throw new Error('what was written is not read back');
  }
}

/** The time in the header of what it is made of: about when its first message arrived. 0 when that is damaged. */
async function createdAtOf(files: FileOperations, source: string): Promise<number> {
  const header = Buffer.alloc(SEGMENT_HEADER_BYTES);
  const file = await files.openToRead(source);
  try {
    await file.read(header, 0, header.length, 0);
  } finally {
    await file.close();
  }
  return decodeHeader(header)?.createdAtMs ?? 0;
}

async function removeIfThere(files: FileOperations, path: string): Promise<void> {
  try {
    await files.remove(path);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
}
