/**
 * `holdfast history export`: what a cloud node sends, into a file or to stdout, with how far it is on stderr.
 * A file has its name only when it is whole: until then it ends in `.part`.
 */
import { open, rename } from 'node:fs/promises';
import { CommandFailed } from './api-client.ts';

export interface ExportOptions {
  readonly site: string;
  readonly device: string | undefined;
  readonly metric: string | undefined;
  /** Milliseconds since 1970. */
  readonly from: number | undefined;
  readonly to: number | undefined;
  readonly format: 'csv' | 'ndjson';
  readonly out: string | undefined;
}

interface Sink {
  write(bytes: Uint8Array): Promise<void>;
  end(): Promise<void>;
}

/** Of what the node sends: the first day and the last one. */
const DAYS_HEADER = 'holdfast-days';
const REPORT_MS = 500;
/** A log is no place for so many. */
const REPORT_FILE_MS = 10_000;
const DAY_MS = 86_400_000;
const NEWLINE = 10;

export async function exportHistory(options: ExportOptions, base: string): Promise<void> {
  const response = await asked(options, base);
  const sink = await sinkOf(options.out);
  const progress = openProgress(options.format, response.headers.get(DAYS_HEADER));
  try {
    for await (const bytes of response.body!) {
      progress.count(bytes);
      await sink.write(bytes);
    }
  } catch (error) {
    progress.end();
    const { code, message, cause } = error as Error & { code?: string };
    // Whoever read stdout has enough.
    if (code === 'EPIPE') return;
    const why = cause instanceof Error ? cause.message : message;
    const left = options.out === undefined ? '' : `; ${options.out}.part is what came of it`;
    throw new CommandFailed(`the export was cut short (${why})${left}`);
  }
  await sink.end();
  progress.end();
}

async function asked({ site, device, metric, from, to, format }: ExportOptions, base: string) {
  const search = new URLSearchParams({ site, format });
  for (const [name, value] of Object.entries({ device, metric, from, to })) {
    if (value !== undefined) search.set(name, String(value));
  }
  let response: Response;
  try {
    response = await fetch(new URL(`/history/export?${search}`, base));
  } catch (error) {
    const { message, cause } = error as Error;
    const why = cause instanceof Error ? cause.message || (cause as { code?: string }).code : message;
    throw new CommandFailed(`${base} does not answer (${why}): is it the right HOLDFAST_URL?`);
  }
  if (response.ok) return response;
  const problem = (await response.json().catch(() => null)) as { detail?: string } | null;
  throw new CommandFailed(problem?.detail ?? `${base} answered ${response.status}`);
}

async function sinkOf(out: string | undefined): Promise<Sink> {
  if (out === undefined) {
    // Told to whoever writes, below.
    process.stdout.on('error', () => {});
    return {
      write: bytes =>
        new Promise((resolve, reject) => {
          process.stdout.write(bytes, error => (error ? reject(error) : resolve()));
        }),
      end: async () => {},
    };
  }
  const part = `${out}.part`;
  const file = await open(part, 'w').catch((error: Error) => {
    throw new CommandFailed(`--out: ${error.message}`);
  });
  return {
    async write(bytes) {
      for (let written = 0; written < bytes.length; ) {
        written += (await file.write(bytes, written)).bytesWritten;
      }
    },
    async end() {
      await file.sync();
      await file.close();
      await rename(part, out);
    },
  };
}

/** Where it is, goes by the last line that has come. */
function openProgress(format: ExportOptions['format'], days: string | null) {
  const startedAt = performance.now();
  let [rows, bytes, reportedAt] = [format === 'csv' ? -1 : 0, 0, startedAt];
  let last: Uint8Array = new Uint8Array();
  const say = (end: string) => {
    const seconds = (performance.now() - startedAt) / 1000;
    const speed = bytes / 1e6 / Math.max(seconds, 0.001);
    const size = `${(bytes / 1e6).toFixed(1)} MB, ${speed.toFixed(1)} MB/s`;
    const figures = `${rows.toLocaleString('en-US')} rows, ${size}`;
    const where = whereText(last, format, days);
    process.stderr.write(process.stderr.isTTY ? `\r${where}${figures}\x1b[K${end}` : `${where}${figures}\n`);
  };
  return {
    count(more: Uint8Array): void {
      bytes += more.length;
      for (let at = more.indexOf(NEWLINE); at !== -1; at = more.indexOf(NEWLINE, at + 1)) rows++;
      last = more;
      if (performance.now() - reportedAt < (process.stderr.isTTY ? REPORT_MS : REPORT_FILE_MS)) return;
      reportedAt = performance.now();
      say('');
    },
    end: () => say('\n'),
  };
}

/** `demo/pump-001 temperature, day 3 of 7: `, or what of it can be told. */
function whereText(bytes: Uint8Array, format: ExportOptions['format'], days: string | null): string {
  const line = Buffer.from(bytes).toString('utf8').split('\n').at(-2) ?? '';
  const place = format === 'csv' ? ofCsv(line) : ofJson(line);
  if (!place) return '';
  const [first = Number.NaN, last = Number.NaN] = days?.split('/').map(day => Date.parse(day)) ?? [];
  const day = Math.floor((Date.parse(place.time) - first) / DAY_MS) + 1;
  const ofDays = Number.isFinite(day + last) ? `, day ${day} of ${(last - first) / DAY_MS + 1}` : '';
  return `${place.site}/${place.device} ${place.metric}${ofDays}: `;
}

interface Place {
  readonly site: string;
  readonly device: string;
  readonly metric: string;
  readonly time: string;
}

/**
 * A name that is quoted may have any characters, and a text several lines: those are not worth a parser here.
 */
function ofCsv(line: string): Place | null {
  const [site, device, metric, time] = line.split(',');
  return time && !line.includes('"') ? { site: site!, device: device!, metric: metric!, time } : null;
}

function ofJson(line: string): Place | null {
  try {
    return JSON.parse(line) as Place;
  } catch {
    return null;
  }
}
