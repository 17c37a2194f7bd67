/** What `npm run chaos -- --simulate …` understands. Pure. */
import { problem, type Read, readOptions } from '../deploy/local/read-options.ts';
import { type Bug, bugs } from './cluster.ts';

export interface SimulationArguments {
  readonly from: number;
  readonly to: number;
  readonly bug: Bug | null;
  readonly json: boolean;
  /** Print every event of the first seed. */
  readonly trace: boolean;
  readonly workers: number | null;
}

export const HELP = `npm run chaos -- --simulate [options]

A cluster on a seeded clock and a seeded network, in one process: production's actors, ownership, history writer and push on
simulated servers that fail in every way. Exit code 0 when every seed is clean; a seed always gives the same run.

  --seeds A..B   which ones (1..500); one number for one
  --bug NAME     with a planted bug: ${bugs.slice(0, 4).join(', ')},
                 ${bugs.slice(4).join(', ')}
  --trace        print every event of the first seed, and the hash of all of them
  --workers N    how many at the same time (2)
  --json         the last line is the count as JSON`;

export function readArguments(words: string[]): Read<SimulationArguments> {
  const read = readOptions(words, {
    simulate: { type: 'boolean' },
    seeds: { type: 'string' },
    bug: { type: 'string' },
    workers: { type: 'string' },
    trace: { type: 'boolean' },
    json: { type: 'boolean' },
  });
  if (!read.ok) return read;
  const { value: values } = read;
  const range = /^(\d+)(?:\.\.(\d+))?$/.exec(String(values.seeds ?? '1..500'));
  const from = Number(range?.[1]);
  const to = Number(range?.[2] ?? range?.[1]);
  if (!range || to < from || to >= 2 ** 32)
    return problem(`--seeds ${values.seeds}: two whole numbers, as 1..500`);
  const bug = values.bug === undefined ? null : bugs.find(name => name === values.bug);
  if (bug === undefined) return problem(`--bug: there is no ${values.bug}`);
  const workers = values.workers === undefined ? null : Number(values.workers);
  if (workers !== null && !(Number.isInteger(workers) && workers >= 1 && workers <= 64))
    return problem(`--workers ${values.workers}: a whole number from 1 to 64`);
  return {
    ok: true,
    value: { from, to, bug, workers, json: values.json === true, trace: values.trace === true },
  };
}
