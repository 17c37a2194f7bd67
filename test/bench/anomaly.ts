/**
 * What the anomaly rule makes of labelled recordings: `anomaly_windows.json` in their folder names the windows of each file in
 * which something was wrong. A window in which an incident opens is a hit, one without is a miss; an incident that
 * opens outside of all windows is a false alarm. The rule is the very code that judges live readings, with its default
 * values and, beside it, with other numbers of deviations.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AnomalyRule } from '../../cloud/actors/rule.ts';
import { indexRules } from '../../cloud/actors/rule-index.ts';
import { newTrial } from '../../cloud/actors/trial.ts';
import { RuleBody, ruleOf } from '../../cloud/rule-model.ts';
import type { Benchmark } from './benchmark.ts';
import { rounded, table } from './tables.ts';

const DEVIATIONS = [4, 5, 6, 8];
const DAY_MS = 86_400_000;

interface Recording {
  readonly name: string;
  readonly points: readonly { readonly at: number; readonly value: number }[];
  readonly windows: readonly (readonly [number, number])[];
}

interface Score {
  readonly hits: number;
  readonly windows: number;
  readonly falseAlarms: number;
  readonly days: number;
}

export const anomaly: Benchmark = {
  does: 'hits, misses and false alarms of the anomaly rule on labelled recordings (--recordings FOLDER)',
  async run({ recordings: folder }) {
    if (folder === undefined) throw new Error('--recordings FOLDER: labelled recordings are needed');
    const recordings = readRecordings(folder);
    const ofDefault = recordings.map(recording => ({ recording, score: judge(recording, defaultRule()) }));
    const sweep = DEVIATIONS.map(deviations => ({
      deviations,
      score: sum(recordings.map(recording => judge(recording, { ...defaultRule(), deviations }))),
    }));
    const all = sum(ofDefault.map(({ score }) => score));
    const { deviations, window, warmup } = defaultRule();
    return {
      tables: [
        `The anomaly rule with its defaults: ${deviations} deviations, a window of ${window} readings, a warm-up of ${warmup}`,
        table([
          ['recording', 'days', 'windows', 'hits', 'misses', 'false alarms', 'per day'],
          ...ofDefault.map(({ recording, score }) => [recording.name, ...cells(score)]),
          ['all', ...cells(all)],
        ]),
        table([
          ['deviations', 'days', 'windows', 'hits', 'misses', 'false alarms', 'per day'],
          ...sweep.map(({ deviations: of, score }) => [String(of), ...cells(score)]),
        ]),
      ],
      figures: {
        ...figuresOf(all),
        recordings: Object.fromEntries(
          ofDefault.map(({ recording, score }) => [recording.name, figuresOf(score)]),
        ),
        by_deviations: Object.fromEntries(sweep.map(({ deviations: of, score }) => [of, figuresOf(score)])),
      },
    };
  },
};

function defaultRule(): AnomalyRule {
  const body = RuleBody.parse({ kind: 'anomaly', metric: 'value' });
  const rule = ruleOf({ ...body, id: 'anomaly' });
  if (rule.kind !== 'anomaly') throw new Error('not an anomaly rule');
  return rule;
}

function judge({ name, points, windows }: Recording, rule: AnomalyRule): Score {
  const trial = newTrial('recordings', name, indexRules([rule], 1).of('recordings', name, null));
  const opened: number[] = [];
  points.forEach(({ at, value }, index) => {
    const reading = {
      at,
      log: 'recording',
      sequence: index,
      element: 0,
      metrics: ['value'],
      values: [value],
    };
    for (const { clearedAt, openedAt } of trial.read(reading)) if (clearedAt === null) opened.push(openedAt);
  });
  const lies = (at: number, [from, to]: readonly [number, number]) => at >= from && at <= to;
  return {
    hits: windows.filter(window => opened.some(at => lies(at, window))).length,
    windows: windows.length,
    falseAlarms: opened.filter(at => !windows.some(window => lies(at, window))).length,
    days: (points.at(-1)!.at - points[0]!.at) / DAY_MS,
  };
}

const sum = (scores: readonly Score[]): Score => ({
  hits: scores.reduce((total, score) => total + score.hits, 0),
  windows: scores.reduce((total, score) => total + score.windows, 0),
  falseAlarms: scores.reduce((total, score) => total + score.falseAlarms, 0),
  days: scores.reduce((total, score) => total + score.days, 0),
});

const cells = ({ hits, windows, falseAlarms, days }: Score): string[] =>
  [rounded(days, 1), windows, hits, windows - hits, falseAlarms, rounded(falseAlarms / days, 3)].map(String);

const figuresOf = ({ hits, windows, falseAlarms, days }: Score) => ({
  windows,
  hits,
  misses: windows - hits,
  false_alarms: falseAlarms,
  false_alarms_per_day: rounded(falseAlarms / days, 3),
});

function readRecordings(folder: string): Recording[] {
  const labels: Record<string, [string, string][]> = JSON.parse(
    readFileSync(join(folder, 'anomaly_windows.json'), 'utf8'),
  );
  return Object.entries(labels).map(([file, windows]) => ({
    name: file.replace(/\.csv$/, ''),
    points: readFileSync(join(folder, file), 'utf8')
      .trim()
      .split('\n')
      .slice(1)
      .map(line => {
        const [time = '', value = ''] = line.split(',');
        return { at: timeOf(time), value: Number(value) };
      })
      .sort((a, b) => a.at - b.at),
    windows: windows.map(([from, to]) => [timeOf(from), timeOf(to)] as const),
  }));
}

/** "2015-09-01 13:45:00", in UTC. */
const timeOf = (text: string): number => Date.parse(`${text.replace(' ', 'T')}Z`);
