/**
 * A set of sequence numbers as disjoint half-open ranges, the arithmetic of the ledger (invariant B). Immutable:
 * every operation returns a new set. Its text form is PostgreSQL's `int8multirange`.
 */
export interface Range {
  /** First member. */
  readonly from: number;
  /** One past the last member. */
  readonly to: number;
}

export class RangeSet {
  static readonly empty = new RangeSet([]);
  /** Sorted, disjoint, not touching, none empty. */
  readonly ranges: readonly Range[];

  private constructor(ranges: readonly Range[]) {
    this.ranges = ranges;
  }

  /** @throws RangeError unless `from` and `to` are safe integers. An empty range gives the empty set. */
  static of(from: number, to: number): RangeSet {
    if (!Number.isSafeInteger(from) || !Number.isSafeInteger(to)) {
      throw new RangeError(`a range needs whole numbers, got [${from},${to})`);
    }
    return from < to ? new RangeSet([{ from, to }]) : RangeSet.empty;
  }

  /** The union of `ranges`, which may overlap and come in any order. */
  static from(ranges: Iterable<Range>): RangeSet {
    const sorted = [...ranges].filter(range => range.from < range.to).sort((a, b) => a.from - b.from);
    const merged: { from: number; to: number }[] = [];
    for (const { from, to } of sorted) {
      const last = merged.at(-1);
      if (last && from <= last.to) last.to = Math.max(last.to, to);
      else merged.push({ from, to });
    }
    return new RangeSet(merged);
  }

  get isEmpty(): boolean {
    return this.ranges.length === 0;
  }

  /** How many numbers are in the set. */
  get size(): number {
    return this.ranges.reduce((sum, range) => sum + (range.to - range.from), 0);
  }

  add(from: number, to: number): RangeSet {
    return this.union(RangeSet.of(from, to));
  }

  subtract(from: number, to: number): RangeSet {
    return this.difference(RangeSet.of(from, to));
  }

  union(other: RangeSet): RangeSet {
    if (other.isEmpty) return this;
    if (this.isEmpty) return other;
    const last = this.ranges[this.ranges.length - 1]!;
    const first = other.ranges[0]!;
    if (first.from >= last.from && other.ranges.length === 1) {
      // The everyday case: the next batch extends the last range or opens a new one behind it.
      if (first.from > last.to) return new RangeSet([...this.ranges, first]);
      return new RangeSet([
        ...this.ranges.slice(0, -1),
        { from: last.from, to: Math.max(last.to, first.to) },
      ]);
    }
    return RangeSet.from([...this.ranges, ...other.ranges]);
  }

  difference(other: RangeSet): RangeSet {
    const left: Range[] = [];
    let index = 0;
    for (const range of this.ranges) {
      let from = range.from;
      while (index < other.ranges.length && other.ranges[index]!.to <= from) index++;
      for (let next = index; next < other.ranges.length && other.ranges[next]!.from < range.to; next++) {
        const hole = other.ranges[next]!;
        if (from < hole.from) left.push({ from, to: hole.from });
        from = Math.max(from, hole.to);
      }
      if (from < range.to) left.push({ from, to: range.to });
    }
    return new RangeSet(left);
  }

  intersection(other: RangeSet): RangeSet {
    return this.difference(this.difference(other));
  }

  contains(value: number): boolean {
    const index = this.indexAtOrBefore(value);
    return index >= 0 && value < this.ranges[index]!.to;
  }

  /** Whether every number of [from, to) is in the set. */
  covers(from: number, to: number): boolean {
    if (from >= to) return true;
    const index = this.indexAtOrBefore(from);
    return index >= 0 && to <= this.ranges[index]!.to;
  }

  /** Whether any number of [from, to) is in the set. */
  intersects(from: number, to: number): boolean {
    if (from >= to) return false;
    const index = this.indexAtOrBefore(to - 1);
    return index >= 0 && from < this.ranges[index]!.to;
  }

  /** The first number at or after `start` that is not in the set: all of [start, watermark) is. */
  watermark(start: number): number {
    const index = this.indexAtOrBefore(start);
    return index >= 0 && start < this.ranges[index]!.to ? this.ranges[index]!.to : start;
  }

  equals(other: RangeSet): boolean {
    return this.toString() === other.toString();
  }

  /** PostgreSQL's `int8multirange` text, for example `{[1,5),[9,10)}`. */
  toString(): string {
    return `{${this.ranges.map(range => `[${range.from},${range.to})`).join(',')}}`;
  }

  /**
   * Reads PostgreSQL's canonical `int8multirange` text.
   * @throws RangeError on any other text.
   */
  static parse(text: string): RangeSet {
    if (!/^\{(\[-?\d+,-?\d+\)(,\[-?\d+,-?\d+\))*)?\}$/.test(text)) {
      throw new RangeError(`not an int8multirange: ${text.slice(0, 80)}`);
    }
    const numbers = (text.match(/-?\d+/g) ?? []).map(Number);
    const ranges: Range[] = [];
    for (let i = 0; i < numbers.length; i += 2) ranges.push({ from: numbers[i]!, to: numbers[i + 1]! });
    return RangeSet.from(ranges);
  }

  /** Index of the last range that starts at or before `value`, or -1. */
  private indexAtOrBefore(value: number): number {
    let low = 0;
    let high = this.ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.ranges[middle]!.from <= value) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}
