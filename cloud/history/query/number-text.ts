/** Numbers and times as bytes, pure: what an export of millions of readings spends its time with. */
import { millisOf } from './micros.ts';

const ZERO = 48;
const POWERS = Array.from({ length: 10 }, (_, digits) => 10 ** digits);
/** Decimals of up to 15 digits are other doubles each: what is written is what is read. */
const LARGEST_WHOLE = 2 ** 48;
/** Digits are taken off in 32 bits. */
const SMALL = 2 ** 31;
/** The longest that {@link writeNumber} writes: `-0.0000010092936320705682`. */
export const NUMBER_BYTES_MAX = 25;
/** `2026-01-31T12:34:56.123456Z` */
export const TIME_BYTES_MAX = 27;

/**
 * Writes the shortest decimal that is read as the same double, -0 as `-0`; what is not finite as JavaScript
 * calls it.
 * @param digits how many decimals the number before it had, a guess
 * @returns where the text ends
 */
export function writeNumber(out: Uint8Array, offset: number, value: number, digits: number): number {
  let places = digits;
  let whole = Math.round(value * POWERS[places]!);
  if (whole / POWERS[places]! !== value || whole === 0 || Math.abs(whole) > LARGEST_WHOLE) {
    places = decimalsOf(value);
    if (places === -1) return writeAscii(out, offset, Object.is(value, -0) ? '-0' : String(value));
    whole = Math.round(value * POWERS[places]!);
  }
  let end = offset;
  if (whole < 0) {
    out[end++] = 45;
    whole = -whole;
  }
  while (places > 0 && whole % 10 === 0) {
    whole /= 10;
    places--;
  }
  if (whole >= SMALL) return writeLarge(out, end, whole, places);
  let length = 1;
  while (length < 10 && whole >= POWERS[length]!) length++;
  // A number below 1 has a zero before its point.
  if (length <= places) length = places + 1;
  end += length + (places > 0 ? 1 : 0);
  let at = end;
  let rest = whole | 0;
  for (let i = 0; i < length; i++) {
    if (i === places && i > 0) out[--at] = 46;
    const tenth = (rest / 10) | 0;
    out[--at] = ZERO + rest - tenth * 10;
    rest = tenth;
  }
  return end;
}

/** The fewest decimals, -1 when it is no short decimal. */
export function decimalsOf(value: number): number {
  if (Object.is(value, -0)) return -1;
  for (let digits = 0; digits < POWERS.length; digits++) {
    const whole = Math.round(value * POWERS[digits]!);
    if (!(Math.abs(whole) <= LARGEST_WHOLE)) return -1;
    if (whole / POWERS[digits]! === value) return digits;
  }
  return -1;
}

function writeLarge(out: Uint8Array, offset: number, whole: number, places: number): number {
  const text = String(whole).padStart(places + 1, '0');
  const point = text.length - places;
  return writeAscii(out, offset, places === 0 ? text : `${text.slice(0, point)}.${text.slice(point)}`);
}

function writeAscii(out: Uint8Array, offset: number, text: string): number {
  for (let i = 0; i < text.length; i++) out[offset + i] = text.charCodeAt(i);
  return offset + text.length;
}

export interface TimeWriter {
  /**
   * What every line begins with, the time in ISO 8601 by UTC, and what follows it. Milliseconds, or
   * microseconds where it has some.
   * @param time microseconds since 2000
   * @returns where the text ends
   */
  write(out: Uint8Array, offset: number, time: number): number;
}

const MINUTE_US = 60_000_000;
const UNTIL_SECONDS = '2026-01-31T12:34:'.length;

/** Remembers the minute, and all that is before it: one copy for most of a line. */
export function openTimeWriter(head: Uint8Array, tail: Uint8Array): TimeWriter {
  const start = new Uint8Array(head.length + UNTIL_SECONDS);
  start.set(head);
  let minute = Number.NaN;
  const digits = (out: Uint8Array, offset: number, value: number) => {
    const hundreds = (value / 100) | 0;
    const tens = ((value - 100 * hundreds) / 10) | 0;
    out[offset] = ZERO + hundreds;
    out[offset + 1] = ZERO + tens;
    out[offset + 2] = ZERO + value - 100 * hundreds - 10 * tens;
  };
  return {
    write(out, offset, time) {
      if (!(time >= minute && time < minute + MINUTE_US)) {
        minute = Math.floor(time / MINUTE_US) * MINUTE_US;
        writeAscii(start, head.length, new Date(millisOf(minute)).toISOString().slice(0, UNTIL_SECONDS));
      }
      out.set(start, offset);
      const at = offset + start.length;
      const ofMinute = (time - minute) | 0;
      const seconds = (ofMinute / 1_000_000) | 0;
      const micros = ofMinute - 1_000_000 * seconds;
      const millis = (micros / 1000) | 0;
      const tens = (seconds / 10) | 0;
      out[at] = ZERO + tens;
      out[at + 1] = ZERO + seconds - 10 * tens;
      out[at + 2] = 46;
      digits(out, at + 3, millis);
      let end = at + 6;
      if (micros !== 1000 * millis) {
        digits(out, end, micros - 1000 * millis);
        end += 3;
      }
      out[end++] = 90;
      // Short: a call to copy it costs more.
      for (let i = 0; i < tail.length; i++) out[end++] = tail[i]!;
      return end;
    },
  };
}
