/** `npm start` for real, on a folder of its own: how it starts, refuses and ends. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, globSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { finish } from '../../deploy/demo/fleet-process.ts';
import { nodeProcess } from '../../deploy/local/node-process.ts';

const main = fileURLToPath(new URL('../../deploy/demo/main.ts', import.meta.url));

function folder(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-demo-'));
  // As root PostgreSQL runs as another user, who has to get in.
  chmodSync(directory, 0o711);
  t.after(() => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
  return directory;
}

function start(t: TestContext, directory: string, ...args: string[]) {
  const child = spawn(process.execPath, [main, '--port', '0', ...args], {
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    env: { ...process.env, HOLDFAST_DEMO_DIR: directory },
  });
  t.after(() => child.kill('SIGKILL'));
  // Not 'close', which does not come after a disconnect.
  const ended = Promise.all([
    once(child, 'exit'),
    once(child.stdout!, 'close'),
    once(child.stderr!, 'close'),
  ]).then(([[code]]) => code as number | null);
  let text = '';
  const heard = new Set<() => void>();
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.on('data', chunk => {
      text += String(chunk);
      for (const listener of heard) listener();
    });
  }
  const says = (pattern: RegExp) =>
    Promise.race([
      new Promise<void>(resolve => {
        const listener = () => pattern.test(text) && resolve();
        heard.add(listener);
        listener();
      }),
      ended.then(() => assert.match(text, pattern)),
    ]);
  return { child, ended, says, text: () => text };
}

test('it starts fresh where nothing is, refuses a second one on its data, and counts nothing missing', async t => {
  const directory = folder(t);
  const first = start(t, directory, '--fresh', '--for', '3s', '--devices', '10');
  await first.says(/Redis up at/);
  for (const args of [['--fresh'], []]) {
    const second = start(t, directory, ...args);
    assert.equal(await second.ended, 1);
    assert.match(second.text(), new RegExp(`process ${first.child.pid} runs on the data in ${directory}`));
    assert.ok(existsSync(join(directory, 'data/redis')));
  }
  assert.equal(await first.ended, 0, first.text());
  const { acknowledged, missing, duplicates } = JSON.parse(first.text().trim().split('\n').at(-1)!);
  assert.ok(acknowledged > 0);
  assert.deepEqual({ missing, duplicates }, { missing: 0, duplicates: 0 });
  assert.ok(!existsSync(join(directory, 'lock')));
});

for (const [what, interrupt] of [
  ['Ctrl-C', child => child.kill('SIGINT')],
  ['the end of the launcher', child => child.disconnect()],
] as const satisfies [string, (child: ReturnType<typeof spawn>) => unknown][]) {
  test(`${what} during the start-up ends it between two parts and stops what was started`, async t => {
    const directory = folder(t);
    const { child, ended, says, text } = start(t, directory);
    await says(/PostgreSQL up at/);
    interrupt(child);
    assert.equal(await ended, 130);
    assert.match(text(), /\nstopped during the start-up\n$/);
    assert.doesNotMatch(text(), /Dashboard/);
    // A server that was stopped takes its record along.
    assert.deepEqual(globSync('data/**/running.json', { cwd: directory }), []);
  });
}

test('a second Ctrl-C ends it at once', async t => {
  const { child, ended, says, text } = start(t, folder(t));
  await says(/PostgreSQL up at/);
  child.kill('SIGINT');
  child.kill('SIGTERM');
  assert.equal(await ended, 130);
  assert.doesNotMatch(text(), /stopped during the start-up/);
});

test('a recording that cannot be replayed is refused before anything starts', async t => {
  const directory = folder(t);
  const file = join(directory, 'recording.csv');
  const asked = ['--replay', file, '--as', 'demo/machine/temperature'];
  const missing = start(t, directory, ...asked);
  assert.equal(await missing.ended, 2);
  assert.equal(missing.text(), `--replay ${file}: there is no such file, or it cannot be read\n`);
  writeFileSync(file, 'timestamp,value\n2024-01-01 00:00:00,1\nyesterday,2\n');
  const wrong = start(t, directory, ...asked);
  assert.equal(await wrong.ended, 2);
  assert.equal(wrong.text(), `${file}: line 3 is not "timestamp,value": yesterday,2\n`);
  assert.ok(!existsSync(join(directory, 'data')));
});

test('a fleet that is gone is not asked for its journal', async () => {
  const gone = nodeProcess({ name: 'fleet', entry: new URL('./none.ts', import.meta.url), env: {} });
  await assert.rejects(finish(gone), /the fleet was gone before it told what was acknowledged/);
});
