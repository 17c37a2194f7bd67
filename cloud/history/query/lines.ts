/**
 * Readings as lines of CSV or newline-delimited JSON, pure. What the lines of a slice have in common is put
 * together once; the rest is written as bytes into large buffers.
 *
 *   CSV   site,device,metric,time,value,text,truth,kind   quoted as in RFC 4180; an empty text is "", what is
 *                                                         not there is nothing
 *   JSON  the same names, with null for what is not there
 */
import { decimalsOf, NUMBER_BYTES_MAX, openTimeWriter, TIME_BYTES_MAX, writeNumber } from './number-text.ts';
import type { Column, Slice } from './runs.ts';

export type LineFormat = 'csv' | 'ndjson';

export interface LineWriter {
  /** @returns buffers that are full; they are the caller's */
  add(site: string, device: string, slice: Slice): Generator<Buffer>;
  /** What is left. */
  rest(): Buffer;
}

const HEADER = 'site,device,metric,time,value,text,truth,kind\n';
const KINDS = ['telemetry', 'event', 'status', 'location'];
const BUFFER_BYTES = 256 * 1024;
/** Numbers that are looked at for the usual decimals. */
const SAMPLE = 16;
const NULL = Buffer.from('null');
const NOTHING = Buffer.alloc(0);

export function openLines(format: LineFormat): LineWriter {
  let out: Uint8Array = Buffer.allocUnsafe(BUFFER_BYTES);
  let offset = format === 'csv' ? Buffer.from(HEADER).copy(out) : 0;

  /** What is written, and another buffer in its place. */
  function taken(bytesNeeded: number): Buffer {
    const full = Buffer.from(out.buffer, out.byteOffset, offset);
    out = Buffer.allocUnsafe(Math.max(BUFFER_BYTES, bytesNeeded));
    offset = 0;
    return full;
  }

  return {
    *add(site, device, slice) {
      const layout = layoutOf(format, site, device, slice.column);
      const write =
        slice.column.type === 's' ? writeTexts(format, layout, slice) : writeNumbers(format, layout, slice);
      for (let from = slice.from; ; ) {
        const { next, end, bytesNeeded } = write(out, offset, from);
        offset = end;
        if (next === slice.to) return;
        from = next;
        if (offset > 0) yield taken(bytesNeeded);
        else taken(bytesNeeded);
      }
    },
    rest: () => taken(0),
  };
}

/** Writes the lines from a place on, as many as there is room for. */
type Write = (
  out: Uint8Array,
  offset: number,
  from: number,
) => { readonly next: number; readonly end: number; readonly bytesNeeded: number };

function writeNumbers(format: LineFormat, layout: Layout, { column, from: first, to }: Slice): Write {
  const { run, type, position } = column;
  const { at } = run;
  const values = run.numbers(position);
  const { head, untilValue, afterValue, isFalse, isTrue, bytesMax } = layout;
  const time = openTimeWriter(head, type === 'b' ? NOTHING : untilValue);
  const decimals = usualDecimals(values, first, to);
  return (out, offset, from) => {
    let end = offset;
    let next = from;
    for (; next < to && end + bytesMax <= out.length; next++) {
      const value = values[next]!;
      let after = afterValue;
      end = time.write(out, end, at[next]!);
      if (type === 'b') after = value === 0 ? isFalse : isTrue;
      else if (format === 'csv' || Number.isFinite(value)) end = writeNumber(out, end, value, decimals);
      else end += NULL.copy(out, end);
      out.set(after, end);
      end += after.length;
    }
    return { next, end, bytesNeeded: bytesMax };
  };
}

function writeTexts(format: LineFormat, layout: Layout, { column, to }: Slice): Write {
  const { run, position } = column;
  const texts = run.messages().texts[position - 1]!;
  const time = openTimeWriter(layout.head, layout.untilValue);
  return (out, offset, from) => {
    let end = offset;
    for (let next = from; next < to; next++) {
      const text = Buffer.from(textIn(format, texts[next]!));
      const bytesNeeded = layout.bytesMax + text.length;
      if (end + bytesNeeded > out.length) return { next, end, bytesNeeded };
      end = time.write(out, end, run.at[next]!);
      end += text.copy(out, end);
      end += layout.afterValue.copy(out, end);
    }
    return { next: to, end, bytesNeeded: 0 };
  };
}

function usualDecimals(values: Float64Array, from: number, to: number): number {
  let most = 0;
  for (let i = from; i < Math.min(to, from + SAMPLE); i++) most = Math.max(most, decimalsOf(values[i]!));
  return most;
}

/** What does not change from line to line. */
interface Layout {
  /** Before the time. */
  readonly head: Buffer;
  /** Between the time and the number or text. */
  readonly untilValue: Buffer;
  readonly afterValue: Buffer;
  /** All that follows the time of a boolean. */
  readonly isFalse: Buffer;
  readonly isTrue: Buffer;
  /** Of a line, without its text. */
  readonly bytesMax: number;
}

function layoutOf(format: LineFormat, site: string, device: string, { metric, type, run }: Column): Layout {
  const kind = KINDS[run.kind] ?? String(run.kind);
  const [s, d, m] = [textIn(format, site), textIn(format, device), textIn(format, metric)];
  const isText = type === 's';
  const parts =
    format === 'csv'
      ? {
          head: `${s},${d},${m},`,
          untilValue: isText ? ',,' : ',',
          afterValue: isText ? `,,${kind}\n` : `,,,${kind}\n`,
          isFalse: `,0,,false,${kind}\n`,
          isTrue: `,1,,true,${kind}\n`,
        }
      : {
          head: `{"site":${s},"device":${d},"metric":${m},"time":"`,
          untilValue: isText ? '","value":null,"text":' : '","value":',
          afterValue: `${isText ? '' : ',"text":null'},"truth":null,"kind":"${kind}"}\n`,
          isFalse: `","value":0,"text":null,"truth":false,"kind":"${kind}"}\n`,
          isTrue: `","value":1,"text":null,"truth":true,"kind":"${kind}"}\n`,
        };
  const bytes = {
    head: Buffer.from(parts.head),
    untilValue: Buffer.from(parts.untilValue),
    afterValue: Buffer.from(parts.afterValue),
    isFalse: Buffer.from(parts.isFalse),
    isTrue: Buffer.from(parts.isTrue),
  };
  const ofValue = bytes.untilValue.length + NUMBER_BYTES_MAX + bytes.afterValue.length;
  return {
    ...bytes,
    bytesMax: bytes.head.length + TIME_BYTES_MAX + Math.max(ofValue, bytes.isFalse.length),
  };
}

function textIn(format: LineFormat, text: string): string {
  if (format === 'ndjson') return JSON.stringify(text);
  return text === '' || /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
