/**
 * Rows of `message` out of PostgreSQL's binary COPY, as the columns that chunks are made of; pure.
 * Format: https://www.postgresql.org/docs/15/sql-copy.html#id-1.9.3.55.9.4
 */
import type { ChunkKey, Messages } from './chunk.ts';

/** In the order of key, time, sequence and element. */
export const MESSAGE_COLUMNS = 'device, shape, log, kind, at, sequence, element, claimed_at, numbers, texts';

/** Messages of one key, growing. */
export interface MessageRun extends ChunkKey {
  readonly at: number[];
  readonly sequence: number[];
  readonly element: number[];
  readonly claimedAt: (number | null)[];
  readonly numbers: number[][];
  readonly texts: string[][];
}

const HEADER_BYTES = 19;

export const newRun = (key: ChunkKey, shape: { numbers: number; texts: number }): MessageRun => ({
  ...key,
  at: [],
  sequence: [],
  element: [],
  claimedAt: [],
  numbers: Array.from({ length: shape.numbers }, () => []),
  texts: Array.from({ length: shape.texts }, () => []),
});

/**
 * @param copied all of the COPY stream, rows of one key beside one another
 * @throws Error when a row does not have the values of its shape
 */
export function readMessageRows(copied: Buffer): MessageRun[] {
  const runs: MessageRun[] = [];
  let run: MessageRun | undefined;
  let offset = HEADER_BYTES;
  const int2 = () => {
    offset += 6;
    return copied.readInt16BE(offset - 2);
  };
  const int4 = () => {
    offset += 8;
    return copied.readInt32BE(offset - 4);
  };
  const int8 = () => {
    offset += 12;
    return copied.readInt32BE(offset - 8) * 2 ** 32 + copied.readUInt32BE(offset - 4);
  };
  const isNull = () => {
    if (copied.readInt32BE(offset) !== -1) return false;
    offset += 4;
    return true;
  };
  /** @returns how many elements */
  const array = () => {
    if (isNull()) return 0;
    const dimensions = copied.readInt32BE(offset + 4);
    const length = dimensions === 0 ? 0 : copied.readInt32BE(offset + 16);
    offset += dimensions === 0 ? 16 : 24;
    return length;
  };
  while (copied.readInt16BE(offset) !== -1) {
    offset += 2;
    const [device, shape, log, kind] = [int4(), int4(), int4(), int2()];
    const at = int8();
    const sequence = int8();
    const element = int2();
    const claimedAt = isNull() ? null : int8();
    const isSame =
      run && run.device === device && run.shape === shape && run.log === log && run.kind === kind;
    const numbers = array();
    if (!isSame) run = undefined;
    const values: number[] = [];
    for (let i = 0; i < numbers; i++) {
      offset += 12;
      values.push(copied.readDoubleBE(offset - 8));
    }
    const texts = array();
    const words: string[] = [];
    for (let i = 0; i < texts; i++) {
      const length = copied.readInt32BE(offset);
      offset += 4 + length;
      words.push(copied.toString('utf8', offset - length, offset));
    }
    if (!run) {
      run = newRun({ device, shape, log, kind }, { numbers, texts });
      runs.push(run);
    }
    if (run.numbers.length !== numbers || run.texts.length !== texts)
      throw new Error(`a message of device ${device} does not have the values of shape ${shape}`);
    run.at.push(at);
    run.sequence.push(sequence);
    run.element.push(element);
    run.claimedAt.push(claimedAt);
    for (let i = 0; i < numbers; i++) run.numbers[i]!.push(values[i]!);
    for (let i = 0; i < texts; i++) run.texts[i]!.push(words[i]!);
  }
  return runs;
}

/** Adds messages of the same key. */
export function addMessages(run: MessageRun, messages: Messages): void {
  for (let i = 0; i < messages.at.length; i++) {
    run.at.push(messages.at[i]!);
    run.sequence.push(messages.sequence[i]!);
    run.element.push(messages.element[i]!);
    run.claimedAt.push(messages.claimedAt?.[i] ?? null);
    for (const [column, values] of messages.numbers.entries()) run.numbers[column]!.push(values[i]!);
    for (const [column, values] of messages.texts.entries()) run.texts[column]!.push(values[i]!);
  }
}

/** In the order of time, sequence and element, at most `count` at a time. */
export function* inOrder(run: MessageRun, count: number): Generator<Messages> {
  const { at, sequence, element } = run;
  function compare(a: number, b: number): number {
    return at[a]! - at[b]! || sequence[a]! - sequence[b]! || element[a]! - element[b]!;
  }
  let isSorted = true;
  for (let i = 1; i < at.length && isSorted; i++) isSorted = compare(i - 1, i) < 0;
  const order = isSorted ? undefined : Uint32Array.from(at.keys()).sort(compare);
  const taken = <T>(values: readonly T[], from: number): T[] => {
    if (!order) return count >= values.length ? (values as T[]) : values.slice(from, from + count);
    const out = new Array<T>(Math.min(count, order.length - from));
    for (let i = 0; i < out.length; i++) out[i] = values[order[from + i]!]!;
    return out;
  };
  for (let from = 0; from < at.length; from += count) {
    const claimedAt = taken(run.claimedAt, from);
    yield {
      at: taken(at, from),
      sequence: taken(sequence, from),
      element: taken(element, from),
      numbers: run.numbers.map(values => taken(values, from)),
      texts: run.texts.map(values => taken(values, from)),
      claimedAt: claimedAt.some(time => time !== null) ? claimedAt : null,
    };
  }
}
