/**
 * `npm test`: formatter and linter, types, then every `*.test.ts` below this folder, each file in a process of its own.
 *
 *   npm test                          everything
 *   npm test -- twin edge-gateway     only what has one of these in its path; checks are `check/format`, `check/types`
 *   HOLDFAST_TEST_SEED=random npm test   with other cases of the properties than the usual ones, see `seed.ts`
 *
 * Of those that start whole stacks, which mostly wait, one runs at a time, and beside it one light file. The last line is
 * `N passed, N failed`; the exit code is 0 when nothing failed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Finished } from './reporter.ts';

interface Job {
  /** Path or check as people type it. */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly timeoutMs: number;
  /** Where the reporter writes; null for a check, which is one test by itself. */
  readonly reportFile: string | null;
}

const project = fileURLToPath(new URL('..', import.meta.url));
const tools = join(project, 'node_modules', '.bin');
/** Everybody's temporary folder, so that nothing stays behind whoever is killed. PostgreSQL's own user passes through. */
const scratch = mkdtempSync(join(tmpdir(), 'holdfast-test-'));
chmodSync(scratch, 0o711);

/** Two of them at a time would starve one another. */
const WHOLE_STACKS = [
  'test/end-to-end/',
  'test/browser/',
  'test/local/',
  'test/demo/',
  'test/lab/',
  'test/chaos/',
  // Uses all cores by itself.
  'test/simulate/',
];
const LIGHT_TIMEOUT_MS = 120_000;
const WHOLE_STACK_TIMEOUT_MS = 300_000;
/** Time to take servers along after SIGTERM. */
const KILL_AFTER_MS = 5000;
const OUTPUT_KEPT = 64 * 1024;
/** Of one failure; a difference between two large structures may be far longer. */
const DETAIL_KEPT = 8000;

const filters = process.argv.slice(2);
const running = new Set<ChildProcess>();
const totals = { passed: 0, failed: 0 };
const skipped: string[] = [];
const failures: string[] = [];

const interrupt = () => {
  for (const child of running) child.kill('SIGTERM');
  process.exitCode = 130;
  setTimeout(() => process.exit(), KILL_AFTER_MS).unref();
};
process.once('SIGINT', interrupt);
process.once('SIGTERM', interrupt);
// The launcher is gone. Listening alone must not keep this process.
process.once('disconnect', interrupt);
process.channel?.unref();
process.on('exit', () => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 }));

