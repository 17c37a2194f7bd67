import assert from 'node:assert/strict';
import { test } from 'node:test';
import { correctedAt } from '../../protocol/batch-rows.ts';
import { limits } from '../../protocol/limits.ts';

const ARRIVED = Date.UTC(2026, 0, 15);

test("a reading is ordered by the device's own time", () => {
  assert.equal(correctedAt(ARRIVED - 1, ARRIVED), ARRIVED - 1);
  assert.equal(correctedAt(ARRIVED - 80 * 86_400_000, ARRIVED), ARRIVED - 80 * 86_400_000);
  assert.equal(correctedAt(ARRIVED + limits.futureToleranceMs, ARRIVED), ARRIVED + limits.futureToleranceMs);
});

test('unless it cannot be believed: then by its arrival', () => {
  assert.equal(correctedAt(ARRIVED + limits.futureToleranceMs + 1, ARRIVED), ARRIVED);
  // Seconds since boot, as from a device whose clock was never set.
  assert.equal(correctedAt(1_000_000, ARRIVED), ARRIVED);
  assert.equal(correctedAt(Date.UTC(2000, 0, 1), ARRIVED), ARRIVED);
});
