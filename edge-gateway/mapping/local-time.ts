/** Times without a zone, of a place whose zone is known. Pure but for the time zone rules that Node brings. */

export function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

/**
 * @param asUtcMs the local date and time, read as if it were UTC
 * @returns milliseconds since 1970; of an hour that comes twice the first, of one that does not exist the one after it
 */
export function localToUtc(asUtcMs: number, timeZone: string): number {
  const before = asUtcMs - offsetMs(asUtcMs - DAY_MS, timeZone);
  if (offsetMs(before, timeZone) === asUtcMs - before) return before;
  const after = asUtcMs - offsetMs(asUtcMs + DAY_MS, timeZone);
  return offsetMs(after, timeZone) === asUtcMs - after ? after : before;
}

const DAY_MS = 86_400_000;
const formats = new Map<string, Intl.DateTimeFormat>();

/** How far the zone is ahead of UTC at a moment. */
function offsetMs(utcMs: number, timeZone: string): number {
  let format = formats.get(timeZone);
  if (!format) {
    // One for each zone of the mapping file.
    format = new Intl.DateTimeFormat('en', {
      timeZone,
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    });
    formats.set(timeZone, format);
  }
  const part: Record<string, number> = {};
  for (const { type, value } of format.formatToParts(utcMs)) part[type] = Number(value);
  const local = Date.UTC(part.year!, part.month! - 1, part.day!, part.hour!, part.minute!, part.second!);
  return local - Math.floor(utcMs / 1000) * 1000;
}
