/**
 * Thinning of files of blocks: a run of adjacent ones of the same log becomes one file, thinned to an interval (thinning.ts).
 * A batch stands for one unbroken run of sequences, so a hole between blocks stays one; a run that does not fit one batch
 * becomes several; what cannot be thinned goes over as it is (H).
 */
import type { ReadingsBatch, ThinnedBatch } from '../../protocol/batch.ts';
import { decodeBatch, encodeBatch } from '../../protocol/batch-codec.ts';
import type { Range } from '../../protocol/range-set.ts';
import { blockBatchAt, blockNextSequenceAt } from './block.ts';
import { type BlocksTarget, TooLarge, writeBlocks } from './blocks-writer.ts';
import type { FileOperations } from './files.ts';
import { saltOf } from './frame.ts';
import { BLOCKS_HEADER_BYTES, newBlockSegment } from './segment.ts';
import { scanSegment } from './segment-scan.ts';
import { isThinnable, thin } from './thinning.ts';

export interface ThinJob {
  readonly work: 'thin';
  /** In order of sequence, each beginning where the one before ends. */
  readonly sources: readonly (Range & { readonly path: string; readonly bytes: number })[];
  readonly intervalMs: number;
  readonly target: BlocksTarget;
}

interface Block {
  readonly range: Range;
  readonly bytes: Buffer;
  /** By this job. */
  readonly thinned: boolean;
}

/**
 * Rejects as `writeBlocks` does, with TooLarge also when there is nothing to be thinned, and with the system error when
 * a file gives no answer.
 */
export async function thinBlocks(
  files: FileOperations,
  job: ThinJob,
): Promise<{ readonly bytes: number; readonly lost: readonly Range[] }> {
  const { logId, nextSequence } = job.target;
  const lost: Range[] = [];
  const blocks = unbroken(await readBlocks()).flatMap(thinRun);
  if (!blocks.some(({ thinned }) => thinned)) throw new TooLarge();
  const { bytes } = await writeBlocks(files, job.target, job.sources[0]!.path, async add => {
    for (const block of blocks) await add(block.bytes, block.range);
  });
  return { bytes, lost };

  async function readBlocks(): Promise<Block[]> {
    const blocks: Block[] = [];
    let sequence = job.target.firstSequence;
    for (const { path, from, to, bytes: length } of job.sources) {
      const end = await scanSegment(
        newBlockSegment({ path, firstSequence: from, nextSequence: to, bytes: length, level: 0 }),
        { sequence, offset: BLOCKS_HEADER_BYTES, window: null },
        {
          files,
          salt: saltOf(logId),
          sequenceTo: to,
          deviceAnswers: () => Promise.resolve(false),
          visit(buffer, view, offset, first) {
            // A copy: the window it stands in is a megabyte.
            const batch = Buffer.from(blockBatchAt(buffer, view, offset));
            const range = { from: first, to: blockNextSequenceAt(view, offset) };
            blocks.push({ bytes: batch, range, thinned: false });
            return true;
          },
          lost: (lostFrom, lostTo) => lost.push({ from: lostFrom, to: lostTo }),
        },
      );
      if (end.sequence < to) lost.push({ from: end.sequence, to });
      sequence = to;
    }
    return blocks.filter(block => block.range.to <= nextSequence);
  }

  function thinRun(run: readonly Block[]): readonly Block[] {
    const batches = decodeAll(run);
    // Events, or readings that are farther apart than the interval: it would only blur them.
    if (batches && !isThinnable(batches, job.intervalMs)) return run;
    const thinned = batches && thin(batches, job.intervalMs);
    if (thinned) {
      const range = { from: thinned.firstSequence, to: thinned.firstSequence + thinned.count };
      return [{ range, bytes: encodeBatch(thinned), thinned: true }];
    }
    if (run.length === 1) return run;
    const half = run.length >> 1;
    return [...thinRun(run.slice(0, half)), ...thinRun(run.slice(half))];
  }

  /** @returns null when one of them is not to be decoded */
  function decodeAll(run: readonly Block[]): (ReadingsBatch | ThinnedBatch)[] | null {
    const batches: (ReadingsBatch | ThinnedBatch)[] = [];
    for (const { bytes: encoded } of run) {
      const decoded = decodeBatch(encoded);
      if (decoded.outcome !== 'batch' || decoded.batch.settlement === 'lost') return null;
      batches.push(decoded.batch);
    }
    return batches;
  }
}

function unbroken(blocks: readonly Block[]): Block[][] {
  const runs: Block[][] = [];
  for (const block of blocks) {
    const run = runs.at(-1);
    if (run && run.at(-1)?.range.to === block.range.from) run.push(block);
    else runs.push([block]);
  }
  return runs;
}
