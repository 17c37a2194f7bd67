/**
 * The servers' own command-line tools for the person at the demo: small scripts that know where the programs and
 * their libraries are, since those may be unpacked privately and not on the PATH.
 */
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Binaries, ProgramName } from '../local/binaries.ts';

const tools = [
  'mosquitto_pub',
  'mosquitto_sub',
  'mosquitto_rr',
  'psql',
  'redis-cli',
] as const satisfies readonly ProgramName[];
export type Tool = (typeof tools)[number];

/** @returns for each tool the path of its script below `directory`; tools that are not here are left out. */
export async function writeTools(binaries: Binaries, directory: string): Promise<Map<Tool, string>> {
  await mkdir(directory, { recursive: true });
  const written = new Map<Tool, string>();
  for (const tool of tools) {
    const found = binaries[tool];
    // A program inside a container image is reached by the container engine, not by path.
    if (!found || found.origin.kind === 'container') continue;
    const path = join(directory, tool);
    const environment = Object.entries(found.env).map(([name, value]) => `${name}=${quote(value)} `);
    await writeFile(path, `#!/bin/sh\n${environment.join('')}exec ${quote(found.path)} "$@"\n`);
    await chmod(path, 0o755);
    written.set(tool, path);
  }
  return written;
}

const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
