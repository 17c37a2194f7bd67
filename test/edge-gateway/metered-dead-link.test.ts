/** A metered link pings rarely; one that died silently is left all the same, and nothing that was sent into it is missing (A, R). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UNMETERED } from '../../edge-gateway/link-terms.ts';
import { openSendingSite } from './sending-site.ts';
import { eventually, startSmallCloud } from './small-cloud.ts';

test('a metered link that is half-open is given up when an answer stays away', {
  timeout: 90_000,
}, async t => {
  const cloud = await startSmallCloud();
  t.after(() => cloud.close());
  const site = await openSendingSite(t, cloud, {
    ...UNMETERED,
    budget: { bytesMax: 100_000_000, per: 'day' },
    gatherMsMax: 1000,
  });
  await site.take(100);
  await eventually('the link carries', () => site.settled() === 100);
  cloud.link.stall();
  await site.take(100);
  const at = performance.now();
  await eventually('the dead link is left', () => !site.uplink.state().connected);
  t.diagnostic(`left after ${Math.round(performance.now() - at)} ms`);
  cloud.link.heal();
  await eventually('all is settled', () => site.settled() === 200);
  assert.equal(cloud.settled.size, 1);
  await site.close();
});
