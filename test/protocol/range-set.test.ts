import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RangeSet } from '../../protocol/range-set.ts';

const SPACE = 40;
const range = fc
  .tuple(fc.nat(SPACE), fc.nat(SPACE))
  .map(([a, b]) => ({ from: Math.min(a, b), to: Math.max(a, b) }));
const ranges = fc.array(range, { maxLength: 8 });

/** The same set the slow way. */
const naive = (list: readonly { from: number; to: number }[]): Set<number> => {
  const members = new Set<number>();
  for (const { from, to } of list) for (let n = from; n < to; n++) members.add(n);
  return members;
};

const union = (a: ReadonlySet<number>, b: ReadonlySet<number>) => new Set([...a, ...b]);
const difference = (a: ReadonlySet<number>, b: ReadonlySet<number>) =>
  new Set([...a].filter(member => !b.has(member)));
const intersection = (a: ReadonlySet<number>, b: ReadonlySet<number>) =>
  new Set([...a].filter(member => b.has(member)));

function assertSame(actual: RangeSet, expected: ReadonlySet<number>): void {
  const members = actual.ranges.flatMap(({ from, to }) =>
    Array.from({ length: to - from }, (_, i) => from + i),
  );
  assert.deepEqual(
    members,
    [...expected].sort((a, b) => a - b),
  );
  // Sorted, disjoint, not touching, none empty.
  for (const [i, { from, to }] of actual.ranges.entries()) {
    assert.ok(from < to);
    if (i > 0) assert.ok(actual.ranges[i - 1]!.to < from);
  }
  assert.equal(actual.size, expected.size);
  assert.equal(actual.isEmpty, expected.size === 0);
}

test('set operations agree with plain sets', () => {
  fc.assert(
    fc.property(ranges, ranges, range, (listA, listB, { from, to }) => {
      const a = RangeSet.from(listA);
      const b = RangeSet.from(listB);
      const setA = naive(listA);
      const setB = naive(listB);
      const one = naive([{ from, to }]);
      assertSame(a, setA);
      assertSame(a.union(b), union(setA, setB));
      assertSame(a.difference(b), difference(setA, setB));
      assertSame(a.intersection(b), intersection(setA, setB));
      assertSame(a.add(from, to), union(setA, one));
      assertSame(a.subtract(from, to), difference(setA, one));
      assert.equal(a.covers(from, to), difference(one, setA).size === 0);
      assert.equal(a.intersects(from, to), intersection(one, setA).size > 0);
      assert.equal(a.equals(b), union(setA, setB).size === intersection(setA, setB).size);
      assertSame(a, setA); // unchanged by all this
    }),
    { numRuns: 2000 },
  );
});

test('a ledger that grows one batch at a time agrees with a plain set', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), range), { maxLength: 30 }), steps => {
      let set = RangeSet.empty;
      let members = new Set<number>();
      for (const [adds, { from, to }] of steps) {
        const one = naive([{ from, to }]);
        set = adds ? set.add(from, to) : set.subtract(from, to);
        members = adds ? union(members, one) : difference(members, one);
        assertSame(set, members);
      }
    }),
    { numRuns: 500 },
  );
});

test('contains and watermark agree with plain sets at every number', () => {
  fc.assert(
    fc.property(ranges, list => {
      const set = RangeSet.from(list);
      const members = naive(list);
      for (let start = 0; start <= SPACE + 1; start++) {
        assert.equal(set.contains(start), members.has(start));
        let mark = start;
        while (members.has(mark)) mark++;
        assert.equal(set.watermark(start), mark);
      }
    }),
    { numRuns: 500 },
  );
});

test("the text is PostgreSQL's and reads back", () => {
  assert.equal(RangeSet.empty.toString(), '{}');
  assert.equal(
    RangeSet.from([
      { from: 9, to: 10 },
      { from: 1, to: 5 },
    ]).toString(),
    '{[1,5),[9,10)}',
  );
  fc.assert(
    fc.property(ranges, list => {
      const set = RangeSet.from(list);
      assert.ok(RangeSet.parse(set.toString()).equals(set));
    }),
  );
  for (const text of [
    '',
    '{',
    '[1,5)',
    '{[1,5]}',
    '{(1,5)}',
    '{[1,5) }',
    '{[1,5),}',
    '{empty}',
    '{[a,b)}',
    '{[1.5,2)}',
  ]) {
    assert.throws(() => RangeSet.parse(text), RangeError, text);
  }
});

test('a range of anything but whole numbers is refused', () => {
  for (const [from, to] of [
    [0.5, 2],
    [0, NaN],
    [0, Infinity],
    [0, 2 ** 53],
  ] as const) {
    assert.throws(() => RangeSet.of(from, to), RangeError);
  }
  assert.ok(RangeSet.of(5, 5).isEmpty);
  assert.ok(RangeSet.of(6, 5).isEmpty);
});
