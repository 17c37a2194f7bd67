/** What the pipeline page reads and says of backups. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backupWords, readBackups, stateWords } from '../../cloud/dashboard/backup-words.ts';

const HOUR_MS = 3_600_000;
const NOW = Date.UTC(2026, 0, 15, 12);

const answer = (hours: number, state: string, confirmed = true) => ({
  confirmed: confirmed ? { id: 20260115000000, begunAt: NOW - hours * HOUR_MS, confirmedAt: NOW } : null,
  begun: [{ id: 20260115000001, begunAt: NOW }],
  uncovered: { since: NOW - hours * HOUR_MS, hours, messages: 12_345 },
  keptHours: 72,
  state,
});

test('the last one, what is in none, and a warning that grows', () => {
  const words = (body: unknown) => backupWords(readBackups(body), NOW);
  const fresh = words(answer(3, 'fresh'));
  assert.match(fresh.last, /^Backup 20260115000000, begun .* \(3 h ago\)$/);
  assert.deepEqual([fresh.uncovered, fresh.warning], ['3 h, 12,345 messages', '']);
  assert.match(words(answer(30, 'due')).warning, /is due.*72 h/);
  const overdue = words(answer(100, 'overdue'));
  assert.equal(overdue.uncovered, '100 h, 12,345 messages');
  assert.match(overdue.warning, /overdue.*given back/);
  assert.equal(words(answer(3, 'fresh', false)).last, 'No backup was ever confirmed');
});

test('an answer of another shape is no reason to rest', () => {
  for (const body of [null, [], 'x', { state: 'splendid' }]) {
    const backups = readBackups(body);
    assert.equal(backups.state, 'due');
    assert.equal(backupWords(backups, NOW).uncovered, 'There is no data yet');
  }
});

test('all is not well while a backup is overdue', () => {
  assert.equal(stateWords({ status: 'ok', overdue: false, current: true }), 'All is well');
  assert.equal(stateWords({ status: 'ok', overdue: true, current: true }), 'Running; a backup is overdue');
  assert.equal(stateWords({ status: 'degraded', overdue: true, current: true }), 'Degraded');
  assert.equal(
    stateWords({ status: 'ok', overdue: false, current: false }),
    'Unknown; last heard: all is well',
  );
});
