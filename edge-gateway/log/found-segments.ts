/** The files of one log, found at opening: which count, and which were replaced by blocks that were made of them. */
import { join } from 'node:path';
import { codeOf, type FileOperations } from './files.ts';
import {
  BLOCKS_HEADER_BYTES,
  decodeBlocksEnd,
  decodeHeader,
  newBlockSegment,
  newSegment,
  parseSegmentName,
  type Segment,
  type SegmentHeader,
  type SegmentName,
} from './segment.ts';

/** Files looked into at a time: a full buffer has some thousand, and a box must be up again at once. */
const AT_A_TIME = 16;

export interface FoundSegments {
  /** In order, all sealed. The end of each is where the next begins; that of the last is not known of frames. */
  readonly segments: Segment[];
  /** The headers that are readable, in order. */
  readonly headers: readonly SegmentHeader[];
  /** Others count in their place. */
  readonly replaced: readonly { readonly path: string; readonly bytes: number }[];
  /** Never finished. */
  readonly unfinished: readonly string[];
}

interface FoundFile extends SegmentName {
  readonly path: string;
  readonly bytes: number;
  readonly header: SegmentHeader | null;
  /** One past the last sequence, as the header of blocks says; null of frames and when it is damaged. */
  readonly nextSequence: number | null;
}

/** Rejects with the system error when the folder cannot be read. */
export async function findSegments(
  files: FileOperations,
  folder: string,
  salt: number,
): Promise<FoundSegments> {
  const names = await files.list(folder);
  const named = names.flatMap(name => {
    const parsed = parseSegmentName(name);
    return parsed ? [{ ...parsed, path: join(folder, name) }] : [];
  });
  named.sort((a, b) => a.firstSequence - b.firstSequence || a.attempt - b.attempt || rankOf(b) - rankOf(a));
  const found: FoundFile[] = [];
  for (let start = 0; start < named.length; start += AT_A_TIME) {
    const some = named.slice(start, start + AT_A_TIME);
    found.push(...(await Promise.all(some.map(one => look(files, one, salt)))));
  }

  const segments: Segment[] = [];
  const replaced: FoundFile[] = [];
  let last: FoundFile | null = null;
  /** How far the blocks so far reach. */
  let reached = 0;
  for (const file of found) {
    const sameRun = last?.firstSequence === file.firstSequence && last.attempt === file.attempt;
    if (sameRun || file.firstSequence < reached) {
      replaced.push(file);
      continue;
    }
    const before = segments.at(-1);
    if (before) before.nextSequence = file.firstSequence;
    segments.push(segmentOf(file));
    reached = Math.max(reached, file.nextSequence ?? 0);
    last = file;
  }
  const headers = [...found].flatMap(({ header }) => (header ? [header] : []));
  const unfinished = names.filter(name => name.endsWith('.new')).map(name => join(folder, name));
  return { segments, headers, replaced, unfinished };
}

/** Of one run, that which was made last counts. */
const rankOf = ({ level }: SegmentName): number => level ?? -1;

function segmentOf({ path, firstSequence, bytes, level, nextSequence }: FoundFile): Segment {
  if (level === null) return { ...newSegment(path, firstSequence), bytes, sealed: true };
  return newBlockSegment({ path, firstSequence, nextSequence: nextSequence ?? firstSequence, bytes, level });
}

async function look(
  files: FileOperations,
  name: SegmentName & { path: string },
  salt: number,
): Promise<FoundFile> {
  const bytes = await files.size(name.path);
  const buffer = Buffer.alloc(BLOCKS_HEADER_BYTES);
  const file = await files.openToRead(name.path);
  try {
    await file.read(buffer, 0, buffer.length, 0);
  } catch (error) {
    if (codeOf(error) !== 'EIO') throw error;
  } finally {
    await file.close();
  }
  const nextSequence = name.level === null ? null : decodeBlocksEnd(buffer, salt);
  return { ...name, bytes, header: decodeHeader(buffer), nextSequence };
}
