/**
 * Rows of `message` that came packed into one value, as columns; pure. A row is what `record_send` makes of
 * {@link HOT_ROW}:
 *
 *   int32 fields │ each: int32 type, int32 length (-1: null), value in PostgreSQL's binary format
 */
import type { Messages } from '../chunks/chunk.ts';
import { inOrder, type MessageRun, newRun } from '../chunks/message-rows.ts';

export const HOT_ROW = 'row(log, kind, at, sequence, element, numbers, texts)';

export interface HotRun {
  readonly shape: number;
  readonly log: number;
  readonly kind: number;
  readonly messages: Messages;
}

/** @returns a run for each log and kind, in the order of time, sequence and element */
export function readHotRows(packed: Buffer, shape: number): HotRun[] {
  const runs = new Map<string, MessageRun>();
  let offset = 0;
  /** @returns the length of the field that begins here; where its value begins is `offset` then */
  const field = (): number => {
    offset += 8;
    return packed.readInt32BE(offset - 4);
  };
  const int2 = () => {
    field();
    offset += 2;
    return packed.readInt16BE(offset - 2);
  };
  const int4 = () => {
    field();
    offset += 4;
    return packed.readInt32BE(offset - 4);
  };
  const int8 = () => {
    field();
    offset += 8;
    return packed.readInt32BE(offset - 8) * 2 ** 32 + packed.readUInt32BE(offset - 4);
  };
  /** @returns how many elements follow, each with its length before it */
  const array = () => {
    if (field() === -1) return 0;
    const dimensions = packed.readInt32BE(offset);
    const length = dimensions === 0 ? 0 : packed.readInt32BE(offset + 12);
    offset += dimensions === 0 ? 12 : 20;
    return length;
  };
  while (offset < packed.length) {
    offset += 4;
    const log = int4();
    const kind = int2();
    const at = int8();
    const sequence = int8();
    const element = int2();
    const numbers: number[] = [];
    for (let left = array(); left > 0; left--) {
      offset += 12;
      numbers.push(packed.readDoubleBE(offset - 8));
    }
    const texts: string[] = [];
    for (let left = array(); left > 0; left--) {
      const length = packed.readInt32BE(offset);
      offset += 4 + length;
      texts.push(packed.toString('utf8', offset - length, offset));
    }
    const key = `${log} ${kind}`;
    let run = runs.get(key);
    if (!run) {
      run = newRun({ device: 0, shape, log, kind }, { numbers: numbers.length, texts: texts.length });
      runs.set(key, run);
    }
    run.at.push(at);
    run.sequence.push(sequence);
    run.element.push(element);
    run.claimedAt.push(null);
    for (const [place, value] of numbers.entries()) run.numbers[place]!.push(value);
    for (const [place, value] of texts.entries()) run.texts[place]!.push(value);
  }
  return [...runs.values()].flatMap(run => {
    const { log, kind } = run;
    return [...inOrder(run, run.at.length)].map(messages => ({ shape, log, kind, messages }));
  });
}
