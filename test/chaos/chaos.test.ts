/** `holdfast chaos` for real, short: faults of a fixed seed, and everything as the devices said it (A, B, C, D, R). */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, globSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../../deploy/chaos/main.ts', import.meta.url));

async function run(t: TestContext, ...args: string[]) {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-chaos-test-'));
  // As root PostgreSQL runs as another user, who has to get in.
  chmodSync(directory, 0o711);
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', main, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // Its own, to see that nothing stays behind.
    env: { ...process.env, TMPDIR: directory },
  });
  t.after(() => child.kill('SIGTERM'));
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', chunk => {
      text += String(chunk);
    });
  }
  const [code] = await once(child, 'close');
  assert.deepEqual(globSync('holdfast-chaos-*', { cwd: directory }), [], 'nothing stays behind');
  return { code: code as number | null, text };
}

/** Those that a minute of them shows reliably; the release run has all kinds (`npm run chaos -- --faults 200`). */
const KINDS = 'cloud-kill,cloud-pause,cloud-cut,nats-kill,redis-flushed,postgres-kill,gateway-kill,link-cut';

test('faults of every server, node and gateway: nothing lost, double, made up, gone back or of an older epoch', async t => {
  const { code, text } = await run(t, '--faults', '20', '--only', KINDS, '--seed', '1', '--json');
  assert.equal(code, 0, text);
  const counted = JSON.parse(text.trim().split('\n').at(-1)!);
  t.diagnostic(JSON.stringify(counted));
  assert.ok(counted.faults >= 12, 'nearly all could be carried out');
  assert.ok(counted.acknowledged > 1000);
  assert.ok(counted.incidents > 20);
  assert.ok(counted.recovery_ms.p50 > 0);
});
