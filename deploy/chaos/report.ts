/** The result of a run of chaos, for people and for programs. Pure. */
import { inSeconds } from './conductor.ts';
import { type Fault, type FaultKind, isOneOf, nodeFaults } from './plan.ts';

/** What must all be 0. */
export interface Wrongs {
  readonly lost: number;
  readonly duplicates: number;
  readonly phantoms: number;
  readonly regressions: number;
  readonly stale_effects: number;
  readonly wrong_incidents: number;
}

export interface ChaosCount extends Wrongs {
  readonly faults: number;
  readonly acknowledged: number;
  readonly recovery_ms: { readonly p50: number | null; readonly p99: number | null };
  readonly seed: number;
  readonly nodes: number;
  readonly published: number;
  readonly stored: number;
  readonly incidents: number;
  /** Different ones that somebody was told. */
  readonly pages: number;
  readonly lost_at_broker: number;
  readonly repeated_unmarked: number;
  readonly repeated_between_gateways: number;
  /** Programs that ended by themselves. */
  readonly crashes: number;
}

export const isClean = (count: ChaosCount): boolean =>
  count.lost + count.duplicates + count.phantoms === 0 &&
  count.regressions + count.stale_effects + count.wrong_incidents + count.crashes === 0;

const MEANINGS: readonly (readonly [keyof ChaosCount, string])[] = [
  ['faults', 'carried out'],
  ['published', 'messages that devices handed to their MQTT client'],
  ['acknowledged', 'of these, the broker acknowledged to the device'],
  ['stored', 'different messages in history'],
  ['lost', 'acknowledged and gone'],
  ['lost_at_broker', 'acknowledged by a broker that was killed before it had saved or handed them over'],
  ['duplicates', 'rows beyond the first of a message'],
  [
    'repeated_unmarked',
    'the same, of devices without timestamps that sent again what the broker had forgotten',
  ],
  ['repeated_between_gateways', 'the same, of messages that the broker gave to two gateways'],
  ['phantoms', 'in history and never published so'],
  ['regressions', 'a dashboard saw a twin go back, or a twin is not what history says'],
  ['stale_effects', 'something of an older epoch after a newer one'],
  ['incidents', 'in the table'],
  ['pages', 'different ones that a webhook received'],
  ['wrong_incidents', 'missing, doubled, without a cause, left open, or not told as they are in the table'],
  ['crashes', 'programs that ended by themselves'],
];

export function tableOf(count: ChaosCount, done: Partial<Record<FaultKind, number>>): string[] {
  const width = Math.max(...MEANINGS.map(([name]) => name.length));
  const { p50, p99 } = count.recovery_ms;
  return [
    ...MEANINGS.map(
      ([name, meaning]) => `  ${name.padEnd(width)}  ${String(count[name]).padStart(8)}  ${meaning}`,
    ),
    `  ${'recovery'.padEnd(width)}  p50 ${p50 ?? '-'} ms, p99 ${p99 ?? '-'} ms until all sites are live again`,
    `  what went wrong: ${
      Object.entries(done)
        .map(([kind, times]) => `${times} × ${kind}`)
        .join(', ') || 'nothing'
    }`,
  ];
}

export function planLines(plan: readonly Fault[]): string[] {
  return plan.map(({ number, kind, atMs, forMs, target, shiftMs, servers }) => {
    const length = forMs > 0 ? ` for ${inSeconds(forMs)}` : '';
    const clock = kind.endsWith('-clock') ? ` by ${inSeconds(shiftMs)}` : '';
    const of = kind === 'cloud-cut' || kind === 'cloud-half-open' ? ` ${servers}` : '';
    const where = isOneOf(nodeFaults, kind) ? ` cloud-${target + 1}` : ` ${target}`;
    return `${inSeconds(atMs).padStart(9)}  ${String(number).padStart(4)}  ${kind}${where}${of}${clock}${length}`;
  });
}
