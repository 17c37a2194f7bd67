/**
 * Payloads into elements: flat or nested, single or array, with or without a timestamp. Pure, and total: what
 * cannot be used comes back as a reason, never as an exception, and a message is taken whole or not at all (H).
 * Every format goes this way; `mapping/decode.ts` made values of the bytes.
 *
 *   {"ts":…,"temperature":21.4}             one element
 *   {"ts":…,"values":{"temperature":21.4}}  the same
 *   {"motor":{"rpm":900,"on":true}}         motor.rpm, motor.on
 *   [{…},{…}]                               one element each
 *   21.5 · true · "online"                  one metric, named by the topic
 *
 * `null` members are absent values. A timestamp is `ts` or `timestamp`: seconds, milliseconds or microseconds since
 * 1970, or ISO 8601.
 */
import type { Value } from '../protocol/batch.ts';
import { limits } from '../protocol/limits.ts';
import { decodeJson } from './mapping/decode.ts';
import { type Decoded, DecodedTime, isMap, Unusable } from './mapping/decoded.ts';
import { readTime, type TimeUnit } from './payload-time.ts';

export interface Element {
  /** Milliseconds since 1970 as the device gave them, or null. */
  readonly at: number | null;
  readonly names: readonly string[];
  readonly values: readonly Value[];
}

export type PayloadOutcome =
  | { readonly ok: true; readonly elements: readonly Element[] }
  | { readonly ok: false; readonly reason: string };

/** How the members of an object become metrics. */
export interface ElementShape {
  /** Put in front of the names of an object's members. */
  readonly prefix: string;
  /** The metric's name when the payload is a bare value such as `21.5`. */
  readonly bareName: string;
  /** The member that is the timestamp, dotted if nested; `null` for none. Absent: `ts` or `timestamp`, and `values` is looked into. */
  readonly time?: { readonly field: string; readonly unit: TimeUnit } | null;
  /** The metric's name in place of the member's dotted one, or null to leave it out. The prefix is not put in front then. */
  readonly rename?: (name: string) => string | null;
}

/** @returns the elements of a JSON payload */
export function readPayload(payload: Uint8Array, shape: ElementShape): PayloadOutcome {
  try {
    return { ok: true, elements: readElements(decodeJson(payload), shape) };
  } catch (error) {
    return { ok: false, reason: refusalReason(error) };
  }
}

/** The reason in a refusal, as text that a batch may carry. @throws what is no refusal */
export function refusalReason(error: unknown): string {
  // What it quotes may end within a surrogate pair, and a batch carries well-formed text only.
  if (error instanceof Unusable) return error.message.toWellFormed();
  throw error;
}

/** @throws Unusable */
export function readElements(value: Decoded, shape: ElementShape): Element[] {
  if (!Array.isArray(value)) return [readElement(value, shape)];
  if (value.length > limits.elementsPerMessageMax) {
    throw new Unusable(`array of ${value.length} elements, at most ${limits.elementsPerMessageMax}`);
  }
  return value.map(entry => readElement(entry, shape));
}

/** An element as it grows. */
interface Growing {
  at: number | null;
  readonly names: string[];
  readonly values: Value[];
  readonly shape: ElementShape;
}

/** @throws Unusable */
export function readElement(value: Decoded, shape: ElementShape): Element {
  const growing: Growing = { at: null, names: [], values: [], shape };
  if (Array.isArray(value)) throw new Unusable('array inside an array');
  if (!isMap(value)) addNamed(growing, shape.bareName, value);
  else if (shape.time === undefined) readCommonObject(growing, value);
  else for (const name in value) visit(growing, '', name, value[name], 0);

  const { at, names, values } = growing;
  // `values` may repeat a name that stands beside it, and a renamed metric one that is there already.
  if (names.length > 1 && new Set(names).size !== names.length)
    throw new Unusable('one metric twice in a message');
  return { at, names, values };
}

function readCommonObject(growing: Growing, object: { [name: string]: Decoded }): void {
  for (const name in object) {
    const member = object[name];
    if (name === 'ts' || name === 'timestamp') {
      growing.at = member === null || member === undefined ? null : readTime(member, 'auto');
    } else if (name === 'values' && isMap(member)) flatten(growing, '', member, 1);
    else visit(growing, '', name, member, 0);
  }
}

