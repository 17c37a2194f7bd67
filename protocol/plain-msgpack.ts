/**
 * msgpack of arrays, strings, numbers and bytes only, for what comes from outside. The library also reads records, maps,
 * dates, regular expressions, pointers and other extensions, and takes the lengths it is told; so the bytes are walked before it sees
 * them, and everything but the plain kinds is refused (invariants F, H).
 */
import { isUtf8 } from 'node:buffer';
import { Packr, Unpackr } from 'msgpackr';

export type Plain = number | string | Uint8Array | readonly Plain[];

const packr = new Packr({ useRecords: false });
const unpackr = new Unpackr({ useRecords: false });

const DEPTH_MAX = 4;

export const packPlain = (value: Plain): Buffer => packr.pack(value);

/**
 * @param itemsMax arrays, strings, numbers and byte runs that may occur in all
 * @returns the value, or undefined when the bytes are not exactly one plain value of at most that many items
 */
export function unpackPlain(bytes: Uint8Array, itemsMax: number): Plain | undefined {
  return isPlain(bytes, itemsMax) ? (unpackr.unpack(bytes) as Plain) : undefined;
}

function isPlain(bytes: Uint8Array, itemsMax: number): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  /** Items still due, per open array. */
  const due = [1];
  let position = 0;
  let items = 0;
  while (due.length > 0) {
    const level = due.length - 1;
    if (due[level] === 0) {
      due.pop();
      continue;
    }
    due[level]!--;
    if (++items > itemsMax) return false;
    const head = headAt(view, position);
    if (!head || head.next + head.bytes > bytes.length) return false;
    position = head.next + head.bytes;
    if (head.kind === 'text' && !isUtf8(bytes.subarray(head.next, position))) return false;
    if (head.kind === 'array') {
      if (head.items > bytes.length - position || due.length > DEPTH_MAX) return false;
      due.push(head.items);
    }
  }
  return position === bytes.length;
}

interface Head {
  readonly kind: 'array' | 'text' | 'other';
  /** Where the content begins, and how long it is; the items of an array follow it. */
  readonly next: number;
  readonly bytes: number;
  readonly items: number;
}

/** The head of the value at `at`, or null when it is cut off or not of a plain kind. */
function headAt(view: DataView, at: number): Head | null {
  if (at >= view.byteLength) return null;
  const tag = view.getUint8(at);
  if (tag <= 0x7f || tag >= 0xe0) return { kind: 'other', next: at + 1, bytes: 0, items: 0 };
  if (tag >= 0xa0 && tag <= 0xbf) return { kind: 'text', next: at + 1, bytes: tag & 0x1f, items: 0 };
  if (tag >= 0x90 && tag <= 0x9f) return { kind: 'array', next: at + 1, bytes: 0, items: tag & 0x0f };
  const sized = (width: number): number | null => {
    if (at + 1 + width > view.byteLength) return null;
    if (width === 1) return view.getUint8(at + 1);
    return width === 2 ? view.getUint16(at + 1) : view.getUint32(at + 1);
  };
  const lengthWidth = lengthWidths[tag];
  if (lengthWidth) {
    const size = sized(lengthWidth.width);
    if (size === null) return null;
    const next = at + 1 + lengthWidth.width;
    const { kind } = lengthWidth;
    return kind === 'array' ? { kind, next, bytes: 0, items: size } : { kind, next, bytes: size, items: 0 };
  }
  const numberBytes = numberWidths[tag];
  return numberBytes === undefined ? null : { kind: 'other', next: at + 1, bytes: numberBytes, items: 0 };
}

const lengthWidths: Readonly<Record<number, { kind: Head['kind']; width: number }>> = {
  196: { kind: 'other', width: 1 }, // bin 8, 16, 32
  197: { kind: 'other', width: 2 },
  198: { kind: 'other', width: 4 },
  217: { kind: 'text', width: 1 }, // str 8, 16, 32
  218: { kind: 'text', width: 2 },
  219: { kind: 'text', width: 4 },
  220: { kind: 'array', width: 2 }, // array 16, 32
  221: { kind: 'array', width: 4 },
};

/** Bytes after the tag: float 32, 64; uint 8, 16, 32; int 8, 16, 32. 64-bit integers would come back as bigint. */
const numberWidths: Readonly<Record<number, number>> = {
  202: 4,
  203: 8,
  204: 1,
  205: 2,
  206: 4,
  208: 1,
  209: 2,
  210: 4,
};
