/**
 * One string for all that are equal: names of logs, gateways and metrics come anew with every batch, and 100,000 twins hold
 * on to them. Bounded: a full one starts again, which costs memory and nothing else (F).
 */
export interface Interner {
  of(text: string): string;
  /** The same array for the same names, as far as it is remembered. */
  all(texts: readonly string[]): readonly string[];
}

const TEXTS_MAX = 20_000;

export function newInterner(): Interner {
  const texts = new Map<string, string>();
  const of = (text: string): string => {
    const known = texts.get(text);
    if (known !== undefined) return known;
    if (texts.size >= TEXTS_MAX) texts.clear();
    texts.set(text, text);
    return text;
  };
  const lists = new WeakMap<readonly string[], readonly string[]>();
  return {
    of,
    all(names) {
      let known = lists.get(names);
      if (!known) {
        known = names.map(of);
        lists.set(names, known);
      }
      return known;
    },
  };
}
