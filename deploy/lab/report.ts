/** The lab's result for people and for programs. Pure. */
import type { MessageCount } from '../faults/count.ts';
import type { LabArguments } from './arguments.ts';
import { inSeconds } from './faults.ts';
import type { FaultKind, Plan } from './plan.ts';

type Faults = Partial<Record<FaultKind, number>>;

const MEANINGS: readonly (readonly [keyof MessageCount, string])[] = [
  ['published', 'messages that devices handed to their MQTT client'],
  ['acknowledged', 'of these, the broker acknowledged to the device'],
  ['stored', 'different messages in history'],
  ['late', 'came by the backfill lane'],
  ['thinned', 'only as a summary, for want of space at the gateway'],
  ['lost', 'acknowledged and gone'],
  ['lost_at_broker', 'acknowledged by a broker that was killed before it had saved or handed them over'],
  ['duplicates', 'rows beyond the first of a message'],
  [
    'repeated_unmarked',
    'the same, of devices without timestamps that sent again what the broker had forgotten',
  ],
  ['phantoms', 'in history and never published so'],
];

export function tableOf(count: MessageCount, faults: Faults): string[] {
  const width = Math.max(...MEANINGS.map(([name]) => name.length));
  const digits = Math.max(...Object.values(count).map(figure => String(figure).length));
  const what = Object.entries(faults).map(([kind, times]) => `${times} × ${kind}`);
  return [
    ...MEANINGS.map(
      ([name, meaning]) => `  ${name.padEnd(width)}  ${String(count[name]).padStart(digits)}  ${meaning}`,
    ),
    `  what went wrong: ${what.join(', ') || 'nothing'}`,
  ];
}

export function jsonOf(
  options: Pick<LabArguments, 'seed' | 'durationMs'>,
  count: MessageCount,
  faults: Faults,
): string {
  return JSON.stringify({ seed: options.seed, minutes: options.durationMs / 60_000, ...count, faults });
}

export const isClean = ({ lost, duplicates, phantoms }: MessageCount): boolean =>
  lost === 0 && duplicates === 0 && phantoms === 0;

/** One line per step, in the order of time. */
export function planLines(plan: Plan): string[] {
  return [...plan.link, ...plan.parts]
    .sort((a, b) => a.atMs - b.atMs)
    .map(step => {
      const length = step.forMs > 0 ? ` for ${inSeconds(step.forMs)}` : '';
      const weather = 'weather' in step ? ` ${JSON.stringify(step.weather)}` : '';
      return `${inSeconds(step.atMs).padStart(8)}  ${step.kind}${length}${weather}`;
    });
}
