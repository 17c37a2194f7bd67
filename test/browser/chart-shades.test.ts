/** Shaded stretches and summaries: how they are joined, cut out of gaps, counted, and compared. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Span } from '../../cloud/dashboard/chart-series.ts';
import {
  figuresOf,
  firstChange,
  inside,
  joinSummaries,
  outside,
  shadedMs,
  summariesWithin,
  summaryAt,
  summaryRuns,
  unionOf,
} from '../../cloud/dashboard/chart-shades.ts';
import { readHistory, SHADE_KINDS, type Shade, type Summary } from '../../cloud/dashboard/history-model.ts';

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);

const summary = (from: number, to: number, mean = 5, count = 10): Summary => ({
  from,
  to,
  min: mean - 1,
  max: mean + 1,
  mean,
  count,
});
const shade = (from: number, to: number, what: Shade['what']): Shade => ({ from, to, what });

const SPAN_END = 60;
const spans: fc.Arbitrary<Span[]> = fc.array(
  fc.tuple(fc.nat(SPAN_END), fc.nat(SPAN_END)).map(([a, b]): Span => [Math.min(a, b), Math.max(a, b)]),
  { maxLength: 8 },
);
const within = (list: readonly Span[], at: number): boolean =>
  list.some(([from, to]) => from <= at && at < to);

test('spans: union, inside and outside say of every moment what the words say', () => {
  const property = fc.property(spans, spans, (a, b) => {
    for (let at = 0.5; at < SPAN_END; at += 1) {
      assert.equal(within(unionOf(a), at), within(a, at), `union at ${at}`);
      assert.equal(within(outside(a, b), at), within(a, at) && !within(b, at), `outside at ${at}`);
      assert.equal(within(inside(a, b), at), within(a, at) && within(b, at), `inside at ${at}`);
    }
  });
  fc.assert(property, { seed, numRuns: 500 });
});

test('the first change is the earliest moment that is shaded otherwise, and none when none is', () => {
  const shades = fc.array(
    fc
      .tuple(fc.nat(SPAN_END), fc.nat(SPAN_END), fc.constantFrom(...SHADE_KINDS))
      .map(([a, b, what]): Shade => shade(Math.min(a, b), Math.max(a, b), what)),
    { maxLength: 8 },
  );
  const property = fc.property(shades, shades, fc.nat(SPAN_END), (before, after, from) => {
    const kindsAt = (list: readonly Shade[], at: number): string =>
      SHADE_KINDS.filter(kind =>
        list.some(({ what, from: start, to }) => what === kind && start <= at && at < to),
      ).join();
    let expected: number | null = null;
    for (let at = from; at < SPAN_END && expected === null; at += 1) {
      if (kindsAt(before, at + 0.5) !== kindsAt(after, at + 0.5)) expected = at;
    }
    assert.equal(firstChange(before, after, from), expected);
  });
  fc.assert(property, { seed, numRuns: 1_000 });
});

test('a backlog that came in is where missing became late, and a silence that goes on changes only its end', () => {
  const before = [shade(100, 200, 'missing')];
  assert.equal(firstChange(before, [shade(100, 160, 'late'), shade(150, 210, 'missing')], 0), 100);
  assert.equal(firstChange(before, [shade(100, 230, 'missing')], 0), 200);
  assert.equal(firstChange(before, [shade(100, 200, 'missing')], 0), null);
  assert.equal(firstChange([shade(0, 50, 'late')], [shade(20, 50, 'late')], 30), null);
});

test('shades are measured once, however they overlap, and only within the range', () => {
  const shades = [shade(0, 60, 'late'), shade(30, 90, 'late'), shade(80, 200, 'lost')];
  assert.deepEqual(
    [...shadedMs(shades, 10, 100)],
    [
      ['late', 80],
      ['lost', 20],
    ],
  );
  assert.deepEqual([...shadedMs(shades, 300, 400)], []);
});

test('the newer copy of an interval wins, and at the bound the oldest go (F)', () => {
  const older = [summary(0, 10, 1), summary(10, 20, 2)];
  const newer = [summary(10, 20, 3), summary(20, 30, 4)];
  assert.deepEqual(
    joinSummaries(older, newer, 9).map(({ mean }) => mean),
    [1, 3, 4],
  );
  assert.deepEqual(
    joinSummaries(older, newer, 2).map(({ mean }) => mean),
    [3, 4],
  );
});

test('means are joined only where intervals follow one another', () => {
  const list = [summary(0, 10), summary(10, 20), summary(30, 40)];
  assert.deepEqual(
    summaryRuns(list).map(run => run.length),
    [2, 1],
  );
  assert.equal(summaryAt(list, 10), list[1]);
  assert.equal(summaryAt(list, 25), null);
  const fine = summary(32, 34);
  assert.equal(summaryAt([...list, fine], 33), fine);
  assert.deepEqual(summariesWithin(list, 8, 34), [list[1]]);
});

test('figures count what was thinned with its weight', () => {
  assert.deepEqual(figuresOf([1, null, 3], [summary(0, 10, 8, 6)]), {
    count: 8,
    thinned: 6,
    min: 1,
    mean: (1 + 3 + 48) / 8,
    max: 9,
  });
  assert.equal(figuresOf([null], []), null);
});

test('H: of an answer, what has another shape is left out', () => {
  const { points, summaries, shades, truncated } = readHistory({
    points: [[1, 2], ['x', 3], 4, [5, 'on']],
    summaries: [[0, 60_000, 1, 3, 2, 9], [0, 0, 1, 3, 2, 9], [0, 60_000, 3, 1, 2, 9], [0, 60_000, null], 'x'],
    shades: [shade(1, 2, 'late'), { from: 1, to: 2, what: 'constructor' }, shade(2, 2, 'lost'), null],
    truncated: 1,
  });
  assert.deepEqual(points, [
    [1, 2],
    [5, 'on'],
  ]);
  assert.deepEqual(summaries, [{ from: 0, to: 60_000, min: 1, max: 3, mean: 2, count: 9 }]);
  assert.deepEqual(shades, [shade(1, 2, 'late')]);
  assert.equal(truncated, false);
  assert.deepEqual(readHistory(null), { points: [], summaries: [], shades: [], truncated: false });
});
