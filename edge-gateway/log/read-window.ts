/** Pieces of a file in memory, read around bad sectors. */
import type { OpenFile } from './files.ts';
import { codeOf } from './files.ts';

const PAGE_BYTES = 4096;

/** A piece of a file. Never written to again, so views of it may be handed out. */
export interface Window {
  readonly buffer: Buffer;
  readonly view: DataView;
  readonly fileOffset: number;
}

/**
 * @param deviceAnswers whether a place that cannot be read (EIO) is damage; if not, the device as a whole gives no answer
 * @returns up to `length` bytes, fewer at the end of the file; bad sectors as zeros
 */
export async function readWindow(
  file: OpenFile,
  fileOffset: number,
  length: number,
  deviceAnswers: () => Promise<boolean>,
): Promise<Window> {
  // Its own memory, not a piece of the pool: the records that are handed out are views of it.
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

/** Reads what can be read; pages on bad sectors come back as zeros, which no record is made of. */
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
