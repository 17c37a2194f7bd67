/** Stretches of batches that are not settled yet, and how they are taken apart when PostgreSQL refuses something. Pure. */
import type { Batch } from '../../protocol/batch.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import type { LogEntry } from './dictionary.ts';
import type { HistoryItem } from './writer.ts';

export interface Work {
  readonly item: HistoryItem & { readonly batch: Batch };
  readonly log: LogEntry;
  /** Not empty. */
  readonly fresh: RangeSet;
  /** PostgreSQL refused the thinned run as a whole, and why: its kept rows are tried alone, the others are quarantined. */
  readonly refused?: string;
}

/** A thinned run none of which is settled: its summaries can be stored. It is one piece. */
export function isWholeRun({ item: { batch, poison }, fresh, refused }: Work): boolean {
  if (batch.settlement !== 'thinned' || poison || refused !== undefined) return false;
  return fresh.covers(batch.firstSequence, batch.firstSequence + batch.count);
}

/** How many pieces the work can be taken apart into. */
export const piecesOf = (work: Work): number => (isWholeRun(work) ? 1 : work.fresh.size);

/** Splits `works` so that the first part has `count` pieces. */
export function halve(works: readonly Work[], count: number): [Work[], Work[]] {
  const first: Work[] = [];
  const second: Work[] = [];
  let left = count;
  for (const work of works) {
    const pieces = piecesOf(work);
    if (pieces <= left) first.push(work);
    else if (left === 0) second.push(work);
    else {
      let head = RangeSet.empty;
      for (const { from, to } of work.fresh.ranges) {
        const take = Math.min(left - head.size, to - from);
        if (take > 0) head = head.add(from, from + take);
      }
      first.push({ ...work, fresh: head });
      second.push({ ...work, fresh: work.fresh.difference(head) });
    }
    left = Math.max(0, left - pieces);
  }
  return [first, second];
}
