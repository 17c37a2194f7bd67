/** History joined with live points, and gaps drawn as gaps. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  addLivePoint,
  drawable,
  joinPoints,
  lonePoints,
  medianSpacing,
  type Point,
  valueRuns,
} from '../../cloud/dashboard/chart-series.ts';

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);

test('the join has no gap and no double, and the newer copy of a reading wins', () => {
  const history: Point[] = [
    [1_000, 1],
    [2_000, 2],
    [3_000, 3],
  ];
  const live: Point[] = [
    [3_000.0004, 33],
    [4_000, 4],
  ];
  assert.deepEqual(joinPoints(history, live), [
    [1_000, 1],
    [2_000, 2],
    [3_000.0004, 33],
    [4_000, 4],
  ]);
  assert.deepEqual(joinPoints([], live), live);
  assert.deepEqual(joinPoints(history, []), history);
  assert.deepEqual(joinPoints([[5, 5]], [[1, 1]]), [
    [1, 1],
    [5, 5],
  ]);
});

test('joining any two cuts of one series gives the series back', () => {
  const times = fc.uniqueArray(fc.integer({ min: 0, max: 5_000 }), { maxLength: 80 });
  const property = fc.property(
    times,
    fc.infiniteStream(fc.constantFrom('history', 'live', 'both')),
    (at, where) => {
      const series = at.sort((a, b) => a - b).map((time): Point => [time, time * 2]);
      const history: Point[] = [];
      const live: Point[] = [];
      for (const point of series) {
        const { value } = where.next();
        if (value !== 'live') history.push(point);
        if (value !== 'history') live.push(point);
      }
      assert.deepEqual(joinPoints(history, live), series);
    },
  );
  fc.assert(property, { seed, numRuns: 500 });
});

test('live points in any order, some of them twice, end up ascending and once', () => {
  const property = fc.property(fc.array(fc.integer({ min: 0, max: 200 }), { maxLength: 100 }), times => {
    const points: Point[] = [];
    for (const at of times) addLivePoint(points, [at, at], 1_000);
    assert.deepEqual(
      points.map(([at]) => at),
      [...new Set(times)].sort((a, b) => a - b),
    );
  });
  fc.assert(property, { seed, numRuns: 500 });
});

test('F: at its bound the buffer drops the oldest points', () => {
  const points: Point[] = [];
  for (let at = 0; at < 1_000; at += 1) addLivePoint(points, [at, at], 100);
  assert.ok(points.length <= 100 && points.length >= 90, `${points.length} points`);
  assert.equal(points.at(-1)?.[0], 999);
});

test('a silence of more than five spacings breaks the line, a shorter one does not', () => {
  const at = [0, 1_000, 2_000, 3_000, 8_000, 9_000, 10_000, 16_500, 17_500];
  const { x, y, gaps } = drawable(
    at.map((time): Point => [time, 1]),
    0,
    18_000,
  );
  assert.deepEqual(gaps, [[10_000, 16_500]]);
  assert.equal(y.filter(value => value === null).length, 1);
  assert.equal(y[x.indexOf(13.25)], null);
  assert.ok(x.every((time, index) => index === 0 || time > (x[index - 1] as number)));
});

test('the silence up to now is a gap too: an old line never reaches the present', () => {
  const points = [0, 1_000, 2_000, 3_000].map((time): Point => [time, 1]);
  assert.deepEqual(drawable(points, 0, 60_000).gaps, [[3_000, 60_000]]);
  assert.deepEqual(drawable(points, 0, 7_000).gaps, []);
});

test('fast metrics are not called silent for moments', () => {
  const points = [0, 10, 20, 30, 1_900].map((time): Point => [time, 1]);
  assert.deepEqual(drawable(points, 0, 2_000).gaps, []);
});

test('only numbers within the range are drawn', () => {
  const points: Point[] = [
    [1, 5],
    [10, 'online'],
    [20, true],
    [30, null],
    [40, 6],
    [99, 7],
  ];
  assert.deepEqual(drawable(points, 5, 50), { x: [0.04], y: [6], gaps: [] });
});

test('points that no line reaches are found', () => {
  assert.deepEqual(lonePoints([1, null, 2, 3, null, 4]), [0, 5]);
  assert.deepEqual(lonePoints([]), []);
  assert.equal(medianSpacing([1, 2]), null);
});

test('words become runs, newest first, at most as many as asked for', () => {
  const points: Point[] = [
    [1, 'off'],
    [2, 'on'],
    [3, 'on'],
    [4, 'off'],
  ];
  assert.deepEqual(valueRuns(points, 10), [
    { from: 4, to: 4, value: 'off' },
    { from: 2, to: 3, value: 'on' },
    { from: 1, to: 1, value: 'off' },
  ]);
  assert.equal(valueRuns(points, 2).length, 2);
});
