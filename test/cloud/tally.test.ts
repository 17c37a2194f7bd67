import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MINUTE_MS, MINUTES_PER_RUN_MAX, newTally } from '../../cloud/history/tally.ts';

const NOW = Date.UTC(2026, 0, 15, 12);

test('a run is one entry of minutes that have been, a week of them at most, whatever its times are (F)', () => {
  const time = fc.oneof(
    fc.integer({ min: NOW - 3 * MINUTES_PER_RUN_MAX * MINUTE_MS, max: NOW }),
    fc.constantFrom(-1e300, 1e300, Number.NaN, 0, NOW),
  );
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 32 - 1 }), time, time, (messages, from, to) => {
      const tally = newTally(NOW, NOW);
      tally.addRun(7, 'thinned', messages, from, to);
      assert.equal(tally.counts(7).thinned, messages);
      assert.deepEqual(tally.minutes(), []);
      assert.equal(tally.runs().length, 1);
      const run = tally.runs()[0]!;
      assert.deepEqual([run.log, run.status, run.messages], [7, 'thinned', messages]);
      assert.ok(run.minutes >= 1 && run.minutes <= MINUTES_PER_RUN_MAX);
      assert.ok(run.minute >= 0 && (run.minute + run.minutes - 1) * MINUTE_MS <= NOW);
      if (from >= 0 && from <= to && to <= NOW) {
        assert.equal(run.minute + run.minutes - 1, Math.floor(to / MINUTE_MS));
        if (run.minutes < MINUTES_PER_RUN_MAX) assert.equal(run.minute, Math.floor(from / MINUTE_MS));
      }
    }),
    { numRuns: 100 },
  );
});

test('messages are counted per log, status and minute; without a time in the log alone', () => {
  const tally = newTally(NOW, NOW + 1000);
  tally.add(1, 'late', 2, NOW);
  tally.add(1, 'late', 3, NOW + 999);
  tally.add(1, 'lost', 5, null);
  tally.add(2, 'late', 1, NOW - MINUTE_MS);
  tally.add(2, 'expired', 0, NOW);
  const minute = NOW / MINUTE_MS;
  assert.deepEqual(tally.minutes(), [
    { log: 1, minute, status: 'late', messages: 5 },
    { log: 2, minute: minute - 1, status: 'late', messages: 1 },
  ]);
  assert.deepEqual(tally.counts(1), { late: 5, thinned: 0, lost: 5, quarantined: 0, expired: 0 });
  assert.equal(tally.counts(3).late, 0);
});
