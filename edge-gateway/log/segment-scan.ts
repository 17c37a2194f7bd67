/**
 * Walks the frames of one segment file, block by block, and steps over damage.
 *
 * A place where no right frame stands is passed byte by byte until the next one does; frames are consecutive, so the
 * neighbours say exactly which sequences went with the damage (invariant I). CRC, salt and the narrow range of
 * sequences that may follow keep anything else from passing for a frame.
 */
import type { FileOperations, OpenFile } from './files.ts';
import { codeOf } from './files.ts';
import { checkFrame, FRAME_BYTES_MAX, frameLengthAt, frameSequenceAt } from './frame.ts';
import { MARK_DISTANCE_BYTES, type Segment } from './segment.ts';

/** Any frame fits into one block. */
const BLOCK_BYTES = 384 * 1024;
const PAGE_BYTES = 4096;
if (BLOCK_BYTES < FRAME_BYTES_MAX) throw new Error('a frame must fit into a block');

interface Block {
  readonly buffer: Buffer;
  readonly view: DataView;
  readonly fileOffset: number;
}

/** A place between two frames. The block it may hold is never written to again. */
export interface Cursor {
  readonly sequence: number;
  readonly offset: number;
  readonly block: Block | null;
}

export interface ScanOptions {
  readonly files: FileOperations;
  readonly salt: number;
  /** One past the last sequence that may stand in the segment. */
  readonly sequenceTo: number;
  /** Whether a place that cannot be read (EIO) is damage; if not, the device as a whole gives no answer. */
  readonly deviceAnswers: () => Promise<boolean>;
  /** @returns false to stop before this frame */
  readonly visit: (buffer: Buffer, view: DataView, offset: number, sequence: number) => boolean;
  readonly lost: (from: number, to: number) => void;
}

/**
 * Visits the frames from `start` on, until `visit` stops it or the bytes end.
 * @returns where it stopped; when the bytes ended, `sequence` is one past the last frame found, and what is missing up
 *   to `sequenceTo` is not yet called lost.
 */
export async function scanSegment(
  segment: Segment,
  start: Cursor,
  options: ScanOptions,
): Promise<Cursor & { readonly ended: boolean }> {
  const { files, salt, sequenceTo } = options;
  let { sequence, offset, block } = start;
  let end = segment.bytes;
  /** Where the last frame ended: a damaged tail behind it is not stepped into for good. */
  let frameEnd = offset;
  let file: OpenFile | null = null;
  try {
    while (sequence < sequenceTo && offset < end) {
      const at = block ? offset - block.fileOffset : 0;
      const known = block ? Math.min(block.buffer.length, end - block.fileOffset) : 0;
      const verdict = block
        ? checkFrame(block.buffer, block.view, at, known, sequence, sequenceTo, salt)
        : 'short';
      if (verdict === 'short' && (!block || block.fileOffset + block.buffer.length < end)) {
        file ??= await files.openToRead(segment.path);
        block = await readBlock(file, offset, Math.min(BLOCK_BYTES, end - offset), options.deviceAnswers);
        if (block.buffer.length < Math.min(BLOCK_BYTES, end - offset)) end = offset + block.buffer.length;
        continue;
      }
      if (!block || verdict !== 'frame') {
        offset++;
        continue;
      }
      const found = frameSequenceAt(block.view, at);
      if (found > sequence) options.lost(sequence, found);
      sequence = found;
      frameEnd = offset;
      if (offset - segment.marks.at(-1)!.offset >= MARK_DISTANCE_BYTES)
        segment.marks.push({ sequence, offset });
      if (!options.visit(block.buffer, block.view, at, sequence)) {
        return { sequence, offset, block, ended: false };
      }
      sequence = found + 1;
      offset += frameLengthAt(block.view, at);
      frameEnd = offset;
    }
    return { sequence, offset: frameEnd, block, ended: true };
  } finally {
    await file?.close();
  }
}

async function readBlock(
  file: OpenFile,
  fileOffset: number,
  length: number,
  deviceAnswers: () => Promise<boolean>,
): Promise<Block> {
  // Its own memory, not a piece of the pool: the frames that are handed out are views of it.
  const buffer = Buffer.allocUnsafeSlow(length);
  let filled = 0;
  try {
    filled = await readFully(file, buffer, 0, length, fileOffset);
  } catch (error) {
    if (codeOf(error) !== 'EIO' || !(await deviceAnswers())) throw error;
    filled = await readPages(file, buffer, length, fileOffset);
  }
  const whole = buffer.subarray(0, filled);
  return {
    buffer: whole,
    view: new DataView(whole.buffer, whole.byteOffset, whole.length),
    fileOffset,
  };
}

async function readFully(file: OpenFile, buffer: Buffer, from: number, length: number, position: number) {
  let done = 0;
  while (done < length) {
    const read = await file.read(buffer, from + done, length - done, position + done);
    if (read === 0) break;
    done += read;
  }
  return done;
}

/** Reads what can be read; pages on bad sectors come back as zeros, which no frame is made of. */
async function readPages(file: OpenFile, buffer: Buffer, length: number, position: number): Promise<number> {
  let done = 0;
  while (done < length) {
    // Pieces end at page boundaries of the file, so that one bad page costs only itself.
    const piece = Math.min(length - done, PAGE_BYTES - ((position + done) % PAGE_BYTES));
    try {
      const read = await readFully(file, buffer, done, piece, position + done);
      done += read;
      if (read < piece) break;
    } catch (error) {
      if (codeOf(error) !== 'EIO') throw error;
      buffer.fill(0, done, done + piece);
      done += piece;
    }
  }
  return done;
}
