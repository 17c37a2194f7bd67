/** Numbers of [0, 1) that can be drawn again from their seed (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** All of them in a drawn order, then all again in another. */
export function bag<T>(kinds: readonly T[], random: () => number): () => T | undefined {
  let left: T[] = [];
  return () => {
    if (left.length === 0) {
      left = kinds
        .map(kind => ({ kind, rank: random() }))
        .sort((a, b) => a.rank - b.rank)
        .map(({ kind }) => kind);
    }
    return left.shift();
  };
}
