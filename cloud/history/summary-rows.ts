/** The rows of a thinned batch's summaries, pure: one per key, none of the future, none that is too old. */
import type { ThinnedBatch } from '../../protocol/batch.ts';
import { limits } from '../../protocol/limits.ts';
import type { SummaryRow } from './copy-summaries.ts';

/**
 * @param into.devices numbers of the batch's device names, in their order; `metrics` likewise
 * @param into.oldestMs what ended before is expired
 */
export function summaryRows(
  { summaries, intervalMs, firstSequence }: ThinnedBatch,
  into: {
    readonly log: number;
    readonly devices: readonly number[];
    readonly metrics: readonly number[];
    readonly nowMs: number;
    readonly oldestMs: number;
  },
): { rows: SummaryRow[]; expired: number } {
  const latest = into.nowMs + limits.futureToleranceMs;
  // One row per key, whatever the batch says; intervals that a clock ahead of time put into the future fall together.
  const rows = new Map<string, SummaryRow>();
  let expired = 0;
  for (let i = 0; i < summaries.length; i++) {
    const claimed = summaries.from[i]!;
    if (!(claimed + intervalMs > into.oldestMs)) {
      expired++;
      continue;
    }
    const at = claimed <= latest ? claimed : Math.floor(into.nowMs / intervalMs) * intervalMs;
    const device = into.devices[summaries.device[i]!]!;
    const metric = into.metrics[summaries.metric[i]!]!;
    const row: SummaryRow = {
      at,
      sequence: firstSequence,
      log: into.log,
      device,
      metric,
      intervalMs,
      minimum: summaries.minimum[i]!,
      maximum: summaries.maximum[i]!,
      mean: summaries.mean[i]!,
      count: summaries.count[i]!,
    };
    const key = `${device} ${metric} ${at}`;
    const known = rows.get(key);
    rows.set(key, known ? merged(known, row) : row);
  }
  return { rows: [...rows.values()], expired };
}

function merged(a: SummaryRow, b: SummaryRow): SummaryRow {
  const count = a.count + b.count;
  return {
    ...a,
    minimum: Math.min(a.minimum, b.minimum),
    maximum: Math.max(a.maximum, b.maximum),
    mean: a.mean * (a.count / count) + b.mean * (b.count / count),
    count,
  };
}
