/** What a link's terms allow, as pure functions of time and use. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { allowanceNow, periodOf, usageNow } from '../../edge-gateway/link-budget.ts';
import {
  isWithin,
  type LinkTerms,
  parseBudget,
  parseHours,
  UNMETERED,
} from '../../edge-gateway/link-terms.ts';

const HOUR_MS = 3_600_000;
const budget = { bytesMax: 10_000_000, per: 'day' } as const;
const terms: LinkTerms = { ...UNMETERED, budget };
const midnight = new Date(2026, 2, 10).getTime();
const costs = { batchBytes: 1000, helloBytes: 1500, inFlightBytes: 0 };
const FLUSH_MS = 5;
const allowed = (hour: number, bytes: number, more: Partial<LinkTerms> = {}, inFlightBytes = 0) =>
  allowanceNow(
    { ...terms, ...more },
    { startsAt: midnight, bytes },
    midnight + hour * HOUR_MS,
    { ...costs, inFlightBytes },
    FLUSH_MS,
  );

test('budgets and hours are read as people write them, and nothing else', () => {
  assert.deepEqual(parseBudget('50MB/day'), { bytesMax: 50_000_000, per: 'day' });
  assert.deepEqual(parseBudget(' 1.5 gb / Month '), { bytesMax: 1_500_000_000, per: 'month' });
  for (const text of ['', '50', '50MB', '50MB/week', '-5MB/day', '5TB/day', '10kB/day', '1e9/day'])
    assert.equal(parseBudget(text), null, text);
  assert.deepEqual(parseHours('22:00-06:00, 12:30-13:00'), [
    { from: 1320, to: 360 },
    { from: 750, to: 780 },
  ]);
  assert.deepEqual(parseHours('20:00-24:00'), [{ from: 1200, to: 1440 }]);
  for (const text of ['', '22-06', '25:00-06:00', '24:30-06:00', '10:00-10:00', '10:00', '1:00-2:00-3:00'])
    assert.equal(parseHours(text), null, text);
});

test('hours may go over midnight; without any it is always time', () => {
  const at = (hour: number, minute = 0) => new Date(2026, 2, 10, hour, minute);
  const night = [{ from: 22 * 60, to: 6 * 60 }];
  assert.deepEqual(
    [at(21, 59), at(22), at(0), at(5, 59), at(6)].map(moment => isWithin(night, moment)),
    [false, true, true, true, false],
  );
  assert.ok(isWithin([], at(12)));
});

test('without a budget all goes at once, whatever was used', () => {
  const free = allowanceNow(UNMETERED, null, midnight, costs, FLUSH_MS);
  assert.deepEqual(free, {
    live: true,
    backfill: true,
    gatherMs: FLUSH_MS,
    eventGatherMs: FLUSH_MS,
    helloMs: 5000,
    exhausted: false,
  });
});

test('a backlog waits while it is ahead of four fifths of the budget pro rata, and outside of its hours', () => {
  assert.ok(allowed(12, 3_900_000).backfill);
  assert.ok(!allowed(12, 4_000_000).backfill);
  assert.ok(!allowed(12, 3_900_000, {}, 200_000).backfill, 'what is under way counts');
  assert.ok(allowed(12, 4_100_000).live, 'live goes on');
  const backfillHours = [{ from: 22 * 60, to: 6 * 60 }];
  assert.ok(!allowed(12, 0, { backfillHours }).backfill);
  assert.ok(allowed(23, 0, { backfillHours }).backfill);
});

test('gathering stretches as the budget gets short, up to its bound; events take a tenth', () => {
  const early = allowed(0, 0);
  const short = allowed(12, 9_000_000);
  assert.ok(short.gatherMs > early.gatherMs * 2);
  assert.equal(short.eventGatherMs, short.gatherMs * 0.1);
  assert.equal(allowed(1, 9_780_000, { gatherMsMax: 60_000 }).gatherMs, 60_000);
});

test('what is left for hellos is not spent on data, and hellos go on when all else waits', () => {
  const end = allowed(12, 9_990_000);
  assert.deepEqual([end.live, end.backfill, end.exhausted, end.helloMs], [false, false, true, 300_000]);
  // Half a day of hellos, 1,500 bytes each, every five minutes, and the one that is due.
  assert.ok(allowed(12, 10_000_000 - 145 * 1500 - 1001).live);
  assert.ok(!allowed(12, 10_000_000 - 145 * 1500 - 999).live);
});

test('spending what is allowed, as often as it is, keeps within the budget to one batch', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 100_000, max: 5_000_000 }),
      fc.integer({ min: 200, max: 20_000 }),
      fc.integer({ min: 1000, max: 600_000 }),
      (bytesMax, batchBytes, gatherMsMax) => {
        const scarce: LinkTerms = { ...UNMETERED, budget: { bytesMax, per: 'day' }, gatherMsMax };
        let at = midnight;
        let bytes = 0;
        let helloAt = midnight;
        while (at < midnight + 24 * HOUR_MS) {
          const now = allowanceNow(
            scarce,
            { startsAt: midnight, bytes },
            at,
            { ...costs, batchBytes },
            FLUSH_MS,
          );
          if (now.live) bytes += batchBytes;
          if (at >= helloAt) {
            bytes += costs.helloBytes;
            helloAt = at + now.helloMs;
          }
          at += now.live ? Math.max(1000, now.gatherMs) : 300_000;
        }
        // Hellos alone may be more than the smallest budgets.
        const hellos = 288 * costs.helloBytes;
        assert.ok(bytes <= Math.max(bytesMax, bytesMax / 2 + hellos) + batchBytes, `${bytes} of ${bytesMax}`);
      },
    ),
  );
});

test('a later period starts at nothing; a clock that is not set, or went back, brings no second budget', () => {
  const used = { startsAt: midnight, bytes: 7 };
  assert.deepEqual(usageNow(used, budget, midnight + HOUR_MS), used);
  const tomorrow = periodOf('day', midnight).endsAt;
  assert.deepEqual(usageNow(used, budget, tomorrow), { startsAt: tomorrow, bytes: 0 });
  assert.deepEqual(usageNow(used, budget, 1000), used, 'booted in 1970');
  const back = usageNow(used, budget, midnight - HOUR_MS);
  assert.deepEqual(back, { startsAt: periodOf('day', midnight - HOUR_MS).startsAt, bytes: 7 });
  assert.deepEqual(periodOf('month', midnight), {
    startsAt: new Date(2026, 2, 1).getTime(),
    endsAt: new Date(2026, 3, 1).getTime(),
  });
});
