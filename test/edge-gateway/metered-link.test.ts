/** A gateway's uplink on a real nats-server through a link that counts its bytes: budget, hours, rate, and without any. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { openLinkAccount, USAGE_FILE } from '../../edge-gateway/link-account.ts';
import { type LinkTerms, UNMETERED } from '../../edge-gateway/link-terms.ts';
import { FLUSH_MS, logger, openSendingSite, type SendingSite } from './sending-site.ts';
import { eventually, type SmallCloud, startSmallCloud } from './small-cloud.ts';

/** What may pass the budget: a batch's answers and notices, and a hello that was due. */
const OVER_BYTES_MAX = 5000;

let cloud: SmallCloud;
before(async () => {
  cloud = await startSmallCloud();
});
after(() => cloud?.close());

const openSite = (t: TestContext, terms: LinkTerms, nowMs?: () => number) =>
  openSendingSite(t, cloud, terms, nowMs);

/** Takes a few messages again and again until `enough`. */
async function keepTaking(site: SendingSite, enough: () => boolean): Promise<void> {
  const until = performance.now() + 20_000;
  while (!enough() && performance.now() < until) {
    await site.take(10);
    await new Promise(resolve => setTimeout(resolve, 10));
  }
}

const carried = () => cloud.link.bytes.up + cloud.link.bytes.down;

test('a budget is kept, what waits goes in the next period, and nothing is missing', async t => {
  const budget = 100_000;
  let now = new Date(2026, 2, 10, 23, 0).getTime();
  const before = carried();
  const site = await openSite(
    t,
    { ...UNMETERED, budget: { bytesMax: budget, per: 'day' }, gatherMsMax: 20 },
    () => now,
  );
  await keepTaking(site, () => site.link.now().exhausted);
  assert.ok(site.link.now().exhausted, 'the budget was used up');
  await site.take(500);
  await eventually('what was under way is answered', () => {
    const { sent } = site.uplink.state();
    return site.settled() === sent.live.messages + sent.backfill.messages;
  });
  const used = carried() - before;
  t.diagnostic(
    `${used} of ${budget} bytes by the link's count, ${site.link.dataBudget?.bytesUsed} by the gateway's`,
  );
  assert.ok(used <= budget + OVER_BYTES_MAX, `${used} bytes of ${budget}`);
  // A reserve is left for the hellos of the last hour: the budget is not given away either.
  assert.ok(used >= budget / 2, `only ${used} bytes of ${budget}`);
  const waiting = site.messages - site.settled();
  assert.ok(waiting >= 500, 'what came afterwards waits on disk');

  now = new Date(2026, 2, 11, 0, 1).getTime();
  await eventually('all is settled in the next period', () => site.settled() === site.messages);
  assert.ok(!site.link.now().exhausted);
});

test('the gateway counts what the link carries, over cuts, and keeps the count over restarts', async t => {
  const before = carried();
  const terms: LinkTerms = {
    ...UNMETERED,
    budget: { bytesMax: 100_000_000, per: 'month' },
    gatherMsMax: 1000,
  };
  const now = new Date(2026, 2, 10, 12).getTime();
  const site = await openSite(t, terms, () => now);
  await site.take(5000);
  await eventually('the first is settled', () => site.settled() === site.messages);
  cloud.link.cut();
  await eventually('the cut is noticed', () => !site.uplink.state().connected);
  cloud.link.heal();
  await site.take(5000);
  await eventually('the second is settled', () => site.settled() === site.messages);
  await site.close();
  const used = carried() - before;
  const kept = JSON.parse(await readFile(join(site.directory, USAGE_FILE), 'utf8')) as { bytes: number };
  t.diagnostic(`${used} bytes by the link's count, ${kept.bytes} by the gateway's`);
  assert.ok(Math.abs(kept.bytes - used) <= 0.02 * used, `${kept.bytes} counted, ${used} carried`);
  const again = openLinkAccount({
    terms,
    directory: site.directory,
    flushIntervalMs: FLUSH_MS,
    logger,
    nowMs: () => now,
  });
  assert.equal(again.dataBudget?.bytesUsed, kept.bytes);
  await again.close();
});

test('a metered link carries fewer and larger batches, so a reading costs less; without a budget they leave at once', async t => {
  const measure = async (terms: LinkTerms) => {
    const site = await openSite(t, terms, () => new Date(2026, 2, 10, 12).getTime());
    await eventually('the link is up', () => site.uplink.state().connected);
    const bytesBefore = carried();
    const batchesBefore = cloud.batches.length;
    const until = performance.now() + 4000;
    while (performance.now() < until) {
      await site.take(20);
      await new Promise(resolve => setTimeout(resolve, 20));
    }
    await eventually('all is settled', () => site.settled() === site.messages);
    const bytes = carried() - bytesBefore;
    const batches = cloud.batches.length - batchesBefore;
    await site.close();
    return { bytesPerReading: bytes / site.messages / 4, batches, messages: site.messages };
  };
  const plain = await measure(UNMETERED);
  const metered = await measure({
    ...UNMETERED,
    budget: { bytesMax: 1_000_000, per: 'day' },
    gatherMsMax: 1000,
  });
  t.diagnostic(`per reading on the wire: ${JSON.stringify({ plain, metered })}`);
  assert.ok(metered.batches * 5 < plain.batches, `${metered.batches} batches against ${plain.batches}`);
  assert.ok(metered.bytesPerReading * 1.5 < plain.bytesPerReading);
});

test('an event is gathered for less long than telemetry', async t => {
  const budget = { bytesMax: 1_000_000, per: 'day' } as const;
  const now = () => new Date(2026, 2, 10, 12).getTime();
  const site = await openSite(t, { ...UNMETERED, budget, gatherMsMax: 20_000 }, now);
  await eventually('the link is up', () => site.uplink.state().connected);
  await site.take(1);
  await eventually('the first goes at once', () => site.settled() === 1);
  await site.take(1);
  const at = performance.now();
  site.uplink.eventWaits();
  await eventually('the event is settled', () => site.settled() === 2);
  t.diagnostic(`settled after ${Math.round(performance.now() - at)} ms`);
  const { gatherMs, eventGatherMs } = site.link.now();
  assert.equal(gatherMs, 20_000);
  assert.equal(eventGatherMs, 2000);
  assert.ok(performance.now() - at < gatherMs, 'it did not wait for the whole time of gathering');
});

test('a rate limit is kept, and a backlog outside of its hours waits', async t => {
  const bytesPerSecond = 20_000;
  let now = new Date(2026, 2, 10, 12).getTime();
  const site = await openSite(
    t,
    { ...UNMETERED, bytesPerSecond, backfillHours: [{ from: 22 * 60, to: 6 * 60 }] },
    () => now,
  );
  cloud.link.cut();
  await site.take(30_000);
  cloud.link.heal();
  const startedAt = performance.now();
  const before = carried();
  // Live carries the newest 2,000; the rest is a backlog.
  await eventually('the newest went live', () => site.settled() === 2000);
  await site.take(1);
  await eventually('one more went live', () => site.settled() === 2001);
  assert.equal(site.uplink.state().sent.backfill.batches, 0);
  now = new Date(2026, 2, 10, 22, 30).getTime();
  await eventually('the backlog follows in its hours', () => site.settled() === site.messages);
  const seconds = (performance.now() - startedAt) / 1000;
  const rate = (carried() - before) / seconds;
  t.diagnostic(`${Math.round(rate)} bytes/s of ${bytesPerSecond}`);
  assert.ok(rate <= bytesPerSecond * 1.2, `${rate} bytes/s`);
});
