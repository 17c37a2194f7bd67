/**
 * The site actor's fold: one batch of one gateway over the site's twins, pure.
 *
 *   batch ──▶ per row: twin.receive ──▶ changed twins + incident transitions
 *
 * Invariants: C (through `twin.ts`), F (twins per site are bounded: beyond the bound a new device is in history
 * only, and counted).
 */
import { kinds, type ReadingsBatch } from '../../protocol/batch.ts';
import { correctedAt, forEachRow } from '../../protocol/batch-rows.ts';
import type { ThresholdRule } from './rule.ts';
import { type IncidentTransition, newTwin, receive, type TwinState } from './twin.ts';

export interface TwinChange {
  /** Null when the twin is new. */
  readonly before: TwinState | null;
  readonly after: TwinState;
}

export interface BatchOutcome {
  /** By device; twins that did not change are absent. */
  readonly changes: ReadonlyMap<string, TwinChange>;
  readonly transitions: readonly IncidentTransition[];
  /** Rows of devices beyond the bound. */
  readonly withoutTwin: number;
}

export const TWINS_PER_SITE_MAX = 250_000;

export function receiveBatch(
  site: string,
  twins: ReadonlyMap<string, TwinState>,
  batch: ReadingsBatch,
  rules: readonly ThresholdRule[],
): BatchOutcome {
  const changes = new Map<string, TwinChange>();
  const transitions: IncidentTransition[] = [];
  let withoutTwin = 0;
  let created = 0;

  const { rows } = batch;
  forEachRow(batch, ({ row, names, values }) => {
    const device = batch.devices[rows.device[row]!]!;
    const change = changes.get(device);
    const known = change?.after ?? twins.get(device);
    if (!known && twins.size + created >= TWINS_PER_SITE_MAX) {
      withoutTwin++;
      return;
    }
    const receivedAt = rows.receivedAt[row]!;
    const { state, effects } = receive(known ?? newTwin(site, device), {
      type: 'reading',
      rules,
      reading: {
        at: correctedAt(rows.at[row]!, receivedAt),
        receivedAt,
        log: batch.logId,
        sequence: batch.firstSequence + rows.sequenceOffset[row]!,
        element: rows.element[row]!,
        kind: kinds[rows.kind[row]!] ?? 'telemetry',
        metrics: names,
        values,
      },
    });
    if (state === known) return;
    if (!known) created++;
    changes.set(device, { before: change ? change.before : (known ?? null), after: state });
    for (const effect of effects) transitions.push(effect.transition);
  });
  return { changes, transitions, withoutTwin };
}
