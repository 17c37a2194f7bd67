/** The programs the local servers are made of: where each is, what it needs to run, and how old it may be. */
import type { ServerName } from './server.ts';

export type ProgramName =
  | 'mosquitto'
  | 'mosquitto_pub'
  | 'mosquitto_sub'
  | 'mosquitto_rr'
  | 'nats-server'
  | 'redis-server'
  | 'redis-cli'
  | 'postgres'
  | 'initdb'
  | 'psql';

export interface Binary {
  readonly path: string;
  /** To be laid over the environment of the process, e.g. where its libraries are. */
  readonly env: Readonly<Record<string, string>>;
  /** As it says itself: `2.10.27`. */
  readonly version: string;
  /** Where it comes from. With a container image `path` is the program's name inside it. */
  readonly origin: BinaryOrigin;
}

export type BinaryOrigin =
  | { readonly kind: 'machine' }
  | { readonly kind: 'packages' }
  | { readonly kind: 'container'; readonly docker: string; readonly image: string };

/** What was found; a program that was not asked for may be missing. */
export type Binaries = { readonly [name in ProgramName]?: Binary };

/** The program, or an error that names it: its absence here is a mistake of the caller, not of the machine. */
export function binary(binaries: Binaries, name: ProgramName): Binary {
  const found = binaries[name];
  if (!found) throw new Error(`${name} was not among the programs asked for`);
  return found;
}

export const programsOf: Readonly<Record<ServerName, readonly ProgramName[]>> = {
  mosquitto: ['mosquitto', 'mosquitto_pub', 'mosquitto_sub', 'mosquitto_rr'],
  nats: ['nats-server'],
  redis: ['redis-server', 'redis-cli'],
  postgres: ['postgres', 'initdb', 'psql'],
};

/**
 * The oldest version that keeps our promises. nats-server before 2.10.27 loses a stream when the power is cut;
 * mosquitto before 2.0 has neither `$7$` passwords nor a loopback default.
 */
export const oldestVersion: Readonly<Record<ServerName, string>> = {
  mosquitto: '2.0',
  nats: '2.10.27',
  redis: '6.2',
  postgres: '15',
};

/** Negative, zero or positive as a is older than, as old as or newer than b; a missing part counts as 0. */
export function compareVersions(a: string, b: string): number {
  const parts = (text: string) => text.split('.').map(part => Number.parseInt(part, 10) || 0);
  const left = parts(a);
  const right = parts(b);
  for (let at = 0; at < Math.max(left.length, right.length); at += 1) {
    const difference = (left[at] ?? 0) - (right[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

/** The first thing in a program's `--version` or help that looks like a version. */
export function versionIn(text: string): string | undefined {
  return (
    /(?:\bversion|\bv=?|\(PostgreSQL\))\s*:?\s*v?(\d+(?:\.\d+)*)/i.exec(text)?.[1] ??
    /(\d+\.\d+(?:\.\d+)?)/.exec(text)?.[1]
  );
}
