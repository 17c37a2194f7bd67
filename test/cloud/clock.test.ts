/** How far the word of a site's gateways is complete. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { heardHeartbeat, type SiteClocks } from '../../cloud/actors/clock.ts';
import type { LogId } from '../../protocol/ids.ts';

const [MINE, OTHER] = ['a', 'b'].map(digit => digit.repeat(32) as LogId) as [LogId, LogId];

const hear = (clocks: SiteClocks, logId: LogId, at: number, completeUntil = at - 10): number | undefined =>
  heardHeartbeat(
    clocks,
    'gw-1',
    {
      settlement: 'heartbeat',
      logId,
      at,
      completeUntil,
      hearingSince: 0,
      coversSite: true,
    },
    [],
  ).get('gw-1')?.completeUntil;

test('of two gateways that go by one name, the word of both is what both have', () => {
  const clocks: SiteClocks = new Map();
  assert.equal(hear(clocks, MINE, 1000), 990);
  assert.equal(hear(clocks, OTHER, 2000), 990);
  for (let at = 3000; at < 8000; at += 2000) {
    assert.equal(hear(clocks, MINE, at, 500), 500);
    assert.equal(hear(clocks, OTHER, at + 1000), 500);
  }
});

test('after a restart the word before it counts until the new one has been heard for a while', () => {
  const clocks: SiteClocks = new Map();
  assert.equal(hear(clocks, MINE, 1000), 990);
  assert.equal(hear(clocks, OTHER, 2000), 990);
  assert.equal(hear(clocks, OTHER, 3000), 990);
  assert.equal(hear(clocks, OTHER, 4000), 3990);
});