function flatten(
  growing: Growing,
  path: string,
  container: Decoded[] | { [name: string]: Decoded },
  depth: number,
): void {
  if (depth > limits.nestingMax) throw new Unusable(`nested deeper than ${limits.nestingMax} levels`);
  for (const name in container) {
    visit(growing, path, name, (container as { [name: string]: Decoded })[name], depth);
  }
}

/** @param above dotted name of the containers around the member, with a dot at its end, or empty */
function visit(growing: Growing, above: string, name: string, member: Decoded, depth: number): void {
  if (member === null || member === undefined) return;
  const { shape } = growing;
  const path = above + name;
  if (shape.time && path === shape.time.field) growing.at = readTime(member, shape.time.unit);
  else if (Array.isArray(member) || (typeof member === 'object' && isMap(member))) {
    checkName(name);
    flatten(growing, `${path}.`, member, depth + 1);
  } else if (shape.rename) {
    const renamed = shape.rename(path);
    if (renamed !== null) addNamed(growing, renamed, member);
  } else addNamed(growing, shape.prefix + path, member);
}

function addNamed({ names, values }: Growing, name: string, decoded: Decoded): void {
  if (decoded === null || decoded === undefined) return;
  if (names.length >= limits.metricsPerElementMax) {
    throw new Unusable(`more than ${limits.metricsPerElementMax} metrics in one message`);
  }
  checkName(name);
  names.push(name);
  values.push(checkValue(name, decoded));
}

function checkValue(name: string, value: Decoded): Value {
  if (typeof value === 'number') {
    if (Number.isFinite(value)) return value;
    throw new Unusable(
      Number.isNaN(value)
        ? `"${shorten(name)}" is NaN, which is no number`
        : `"${shorten(name)}" is a number beyond what 64-bit floats hold`,
    );
  }
  if (typeof value === 'string') {
    checkText(value, `the value of "${shorten(name)}"`, limits.stringValueBytesMax);
    return value;
  }
  if (typeof value === 'boolean') return value;
  if (typeof value === 'bigint') {
    const number = Number(value);
    if (Number.isFinite(number) && BigInt(number) === value) return number;
    throw new Unusable(`"${shorten(name)}" is an integer that 64-bit floats do not hold exactly`);
  }
  if (value instanceof Uint8Array) {
    throw new Unusable(
      `"${shorten(name)}" is ${value.length} bytes of binary data: no number, text or boolean`,
    );
  }
  if (value instanceof DecodedTime) {
    throw new Unusable(`"${shorten(name)}" is a time: only the timestamp may be one`);
  }
  throw new Unusable(`"${shorten(name)}" is no number, text or boolean`);
}

/** Names that are safe as keys everywhere they go: SQL, Redis, JavaScript objects in somebody's dashboard. */
export function checkName(name: string): string {
  if (knownNames.has(name)) return name;
  if (name === '') throw new Unusable('a metric without a name');
  if (/(^|\.)(__proto__|constructor|prototype)(\.|$)/.test(name))
    throw new Unusable(`metric name "${shorten(name)}" is not allowed`);
  checkText(name, 'a metric name', limits.metricNameBytesMax);
  if (knownNames.size >= KNOWN_NAMES_MAX) knownNames.clear();
  knownNames.add(name);
  return name;
}
/** Names that were found good: the same few come again with every message. */
const knownNames = new Set<string>();
const KNOWN_NAMES_MAX = 10_000;

/** @throws Unusable */
export function checkText(text: string, what: string, bytesMax: number): void {
  if (text.includes('\0')) throw new Unusable(`${what} contains U+0000, which PostgreSQL cannot store`);
  if (!text.isWellFormed()) throw new Unusable(`${what} is not well-formed Unicode`);
  if (text.length * 3 > bytesMax && Buffer.byteLength(text) > bytesMax) {
    throw new Unusable(`${what} is longer than ${bytesMax} bytes`);
  }
}

const shorten = (text: string) => (text.length > 60 ? `${text.slice(0, 60)}…` : text);
