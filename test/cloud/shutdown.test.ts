/** How a cloud node's process ends when its servers are not what they should be. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { atEnd, startTestNats, startTestPostgres, startTestRedis } from './servers.ts';

test('NATS is away: SIGTERM still ends the process, cleanly', async () => {
  const [nats, redis, postgres] = await Promise.all([startTestNats(), startTestRedis(), startTestPostgres()]);
  const main = fileURLToPath(new URL('../../cloud/main.ts', import.meta.url));
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', main], {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    env: {
      ...process.env,
      HOLDFAST_NATS_URL: nats.url,
      HOLDFAST_REDIS_URL: redis.url,
      HOLDFAST_POSTGRES_URL: postgres.url,
      HOLDFAST_HTTP_PORT: '0',
      HOLDFAST_PARTITIONS: '4',
    },
  });
  atEnd(async () => void child.kill('SIGKILL'));
  let log = '';
  child.stdout!.on('data', chunk => {
    log += chunk;
  });
  const exited = once(child, 'exit');
  assert.deepEqual((await once(child, 'message'))[0].type, 'ready', log);
  await nats.kill();
  child.kill('SIGTERM');
  assert.deepEqual(await exited, [0, null], log);
  assert.match(log, /"draining"/);
  assert.doesNotMatch(log, /has ended for good/);
});
