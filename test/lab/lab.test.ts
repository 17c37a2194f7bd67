/** `holdfast lab` for real, short: faults of a fixed seed, nothing lost and nothing double (A, B, R). */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../../deploy/lab/main.ts', import.meta.url));

function start(t: TestContext, ...args: string[]) {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-lab-test-'));
  // As root PostgreSQL runs as another user, who has to get in.
  chmodSync(directory, 0o711);
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', main, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // Its own, to see that nothing stays behind.
    env: { ...process.env, TMPDIR: directory },
  });
  t.after(() => child.kill('SIGKILL'));
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', chunk => {
      text += String(chunk);
    });
  }
  const ended = once(child, 'close').then(([code]) => code as number | null);
  return { child, directory, ended, text: () => text };
}

test('half a minute of faults: everything acknowledged is stored once, and nothing stays behind', async t => {
  const faults = 'link-cut,power-cut,stream-deleted,broker-kill,broker-kill-queueing,gateway-kill';
  const lab = start(t, '--minutes', '0.45', '--seed', '1', '--rate', '100', '--json', '--faults', faults);
  const code = await lab.ended;
  assert.equal(code, 0, lab.text());
  const counted = JSON.parse(lab.text().trim().split('\n').at(-1)!);
  assert.ok(counted.acknowledged > 1000);
  assert.equal(counted.stored, counted.acknowledged - counted.lost_at_broker);
  assert.deepEqual([counted.lost, counted.duplicates, counted.phantoms], [0, 0, 0]);
  for (const kind of ['link-cut', 'power-cut', 'broker-kill-queueing', 'gateway-kill', 'stream-deleted']) {
    assert.ok(counted.faults[kind] > 0, `${kind} happened`);
  }
  t.diagnostic(JSON.stringify(counted));
  assert.deepEqual(globSync('holdfast-lab-*', { cwd: lab.directory }), []);
});

test('Ctrl-C in mid-run stops everything that was started', async t => {
  const lab = start(t, '--minutes', '5', '--seed', '3', '--faults', 'gateway-pause,link-cut');
  const paused = Promise.withResolvers<void>();
  lab.child.stdout.on('data', () => lab.text().includes('gateway paused') && paused.resolve());
  await Promise.race([paused.promise, lab.ended]);
  const records = globSync('holdfast-lab-*/**/running.json', { cwd: lab.directory });
  const pids = records.map(path => JSON.parse(readFileSync(join(lab.directory, path), 'utf8')).pid as number);
  assert.equal(pids.length, 4, lab.text());
  lab.child.kill('SIGINT');
  assert.equal(await lab.ended, 130, lab.text());
  for (const pid of pids) assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' });
  assert.deepEqual(globSync('holdfast-lab-*', { cwd: lab.directory }), []);
});

test('the plan alone is printed and nothing is started', async t => {
  const lab = start(t, '--minutes', '3', '--seed', '3', '--plan');
  assert.equal(await lab.ended, 0);
  assert.match(lab.text(), /link-cut for/);
  assert.match(lab.text(), /stream-deleted/);
  assert.doesNotMatch(lab.text(), / up at /);
});
