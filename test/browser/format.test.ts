/** Ages, figures and units as people read them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { figureGroups, figureOf, humanize } from '../../cloud/dashboard/figures.ts';
import {
  excerpt,
  formatAge,
  formatBytes,
  formatDuration,
  formatNumber,
  formatTick,
  formatTime,
  formatValue,
  freshness,
} from '../../cloud/dashboard/format.ts';

const NOW = new Date(2025, 10, 21, 14, 3, 22).getTime();

test('ages: rounded down, and never fresh when old or from the future', () => {
  const table: Array<[ageMs: number, words: string, state: string]> = [
    [0, 'now', 'fresh'],
    [999, 'now', 'fresh'],
    [3_000, '3 s ago', 'fresh'],
    [10_000, '10 s ago', 'recent'],
    [59_999, '59 s ago', 'recent'],
    [60_000, '1 min ago', 'stale'],
    [3_900_000, '1 h 5 min ago', 'stale'],
    [90_000_000, '1 d 1 h ago', 'stale'],
    [30 * 86_400_000, '30 d ago', 'stale'],
    [-3_000, 'now', 'fresh'],
    [-120_000, '2 min ahead', 'ahead'],
  ];
  for (const [ageMs, words, state] of table) {
    assert.equal(formatAge(NOW - ageMs, NOW), words);
    assert.equal(freshness(NOW - ageMs, NOW), state, words);
  }
  assert.equal(formatAge(null, NOW), 'never');
  assert.equal(freshness(null, NOW), 'none');
  assert.equal(formatDuration(850), '850 ms');
});

test('values', () => {
  const table: Array<[number | string | boolean | null, string]> = [
    [21.370000000000001, '21.37'],
    [0.1 + 0.2, '0.3'],
    [123_456_789, '123456789'],
    [-0.000_012, '-1.200e-5'],
    [1.7e300, '1.700e300'],
    [0, '0'],
    [true, 'yes'],
    [false, 'no'],
    [null, '–'],
    ['online', 'online'],
  ];
  for (const [value, words] of table) assert.equal(formatValue(value), words);
  assert.equal(formatNumber(1_234.567_89), '1234.57');
});

test('times and ticks in the zone of the reader', () => {
  assert.equal(formatTime(NOW, NOW), '14:03:22');
  assert.equal(formatTime(NOW - 86_400_000, NOW), '2025-11-20 14:03:22');
  assert.equal(formatTick(NOW, 10), '14:03:22');
  assert.equal(formatTick(NOW, 300), '14:03');
  assert.equal(formatTick(NOW, 86_400), '21 Nov');
  assert.equal(formatTick(new Date(2025, 10, 21).getTime(), 3_600), '21 Nov');
});

test('excerpts cannot break the line or hide behind control characters', () => {
  assert.equal(excerpt('a\u0000b\nc\u007f', 10), 'a·b·c·');
  assert.equal(excerpt('x'.repeat(50), 10), `${'x'.repeat(10)}…`);
});

test('figures are read from their names, and unknown ones still show', () => {
  const table: Array<[string, unknown, string, string]> = [
    ['lagMs', 6.44, 'Lag', '6.44 ms'],
    ['lagMs', 95_000, 'Lag', '1 min'],
    ['uptimeSeconds', 7_260, 'Uptime', '2 h 1 min'],
    ['messagesPerSecond', 12_345.6, 'Messages', '12,346 /s'],
    ['bytesMax', 67_108_864, 'Max', '67.1 MB'],
    ['bytes', 999, 'Size', '999 B'],
    ['clients', 12_000, 'Clients', '12,000'],
    ['lastHelloAt', NOW - 3_000, 'Last hello', '3 s ago'],
    ['enabled', true, 'Enabled', 'yes'],
    ['node', 'n-1', 'Node', 'n-1'],
    ['nothing', null, 'Nothing', '–'],
  ];
  for (const [name, value, label, text] of table)
    assert.deepEqual(figureOf(name, value, NOW), { label, text });
  assert.equal(humanize('eventLoopLag'), 'Event loop lag');
  assert.equal(formatBytes(1_500), '1.5 KB');
});

test('health in groups: nested units are inherited, depth is bounded, empty groups are left out', () => {
  const health = {
    status: 'ok',
    lagMs: 5,
    eventLoopLagMs: { p50: 1.04, p99: 10.9 },
    stream: { live: { pending: 3 } },
    empty: {},
  };
  assert.deepEqual(figureGroups(health, NOW, new Set(['status'])), [
    { title: '', figures: [{ label: 'Lag', text: '5 ms' }] },
    {
      title: 'Event loop lag',
      figures: [
        { label: 'P50', text: '1.04 ms' },
        { label: 'P99', text: '10.9 ms' },
      ],
    },
    { title: 'Stream', figures: [{ label: 'Live pending', text: '3' }] },
  ]);
  const deep = JSON.parse(`${'{"a":'.repeat(500)}1${'}'.repeat(500)}`) as Record<string, unknown>;
  assert.deepEqual(figureGroups(deep, NOW, new Set()), []);
});
