/** The command: seeds in, one line about each that is not clean, the count at the end. */
import { argv, exit, stderr, stdout } from 'node:process';
import { pathToFileURL } from 'node:url';
import { HELP, readArguments } from './arguments.ts';
import { runSeed, type SeedResult } from './run.ts';
import { simulateSeeds, summaryOf } from './seeds.ts';

const FAILED_SHOWN_MAX = 10;

/** @returns the exit code */
export async function simulate(words: string[]): Promise<number> {
  const read = readArguments(words);
  if (!read.ok) {
    stderr.write(`${read.problem}${read.problem ? '\n\n' : ''}${HELP}\n`);
    return read.problem ? 2 : 0;
  }
  const { from, to, bug, workers, json, trace } = read.value;
  const line = (text: string) => void stdout.write(`${text}\n`);
  let shown = 0;
  const onResult = (result: SeedResult) => {
    if (!result.isClean && ++shown <= FAILED_SHOWN_MAX) for (const text of linesOf(result)) line(text);
  };
  if (trace) {
    const result = await runSeed(from, { bug, trace: line });
    onResult(result);
    line(`seed ${from}: ${result.events} events, hash ${result.hash}`);
    if (json) line(JSON.stringify(summaryOf([result])));
    return result.isClean ? 0 : 1;
  }
  const startedAt = performance.now();
  const { summary, failed } = await simulateSeeds({
    from,
    to,
    bug,
    onResult,
    ...(workers === null ? {} : { workers }),
  });
  const seconds = (performance.now() - startedAt) / 1000;
  const rate = (summary.seeds / seconds).toFixed(0);
  line(`${summary.seeds} seeds in ${seconds.toFixed(1)} s (${rate} per second), ${failed.length} not clean`);
  if (failed.length > 0)
    line(
      `  ${failed
        .slice(0, 20)
        .map(({ seed }) => seed)
        .join(' ')}`,
    );
  if (json) line(JSON.stringify(summary));
  return failed.length === 0 ? 0 : 1;
}

function linesOf(result: SeedResult): string[] {
  return [
    `seed ${result.seed} is not clean, after ${result.faultKinds.join(', ')}`,
    ...[...result.crashes.slice(0, 1), ...result.details].map(text => `    ${text}`),
  ];
}

if (argv[1] !== undefined && import.meta.url === pathToFileURL(argv[1]).href)
  exit(await simulate(argv.slice(2)));
