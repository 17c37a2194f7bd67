/** A payload after its decoder, whatever the format was, and the one way to say that it cannot be used. */

/** JSON's values, and what msgpack and CBOR have beyond them. Maps are objects without a prototype. */
export type Decoded =
  | null
  | undefined
  | boolean
  | number
  | string
  | bigint
  | DecodedTime
  | Uint8Array
  | Decoded[]
  | DecodedMap;
export interface DecodedMap {
  [name: string]: Decoded;
}

/** A point in time that the format itself marks as one (msgpack extension -1, CBOR tag 1). */
export class DecodedTime {
  /** Milliseconds since 1970, may be fractional. */
  readonly ms: number;
  constructor(ms: number) {
    this.ms = ms;
  }
}

/** An expected refusal on the way down, with its reason; caught where a message enters the mapping (H). */
export class Unusable extends Error {}

export const isMap = (value: Decoded): value is DecodedMap =>
  typeof value === 'object' &&
  value !== null &&
  !Array.isArray(value) &&
  !(value instanceof DecodedTime) &&
  !(value instanceof Uint8Array);

/** Nesting that a binary decoder follows; what is deeper than metrics may be is refused by name later. */
export const DECODER_DEPTH_MAX = 32;

/** Sets a member of a map that is being decoded. @throws Unusable when the key is there already */
export function setMember(map: DecodedMap, key: Decoded, value: Decoded): void {
  const name = typeof key === 'number' || typeof key === 'bigint' ? String(key) : key;
  if (typeof name !== 'string') throw new Unusable('a map key that is neither text nor a number');
  if (Object.hasOwn(map, name)) throw new Unusable(`the key "${name.slice(0, 60)}" twice in one map`);
  map[name] = value;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** @throws Unusable when `bytes` are not UTF-8 */
export function decodeText(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new Unusable('text that is not UTF-8');
  }
}
