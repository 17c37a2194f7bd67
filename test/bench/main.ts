/**
 * `npm run bench -- NAME [--json] [--rounds N] [--messages N] [--minutes N] [--devices N] [--rate N] [--profile FOLDER]`: runs a
 * benchmark on private servers in a temporary folder. Prints tables for people and, as the last line, one line of JSON; with --json that line alone.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { defaultCacheDirectory, findBinaries } from '../../deploy/local/find-servers.ts';
import { anomaly } from './anomaly.ts';
import type { Benchmark } from './benchmark.ts';
import { buffer } from './buffer.ts';
import { history } from './history.ts';
import { intake } from './intake.ts';
import { neighbours } from './neighbours.ts';
import { outage } from './outage.ts';
import { pipeline } from './pipeline.ts';
import { postgresAway } from './postgres-away.ts';
import { redisWiped } from './redis-wiped.ts';
import { newReleases } from './releases.ts';
import { takeover } from './takeover.ts';
import { twins } from './twins.ts';

const benchmarks: Readonly<Record<string, Benchmark>> = {
  pipeline,
  intake,
  outage,
  'postgres-away': postgresAway,
  'redis-wiped': redisWiped,
  neighbours,
  takeover,
  twins,
  buffer,
  anomaly,
  history,
};

const startedAt = performance.now();
const report = (line: string) =>
  console.error(`${((performance.now() - startedAt) / 1000).toFixed(1).padStart(6)} s  ${line}`);

async function main(): Promise<number> {
  const asked = readArguments();
  if (typeof asked === 'string') {
    console.error(asked);
    return 2;
  }
  const releases = newReleases();
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-bench-'));
  // The user who runs PostgreSQL in place of root has to get in.
  chmodSync(directory, 0o711);
  const interrupted = new Promise<never>((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.once(signal, () => reject(new Error(signal)));
    process.once('disconnect', () => reject(new Error('the launcher is gone')));
  });
  const run = async () => {
    // Not in containers: their CPU time is not in our process tree.
    const places = ['machine', 'packages', 'root'] as const;
    const binaries = await findBinaries({ cacheDirectory: defaultCacheDirectory, report, places });
    return asked.benchmark.run({ ...asked, directory, binaries, releases, report });
  };
  try {
    const { tables, figures } = await Promise.race([run(), interrupted]);
    if (!asked.json) for (const table of tables) console.log(`${table}\n`);
    // For whoever compares figures: how busy the machine was, this run included.
    const load_average = Math.round(loadavg()[0]! * 10) / 10;
    console.log(JSON.stringify({ bench: asked.name, ...figures, load_average }));
    return 0;
  } catch (error) {
    console.error((error as Error).stack ?? error);
    return 1;
  } finally {
    await releases.run();
    rmSync(directory, { recursive: true, force: true });
  }
}

function readArguments() {
  const known = Object.entries(benchmarks).map(([name, { does }]) => `  ${name.padEnd(14)}${does}`);
  const usage = `bench NAME [--json] [--rounds N] [--messages N] [--minutes N] [--devices N] [--rate N] [--profile FOLDER] [--recordings FOLDER]\n${known.join('\n')}`;
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse();
  } catch (error) {
    return `${(error as Error).message}\n${usage}`;
  }
  const { values, positionals } = parsed;
  const [name = '', ...rest] = positionals;
  const benchmark = Object.hasOwn(benchmarks, name) ? benchmarks[name] : undefined;
  const rounds = count(values.rounds);
  const messages = count(values.messages);
  const minutes = count(values.minutes);
  const devices = count(values.devices);
  const rate = count(values.rate);
  if (!benchmark || rest.length > 0 || rounds === null || messages === null || minutes === null) return usage;
  if (devices === null || rate === null) return usage;
  const profileDirectory = values.profile === undefined ? undefined : resolve(values.profile);
  const recordings = values.recordings === undefined ? undefined : resolve(values.recordings);
  const counts = { rounds, messages, minutes, devices, rate };
  return { name, benchmark, json: values.json, ...counts, profileDirectory, recordings };
}

const parse = () =>
  parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      messages: { type: 'string' },
      minutes: { type: 'string' },
      devices: { type: 'string' },
      rate: { type: 'string' },
      profile: { type: 'string' },
      recordings: { type: 'string' },
    },
  });

/** Undefined when not given, null when it is no count. */
function count(text: string | undefined): number | undefined | null {
  if (text === undefined) return undefined;
  return /^[1-9]\d*$/.test(text) ? Number(text) : null;
}

process.exit(await main());