const startedAt = performance.now();
const jobs = [...checks(), ...testFiles()].filter(
  ({ name }) => filters.length === 0 || filters.some(filter => name.includes(filter.replace(/^\.\//, ''))),
);
const light = jobs.filter(job => !isWholeStack(job));
await Promise.all([runInTurn([jobs.filter(isWholeStack), light]), runInTurn([light])]);
summary();

function isWholeStack({ name }: Pick<Job, 'name'>): boolean {
  return WHOLE_STACKS.some(folder => name.startsWith(folder));
}

function checks(): Job[] {
  const check = (name: string, program: string, ...args: string[]): Job => ({
    name: `check/${name}`,
    command: join(tools, program),
    args,
    timeoutMs: LIGHT_TIMEOUT_MS,
    reportFile: null,
  });
  return [
    check('format', 'biome', 'check', '.'),
    check('types', 'tsc', '-p', '.'),
    check('types-dashboard', 'tsc', '-p', 'cloud/dashboard'),
  ];
}

function testFiles(): Job[] {
  const names = globSync('test/**/*.test.ts', { cwd: project }).map(name => name.split(sep).join('/'));
  return names.sort().map((name, index) => {
    const reportFile = join(scratch, `${index}.jsonl`);
    return {
      name,
      command: process.execPath,
      args: [
        '--disable-warning=ExperimentalWarning',
        ...(readFileSync(join(project, name), 'utf8').includes("'fast-check'")
          ? [`--import=${new URL('seed.ts', import.meta.url).href}`]
          : []),
        `--test-reporter=${new URL('reporter.ts', import.meta.url).href}`,
        `--test-reporter-destination=${reportFile}`,
        name,
      ],
      timeoutMs: isWholeStack({ name }) ? WHOLE_STACK_TIMEOUT_MS : LIGHT_TIMEOUT_MS,
      reportFile,
    };
  });
}

/** One after the other; what another one has taken is not there any more. */
async function runInTurn(queues: readonly Job[][]): Promise<void> {
  for (const queue of queues) {
    for (let job = queue.shift(); job && process.exitCode === undefined; job = queue.shift())
      await runJob(job);
  }
}

async function runJob(job: Job): Promise<void> {
  const jobStartedAt = performance.now();
  const ended = await runToEnd(job);
  const finished = job.reportFile === null ? [] : readReport(job.reportFile);
  const failed = finished.filter(({ outcome }) => outcome === 'failed');
  const passed = finished.filter(({ outcome }) => outcome === 'passed').length;
  const skips = finished.filter(({ outcome }) => outcome === 'skipped');

  // A file that ends badly without a failed test, or runs no test at all, has failed by itself.
  if (ended.trouble !== null && failed.length === 0) {
    failed.push({ name: 'the whole', outcome: 'failed', detail: `${ended.trouble}\n${ended.output}` });
  } else if (job.reportFile !== null && finished.length === 0) {
    failed.push({ name: 'the whole', outcome: 'failed', detail: `no test ran\n${ended.output}` });
  }
  const passes = job.reportFile === null && failed.length === 0 ? 1 : passed;
  totals.passed += passes;
  totals.failed += failed.length;
  for (const { name, detail } of skips) skipped.push(`${job.name} › ${name}: ${detail}`);

  const seconds = ((performance.now() - jobStartedAt) / 1000).toFixed(1);
  const counts = [
    `${passes} passed`,
    ...(failed.length > 0 ? [`${failed.length} failed`] : []),
    ...(skips.length > 0 ? [`${skips.length} skipped`] : []),
  ];
  say(`${failed.length > 0 ? 'not ok' : '    ok'}  ${job.name}  ${counts.join(', ')}  (${seconds} s)`);
  for (const { name, outcome } of finished) if (outcome === 'noted') say(indented(`    ${name}`));
  for (const { name, detail } of failed) {
    const text = `${job.name} › ${name}\n${indented(shortened(detail))}`;
    failures.push(text);
    say(text);
  }
  if (failed.length > 0 && ended.trouble !== null && job.reportFile !== null && ended.output !== '') {
    say(`  its output:\n${indented(ended.output)}`);
  }
}

function runToEnd({ command, args, timeoutMs }: Job): Promise<{ trouble: string | null; output: string }> {
  return new Promise(resolve => {
    // Without the variable of an outer `node --test`, which would change what the file reports to.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const child = spawn(command, args, {
      cwd: project,
      env: { ...env, TMPDIR: scratch },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(child);
    let output = '';
    let timedOut = false;
    const keep = (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-OUTPUT_KEPT);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    let killTimer: NodeJS.Timeout | undefined;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGTERM');
      killTimer = setTimeout(() => child.kill('SIGKILL'), KILL_AFTER_MS);
    }, timeoutMs);
    const end = (trouble: string | null) => {
      clearTimeout(timer);
      clearTimeout(killTimer);
      running.delete(child);
      // A grandchild that outlives its parent must not hold the pipes, and us, open.
      child.stdout.destroy();
      child.stderr.destroy();
      resolve({ trouble, output: output.trim() });
    };
    child.on('error', error => end(`${command} could not be started: ${error.message}`));
    child.on('exit', (code, signal) => {
      const trouble = code === 0 ? null : `ended with ${signal ?? `exit code ${code}`}`;
      const late = `did not end within ${timeoutMs / 1000} s: a test hangs, or something was left open`;
      setImmediate(() => end(timedOut ? late : trouble));
    });
  });
}

function readReport(file: string): Finished[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return [];
  }
  // The last line may be torn when the process was killed.
  const lines = text.slice(0, text.lastIndexOf('\n') + 1).split('\n');
  return lines.filter(line => line !== '').map(line => JSON.parse(line) as Finished);
}

function summary(): void {
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
  if (jobs.length === 0) {
    totals.failed++;
    say(`nothing has ${filters.join(' or ')} in its path`);
  }
  if (skipped.length > 0) say(`\nskipped:\n${indented(skipped.join('\n'))}`);
  if (failures.length > 0) {
    say(`\nfailed:\n${indented(failures.map(text => text.slice(0, text.indexOf('\n'))).join('\n'))}`);
  }
  say(`\n${jobs.length} files and checks in ${seconds} s`);
  say(`${totals.passed} passed, ${totals.failed} failed`);
  process.exitCode ??= totals.failed > 0 ? 1 : 0;
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function shortened(text: string): string {
  return text.length > DETAIL_KEPT
    ? `${text.slice(0, DETAIL_KEPT)}\n… and ${text.length - DETAIL_KEPT} characters more`
    : text;
}

function indented(text: string): string {
  return text.replaceAll(/^/gm, '    ');
}
