/** What `holdfast chaos …` understands. Pure. */

import { type PlantedBug, plantedBugs } from '../../protocol/planted-bug.ts';
import { problem, type Read, readOptions } from '../local/read-options.ts';
import { type FaultKind, faultKinds } from './plan.ts';

export interface ChaosArguments {
  readonly seed: number;
  readonly faults: number;
  readonly kinds: readonly FaultKind[];
  readonly nodes: number;
  /** Devices per site. */
  readonly devices: number;
  /** Messages per second of all sites together. */
  readonly rate: number;
  /** From the first fault to the last, as far as that can be kept. */
  readonly durationMs: number;
  readonly bug: PlantedBug | null;
  /** Where the programs' last words go; null for nowhere. */
  readonly logs: string | null;
  readonly json: boolean;
  /** Print what would go wrong, and do nothing. */
  readonly planOnly: boolean;
}

/** A fault starts about this often, unless `--minutes` says otherwise. */
const PACE_MS = 1500;

export const HELP = `holdfast chaos [options]

Three sites and a cluster of cloud nodes on this machine, and everything that can go wrong with any of them, some of it at the same
time. Then all is healed, and every message, twin and incident is compared with the devices' own counters; the exit code is 0
when nothing is lost, double, made up, older than before, or written by somebody who had lost the right to.

  --faults N         how many things go wrong (20)
  --seed N           draws what goes wrong, when and where (a new one each time)
  --json             the last line is the count as JSON
  --plan             only print what that seed would do
  --nodes N          cloud nodes (3)
  --minutes N        over how long the faults are spread (1.5 s per fault)
  --only A,B         only these kinds
  --devices N        devices per site (5); every fifth sends no timestamp of its own
  --rate N           messages per second of all sites together (90)
  --logs FOLDER      keeps there what every process said last
  --bug NAME         plants a bug, which has to be found: ${plantedBugs.slice(0, 3).join(', ')},
                     ${plantedBugs.slice(3).join(', ')}
  --simulate …       the same in one process, on a seeded clock and network; see there: --simulate --help

Kinds:
${kindLines()}`;

function kindLines(): string {
  const lines: string[] = [];
  for (let at = 0; at < faultKinds.length; at += 5)
    lines.push(`  ${faultKinds.slice(at, at + 5).join(', ')}`);
  return lines.join(',\n');
}

/** @param newSeed for a run that names none */
export function readChaosArguments(words: string[], newSeed: number): Read<ChaosArguments> {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const read = readOptions(words, {
    ...{ faults: text, seed: text, nodes: text, minutes: text, only: text, devices: text, rate: text },
    ...{ logs: text, bug: text, json: flag, plan: flag },
  });
  if (!read.ok) return read;
  const { value: values } = read;

  const bounds: Record<'seed' | 'faults' | 'nodes' | 'devices', readonly [number, number, number]> = {
    seed: [0, 2 ** 32 - 1, newSeed],
    faults: [0, 100_000, 20],
    nodes: [1, 9, 3],
    devices: [1, 200, 5],
  };
  const whole = { seed: 0, faults: 0, nodes: 0, devices: 0 };
  for (const name of ['seed', 'faults', 'nodes', 'devices'] as const) {
    const [least, most, usual] = bounds[name];
    const number = Number(values[name] ?? usual);
    if (!Number.isInteger(number) || number < least || number > most)
      return problem(`--${name} ${values[name]}: a whole number from ${least} to ${most}`);
    whole[name] = number;
  }
  const rate = Number(values.rate ?? 90);
  if (!(rate > 0 && rate <= 20_000)) return problem(`--rate ${values.rate}: a number up to 20000`);
  const minutes = Number(values.minutes ?? (whole.faults * PACE_MS) / 60_000);
  if (!(minutes >= 0 && minutes <= 1440)) return problem(`--minutes ${values.minutes}: a number up to 1440`);

  const kinds: FaultKind[] = [];
  for (const name of values.only === undefined ? faultKinds : String(values.only).split(',')) {
    const kind = faultKinds.find(each => each === name.trim());
    if (!kind) return problem(`--only: there is no ${name}`);
    kinds.push(kind);
  }
  const bug = values.bug === undefined ? null : plantedBugs.find(name => name === values.bug);
  if (bug === undefined) return problem(`--bug: there is no ${values.bug}`);
  return {
    ok: true,
    value: {
      ...whole,
      kinds,
      rate,
      durationMs: minutes * 60_000,
      bug,
      logs: values.logs === undefined ? null : String(values.logs),
      json: values.json === true,
      planOnly: values.plan === true,
    },
  };
}
