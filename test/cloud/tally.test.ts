import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MINUTE_MS, MINUTES_PER_RUN_MAX, newTally } from '../../cloud/history/tally.ts';

const NOW = Date.UTC(2026, 0, 15, 12);

test('a run is spread over all its minutes, and no message gets lost or doubled on the way', () => {
  const time = fc.oneof(
    fc.integer({ min: NOW - 3 * MINUTES_PER_RUN_MAX * MINUTE_MS, max: NOW }),
    fc.constantFrom(-1e300, 1e300, Number.NaN, 0, NOW),
  );
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 32 - 1 }), time, time, (messages, from, to) => {
      const tally = newTally(NOW, NOW);
      tally.addRun(7, 'thinned', messages, from, to);
      const minutes = tally.minutes();
      assert.equal(
        minutes.reduce((sum, minute) => sum + minute.messages, 0),
        messages,
      );
      assert.equal(tally.counts(7).thinned, messages);
      assert.ok(minutes.length >= 1 && minutes.length <= MINUTES_PER_RUN_MAX);
      const first = minutes[0]!.minute;
      for (const [index, { minute, messages: share }] of minutes.entries()) {
        assert.equal(minute, first + index, 'without a gap');
        assert.ok(Math.abs(share - messages / minutes.length) < 1, 'evenly');
        assert.ok(minute * MINUTE_MS <= NOW);
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
