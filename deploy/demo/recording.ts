/** Recordings to replay: a CSV of `timestamp,value` lines under a header. Pure. */

export interface RecordedReading {
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly value: number;
}

/**
 * Times without a zone are UTC; a line that stands twice is one reading.
 * @throws Error naming the line that is wrong
 */
export function parseRecording(text: string): RecordedReading[] {
  const readings: RecordedReading[] = [];
  const lines = text.split(/\r?\n/);
  const seen = new Set<string>();
  for (let index = 0; index < lines.length; index++) {
    const line = lines[index]!.trim();
    if (line === '' || seen.has(line)) continue;
    seen.add(line);
    const [time = '', number = ''] = line.split(',');
    const at = parseTime(time);
    const value = number.trim() === '' ? Number.NaN : Number(number);
    if (index === 0 && Number.isNaN(at)) continue;
    if (Number.isNaN(at) || !Number.isFinite(value)) {
      throw new Error(`line ${index + 1} is not "timestamp,value": ${line.slice(0, 80)}`);
    }
    readings.push({ at, value });
  }
  if (readings.length === 0) throw new Error('there is no reading in it');
  return readings.sort((a, b) => a.at - b.at);
}

/** The recording moved in time so that its last reading is at `endMs`. */
export function shiftToEnd(readings: readonly RecordedReading[], endMs: number): RecordedReading[] {
  const shift = endMs - readings.at(-1)!.at;
  return readings.map(({ at, value }) => ({ at: at + shift, value }));
}

function parseTime(text: string): number {
  const zoned = /(Z|[+-]\d\d:?\d\d)$/.test(text) ? text : `${text.replace(' ', 'T')}Z`;
  return Date.parse(zoned);
}
