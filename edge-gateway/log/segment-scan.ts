/**
 * Walks the records of one file, frames or blocks, window by window, and steps over damage.
 *
 * A place where no right record stands is passed byte by byte until the next one does; records are consecutive, so the
 * neighbours say exactly which sequences went with the damage (invariant I). CRC, salt and the narrow range of
 * sequences that may follow keep anything else from passing for a record.
 */
import { BLOCK_BYTES_MAX, blockLengthAt, blockNextSequenceAt, blockSequenceAt, checkBlock } from './block.ts';
import type { FileOperations, OpenFile } from './files.ts';
import { checkFrame, FRAME_BYTES_MAX, frameLengthAt, frameSequenceAt } from './frame.ts';
import { readWindow, type Window } from './read-window.ts';
import { MARK_DISTANCE_BYTES, type Segment } from './segment.ts';

interface RecordForm {
  /** Any record fits into it. */
  readonly windowBytes: number;
  readonly check: typeof checkFrame;
  readonly lengthAt: (view: DataView, offset: number) => number;
  readonly sequenceAt: (view: DataView, offset: number) => number;
  readonly nextSequenceAt: (view: DataView, offset: number) => number;
}

const forms: Readonly<Record<Segment['form'], RecordForm>> = {
  frames: {
    windowBytes: 384 * 1024,
    check: checkFrame,
    lengthAt: frameLengthAt,
    sequenceAt: frameSequenceAt,
    nextSequenceAt: (view, offset) => frameSequenceAt(view, offset) + 1,
  },
  blocks: {
    windowBytes: BLOCK_BYTES_MAX,
    check: checkBlock,
    lengthAt: blockLengthAt,
    sequenceAt: blockSequenceAt,
    nextSequenceAt: blockNextSequenceAt,
  },
};
if (forms.frames.windowBytes < FRAME_BYTES_MAX) throw new Error('a frame must fit into a window');

/** A place between two records. */
export interface Cursor {
  readonly sequence: number;
  readonly offset: number;
  readonly window: Window | null;
}

export interface ScanOptions {
  readonly files: FileOperations;
  readonly salt: number;
  /** One past the last sequence that may stand in the file. */
  readonly sequenceTo: number;
  /** Whether a place that cannot be read (EIO) is damage; if not, the device as a whole gives no answer. */
  readonly deviceAnswers: () => Promise<boolean>;
  /** @returns false to stop before this record */
  readonly visit: (buffer: Buffer, view: DataView, offset: number, sequence: number) => boolean;
  readonly lost: (from: number, to: number) => void;
}

/**
 * Visits the records from `start` on, until `visit` stops it or the bytes end.
 * @returns where it stopped; when the bytes ended, `sequence` is one past the last record found, and what is missing up
 *   to `sequenceTo` is not yet called lost.
 */
export async function scanSegment(
  segment: Segment,
  start: Cursor,
  options: ScanOptions,
): Promise<Cursor & { readonly ended: boolean }> {
  const { files, salt, sequenceTo } = options;
  const form = forms[segment.form];
  let { sequence, offset, window } = start;
  let end = segment.bytes;
  /** Where the last record ended: a damaged tail behind it is not stepped into for good. */
  let recordEnd = offset;
  let file: OpenFile | null = null;
  try {
    while (sequence < sequenceTo && offset < end) {
      const at = window ? offset - window.fileOffset : 0;
      const known = window ? Math.min(window.buffer.length, end - window.fileOffset) : 0;
      const verdict = window
        ? form.check(window.buffer, window.view, at, known, sequence, sequenceTo, salt)
        : 'short';
      if (verdict === 'short' && (!window || window.fileOffset + window.buffer.length < end)) {
        file ??= await files.openToRead(segment.path);
        const wanted = Math.min(form.windowBytes, end - offset);
        window = await readWindow(file, offset, wanted, options.deviceAnswers);
        if (window.buffer.length < wanted) end = offset + window.buffer.length;
        continue;
      }
      if (!window || verdict !== 'right') {
        offset++;
        continue;
      }
      const found = form.sequenceAt(window.view, at);
      if (found > sequence) options.lost(sequence, found);
      sequence = found;
      recordEnd = offset;
      if (segment.form === 'frames' && offset - segment.marks.at(-1)!.offset >= MARK_DISTANCE_BYTES)
        segment.marks.push({ sequence, offset });
      if (!options.visit(window.buffer, window.view, at, sequence)) {
        return { sequence, offset, window, ended: false };
      }
      sequence = form.nextSequenceAt(window.view, at);
      offset += form.lengthAt(window.view, at);
      recordEnd = offset;
    }
    return { sequence, offset: recordEnd, window, ended: true };
  } finally {
    await file?.close();
  }
}
