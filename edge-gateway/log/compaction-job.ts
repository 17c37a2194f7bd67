/** One job of compaction, as a value in and a value out: what the worker runs, and tests run without one. */
import type { Range } from '../../protocol/range-set.ts';
import type { Mapping } from '../mapping/route.ts';
import { TooLarge } from './blocks-writer.ts';
import { type CompactJob, compactSegment } from './compact-segment.ts';
import { codeOf, type FileOperations } from './files.ts';
import { type ThinJob, thinBlocks } from './thin-blocks.ts';

export type Job = CompactJob | ThinJob;

export type JobOutcome =
  /** The file stands at its target, whole and on the disk. */
  | { readonly outcome: 'done'; readonly bytes: number; readonly lost: readonly Range[] }
  /** The file would be larger than `bytesMax`; nothing was changed. */
  | { readonly outcome: 'too-large' }
  /** Nothing was changed; `code` is that of the system error, if it was one. */
  | { readonly outcome: 'failed'; readonly reason: string; readonly code: string };

/** Who carries out jobs, one at a time. */
export interface Compactor {
  /** Never rejects. */
  run(job: Job): Promise<JobOutcome>;
  /** Drops what is being done. */
  close(): Promise<void>;
}

/** Never rejects. */
export async function runJob(files: FileOperations, mapping: Mapping, job: Job): Promise<JobOutcome> {
  try {
    const done =
      job.work === 'compact' ? await compactSegment(files, mapping, job) : await thinBlocks(files, job);
    return { outcome: 'done', ...done };
  } catch (error) {
    if (error instanceof TooLarge) return { outcome: 'too-large' };
    return { outcome: 'failed', reason: (error as Error).message, code: codeOf(error) };
  }
}

/** Carries jobs out in this thread, on any file system. */
export function compactHere(files: FileOperations, mapping: Mapping): Compactor {
  let doing: Promise<unknown> = Promise.resolve();
  return {
    run(job) {
      const outcome = runJob(files, mapping, job);
      doing = outcome;
      return outcome;
    },
    async close() {
      await doing;
    },
  };
}
