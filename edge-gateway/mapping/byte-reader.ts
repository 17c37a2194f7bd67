/**
 * Reads a binary payload from front to back. What is announced and not there is refused before it is allocated (F, H).
 */
import { Unusable } from './decoded.ts';

export interface ByteReader {
  readonly view: DataView;
  readonly left: number;
  u8(): number;
  /** Moves on by `count` bytes. @returns where they start in `view` */
  skip(count: number): number;
  take(count: number): Uint8Array;
  peek(): number;
}

/** @param format named in refusals, such as `CBOR` */
export function newByteReader(bytes: Uint8Array, format: string): ByteReader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let next = 0;
  const skip = (count: number): number => {
    if (count > bytes.length - next) throw new Unusable(`payload is not ${format}: it ends too early`);
    next += count;
    return next - count;
  };
  return {
    view,
    get left() {
      return bytes.length - next;
    },
    u8: () => bytes[skip(1)]!,
    skip,
    take: count => bytes.subarray(skip(count), next),
    peek: () => (next < bytes.length ? bytes[next]! : -1),
  };
}
