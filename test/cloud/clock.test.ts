/** How far the word of a site's gateways is complete. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { heardHeartbeat, type SiteClocks } from '../../cloud/actors/clock.ts';
import type { LogId } from '../../protocol/ids.ts';

const [MINE, OTHER] = ['a', 'b'].map(digit => digit.repeat(32) as LogId) as [LogId, LogId];

const hear = (clocks: SiteClocks, logId: LogId, at: number): number | undefined =>
  heardHeartbeat(
    clocks,
    'gw-1',
    {
      settlement: 'heartbeat',
      logId,
      at,
      completeUntil: at - 10,
      hearingSince: 0,
      coversSite: true,
    },
    [],
  ).get('gw-1')?.completeUntil;

test('two gateways that go by one name are complete in nothing while both speak; after a restart it takes one more word', () => {
  const clocks: SiteClocks = new Map();
  assert.equal(hear(clocks, MINE, 1000), 990);
  for (let at = 2000; at < 8000; at += 2000) {
    assert.equal(hear(clocks, OTHER, at), 0);
    assert.equal(hear(clocks, MINE, at + 1000), 0);
  }
  assert.equal(hear(clocks, MINE, 8000), 7990);
  assert.equal(hear(clocks, OTHER, 9000), 0);
  assert.equal(hear(clocks, OTHER, 10_000), 9990);
});
