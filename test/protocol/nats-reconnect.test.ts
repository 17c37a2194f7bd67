/** Connecting again to a real server, whatever the wall clock does meanwhile. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect } from '@nats-io/transport-node';
import { defaultCacheDirectory, findBinaries } from '../../deploy/local/find-servers.ts';
import { startNats } from '../../deploy/local/servers.ts';
import { natsAddress } from '../../protocol/nats-address.ts';
import { reconnectForEver } from '../../protocol/nats-reconnect.ts';

const HOUR_MS = 3_600_000;
const PATIENCE_MS = 10_000;

test('a clock that was an hour ahead and is set right holds nobody up', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-nats-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const binaries = await findBinaries({ cacheDirectory: defaultCacheDirectory, report: () => {} });
  const user = { user: 'test', password: 'test' };
  const server = await startNats({ binaries, directory, users: [user] });
  t.after(() => server.stop());

  const ahead = t.mock.method(
    Date,
    'now',
    () => Math.round(performance.timeOrigin + performance.now()) + HOUR_MS,
  );
  const nats = await connect({
    ...natsAddress(server.url),
    ...reconnectForEver({ least: 100, jitter: 100 }),
  });
  t.after(() => nats.close());
  const reconnected = Promise.withResolvers<void>();
  void (async () => {
    for await (const { type } of nats.status()) if (type === 'reconnect') reconnected.resolve();
  })();
  ahead.mock.restore();
  await server.kill();
  await server.start();
  const startedAt = performance.now();
  const timer = setTimeout(() => reconnected.reject(new Error('not connected again')), PATIENCE_MS);
  await reconnected.promise;
  clearTimeout(timer);
  t.diagnostic(`connected again after ${Math.round(performance.now() - startedAt)} ms`);
  await nats.flush();
});

test('attempts are spread, and the first of a break is the soonest', () => {
  const { reconnectToServer } = reconnectForEver({ least: 200, jitter: 1000 });
  const server = { hostname: 'a', port: 1, listen: 'a:1', src: 'a:1', tlsName: '', gossiped: false };
  const delayOf = (lastConnect: number, reconnects: number) => {
    const answer = reconnectToServer!(
      [{ ...server, lastConnect, reconnects, didConnect: true }] as never,
      null,
    );
    return answer !== null && 'delay' in answer ? answer.delay : 0;
  };
  assert.equal(delayOf(0, 0), 0);
  for (let i = 0; i < 100; i++) {
    assert.ok(delayOf(1, 0) < 250);
    assert.ok(delayOf(1, 3) >= 200 && delayOf(1, 3) <= 1200);
  }
});
