/** What `main.ts` runs. */
import type { Binaries } from '../../deploy/local/binaries.ts';
import type { Releases } from './releases.ts';

export interface BenchmarkOptions {
  /** Fresh, and removed afterwards. */
  readonly directory: string;
  readonly binaries: Binaries;
  readonly rounds: number | undefined;
  /** Per round. */
  readonly messages: number | undefined;
  /** How long a trouble lasts, in benchmarks that make one. */
  readonly minutes: number | undefined;
  /** Devices in all, and their messages per second, in benchmarks that may have more or fewer. */
  readonly devices: number | undefined;
  readonly rate: number | undefined;
  /** Where to leave CPU profiles of Holdfast's own processes. */
  readonly profileDirectory: string | undefined;
  /** Folder of real recordings: files `<name>.csv` with a head line and then `timestamp,value`, in UTC. */
  readonly recordings: string | undefined;
  /** Run at the end, whatever happens. */
  readonly releases: Releases;
  /** Told in one line as it goes on. */
  readonly report: (line: string) => void;
}

export interface BenchmarkResult {
  /** For people. */
  readonly tables: readonly string[];
  /** For programs, in snake_case. */
  readonly figures: Readonly<Record<string, unknown>>;
}

export interface Benchmark {
  readonly does: string;
  run(options: BenchmarkOptions): Promise<BenchmarkResult>;
}
