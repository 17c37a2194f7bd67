/** The simulated cluster: clean over many seeds, the same run for the same seed, and every planted bug found. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { readArguments } from '../../simulate/arguments.ts';
import type { Bug } from '../../simulate/cluster.ts';
import { runSeed, type SeedResult } from '../../simulate/run.ts';
import { type SeedsOutcome, simulateSeeds } from '../../simulate/seeds.ts';

const SEEDS = 500;
let outcome: SeedsOutcome;

before(async () => {
  outcome = await simulateSeeds({ from: 1, to: SEEDS });
});

const about = (results: readonly SeedResult[]) =>
  results.map(({ seed, crashes, details }) => [seed, ...crashes, ...details].join('\n  ')).join('\n');

test('nothing is lost, double, made up, shown going back, or written under an old epoch (A, B, C, D)', () => {
  const { summary, failed } = outcome;
  const { lost, duplicates, phantoms, regressions, stale_effects } = summary;
  assert.deepEqual(
    { lost, duplicates, phantoms, regressions, stale_effects },
    { lost: 0, duplicates: 0, phantoms: 0, regressions: 0, stale_effects: 0 },
    about(failed),
  );
  assert.equal(summary.seeds, SEEDS);
  assert.ok(summary.acknowledged > 20 * SEEDS, `only ${summary.acknowledged} messages were acknowledged`);
  assert.ok(summary.faults > 2 * SEEDS, `only ${summary.faults} faults`);
});

test('nothing of production throws', () => {
  const crashed = outcome.failed.filter(({ crashes }) => crashes.length > 0);
  assert.equal(crashed.length, 0, about(crashed));
});

test('incidents are those of a clean fold of history', () => {
  const wrong = outcome.failed.filter(({ wrongIncidents }) => wrongIncidents > 0);
  assert.equal(wrong.length, 0, about(wrong));
});

test('a seed gives the same run, event for event, whatever ran before', async () => {
  const run = async (seed: number) => {
    const lines: string[] = [];
    const result = await runSeed(seed, { trace: line => lines.push(line) });
    return { result, lines };
  };
  const first = await run(12);
  await runSeed(13);
  const second = await run(12);
  assert.equal(second.result.hash, first.result.hash);
  assert.deepEqual(second, first);
  assert.notEqual((await run(13)).result.hash, first.result.hash);
});

test('another process gives the same run, byte for byte', async () => {
  const trace = async () => {
    const main = fileURLToPath(new URL('../../simulate/main.ts', import.meta.url));
    const words = ['--disable-warning=ExperimentalWarning', main, '--seeds', '1', '--trace'];
    const { stdout } = await promisify(execFile)(process.execPath, words, { maxBuffer: 64 * 1024 * 1024 });
    // The last line says how long it took.
    return stdout.split('\n').filter(line => !line.includes(' per second'));
  };
  const [first, second] = await Promise.all([trace(), trace()]);
  assert.ok(first.length > 500, `${first.length} lines`);
  assert.deepEqual(second, first);
});

/** What each bug does to people; the first seeds that show it are far below the bound. */
const HARM: Readonly<Record<Bug, 'lost' | 'duplicates' | 'regressions' | 'staleEffects'>> = {
  'skip-fence': 'staleEffects',
  'skip-ledger': 'duplicates',
  'ack-before-commit': 'lost',
  'puback-before-sync': 'lost',
  'trim-on-puback': 'lost',
  'ignore-stream-identity': 'lost',
  'push-without-epoch': 'regressions',
  'reuse-log-id': 'lost',
};
const FOUND_WITHIN = 60;

for (const [bug, harm] of Object.entries(HARM) as [Bug, (typeof HARM)[Bug]][]) {
  test(`planted bug ${bug} is found: ${harm}`, async () => {
    for (let seed = 1; seed <= FOUND_WITHIN; seed++) {
      const result = await runSeed(seed, { bug });
      if (result[harm] > 0) return;
    }
    assert.fail(`no seed up to ${FOUND_WITHIN} shows it`);
  });
}

test('arguments', () => {
  assert.deepEqual(readArguments(['--simulate', '--seeds', '3..9', '--bug', 'skip-ledger', '--json']), {
    ok: true,
    value: { from: 3, to: 9, bug: 'skip-ledger', workers: null, json: true, trace: false },
  });
  for (const words of [
    ['--seeds', '9..3'],
    ['--seeds', 'x'],
    ['--bug', 'none'],
    ['--workers', '0'],
  ]) {
    assert.equal(readArguments(words).ok, false, words.join(' '));
  }
});
