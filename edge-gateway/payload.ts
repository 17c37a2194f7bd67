/**
 * JSON payloads into elements: flat or nested, single or array, with or without a timestamp. Pure, and total: what
 * cannot be used comes back as a reason, never as an exception, and a message is taken whole or not at all (H).
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
import type { Route } from './topics.ts';

export interface Element {
  /** Milliseconds since 1970 as the device gave them, or null. */
  readonly at: number | null;
  readonly names: readonly string[];
  readonly values: readonly Value[];
}

export type PayloadOutcome =
  | { readonly ok: true; readonly elements: readonly Element[] }
  | { readonly ok: false; readonly reason: string };

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** An expected refusal on the way down; caught in `readPayload`. */
class Unusable extends Error {}

const utf8 = new TextDecoder('utf-8', { fatal: true });

export function readPayload(payload: Uint8Array, route: Pick<Route, 'prefix' | 'bareName'>): PayloadOutcome {
  try {
    const json = parse(payload);
    if (!Array.isArray(json)) return { ok: true, elements: [readElement(json, route)] };
    if (json.length > limits.elementsPerMessageMax) {
      throw new Unusable(`array of ${json.length} elements, at most ${limits.elementsPerMessageMax}`);
    }
    return { ok: true, elements: json.map(entry => readElement(entry, route)) };
  } catch (error) {
    // What it quotes may end within a surrogate pair, and a batch carries well-formed text only.
    if (error instanceof Unusable) return { ok: false, reason: error.message.toWellFormed() };
    throw error;
  }
}

function parse(payload: Uint8Array): Json {
  let text: string;
  try {
    text = utf8.decode(payload);
  } catch {
    throw new Unusable('payload is not UTF-8 text');
  }
  if (text.trim() === '') throw new Unusable('payload is empty');
  try {
    return JSON.parse(text);
  } catch (error) {
    // A bare word such as `online` is common for status topics.
    if (/^[A-Za-z][A-Za-z0-9 _-]{0,63}$/.test(text) && !/^(nan|infinity|undefined)$/i.test(text)) return text;
    throw new Unusable(`payload is not JSON: ${(error as Error).message}`);
  }
}

function readElement(json: Json, { prefix, bareName }: Pick<Route, 'prefix' | 'bareName'>): Element {
  const names: string[] = [];
  const values: Value[] = [];
  if (typeof json !== 'object' || json === null) {
    add(names, values, bareName, json);
    return { at: null, names, values };
  }
  if (Array.isArray(json)) throw new Unusable('array inside an array');

  let at: number | null = null;
  for (const name in json) {
    const member = json[name]!;
    if (name === 'ts' || name === 'timestamp') at = member === null ? null : readTime(member);
    else if (name === 'values' && isObject(member)) flatten(names, values, prefix, member, 1);
    else if (typeof member === 'object' && member !== null)
      flatten(names, values, `${prefix}${checkName(name)}.`, member, 1);
    else add(names, values, prefix + name, member);
  }
  // `values` may repeat a name that stands beside it.
  if (names.length > 1 && new Set(names).size !== names.length)
    throw new Unusable('one metric twice in a message');
  return { at, names, values };
}

const isObject = (json: Json): json is { [name: string]: Json } =>
  typeof json === 'object' && json !== null && !Array.isArray(json);

function flatten(
  names: string[],
  values: Value[],
  prefix: string,
  json: Json[] | { [name: string]: Json },
  depth: number,
) {
  if (depth > limits.nestingMax) throw new Unusable(`nested deeper than ${limits.nestingMax} levels`);
  for (const name in json) {
    const member = (json as { [name: string]: Json })[name]!;
    if (typeof member === 'object' && member !== null) {
      flatten(names, values, `${prefix}${checkName(name)}.`, member, depth + 1);
    } else add(names, values, prefix + name, member);
  }
}

function add(names: string[], values: Value[], name: string, value: null | Value): void {
  if (value === null) return;
  if (names.length >= limits.metricsPerElementMax) {
    throw new Unusable(`more than ${limits.metricsPerElementMax} metrics in one message`);
  }
  checkName(name);
  if (typeof value === 'number') {
    if (!Number.isFinite(value))
      throw new Unusable(`"${shorten(name)}" is a number beyond what 64-bit floats hold`);
  } else if (typeof value === 'string')
    checkText(value, `the value of "${shorten(name)}"`, limits.stringValueBytesMax);
  names.push(name);
  values.push(value);
}

/** Names that are safe as keys everywhere they go: SQL, Redis, JavaScript objects in somebody's dashboard. */
function checkName(name: string): string {
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

function checkText(text: string, what: string, bytesMax: number): void {
  if (text.includes('\0')) throw new Unusable(`${what} contains U+0000, which PostgreSQL cannot store`);
  if (!text.isWellFormed()) throw new Unusable(`${what} is not well-formed Unicode`);
  if (text.length * 3 > bytesMax && Buffer.byteLength(text) > bytesMax) {
    throw new Unusable(`${what} is longer than ${bytesMax} bytes`);
  }
}

/** The years a timestamp may lie in, as milliseconds: what PostgreSQL and JavaScript both hold, and no more than sense. */
const EARLIEST_MS = Date.UTC(1970, 0, 1);
const LATEST_MS = Date.UTC(9999, 0, 1);

function readTime(json: Json): number {
  const at =
    typeof json === 'number' ? scaleTime(json) : typeof json === 'string' ? parseTime(json) : Number.NaN;
  if (at >= EARLIEST_MS && at < LATEST_MS) return at;
  throw new Unusable(
    `timestamp ${shorten(JSON.stringify(json))} is not a time: seconds, milliseconds or microseconds since 1970, or ISO 8601`,
  );
}

/** `Date.parse` alone would take "12" for a December, and a time without a zone for one of this machine's zone. */
const ISO_8601 = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?$/i;
function parseTime(text: string): number {
  const [, time, , , zone] = ISO_8601.exec(text) ?? [];
  if (!ISO_8601.test(text)) return Number.NaN;
  return Date.parse(time && !zone ? `${text}Z` : text);
}

/** Seconds until the year 5138, else milliseconds until the same, else microseconds. */
function scaleTime(value: number): number {
  if (value < 1e11) return value * 1000;
  return value < 1e14 ? value : value / 1000;
}

const shorten = (text: string) => (text.length > 60 ? `${text.slice(0, 60)}…` : text);
