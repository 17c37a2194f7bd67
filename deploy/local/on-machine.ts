/** Looks for programs on this machine and asks each for its version. */
import { accessSync, constants, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Binary, type BinaryOrigin, compareVersions, type ProgramName, versionIn } from './binaries.ts';
import { runCommand } from './run-command.ts';

/** Where servers are put that an ordinary user's PATH does not name; `*` stands for a part of one name. */
const usualFolders = [
  '/usr/local/sbin',
  '/usr/local/bin',
  '/usr/sbin',
  '/usr/bin',
  '/sbin',
  '/opt/homebrew/bin',
  '/opt/homebrew/sbin',
  '/usr/lib/postgresql/*/bin',
  '/usr/pgsql-*/bin',
  '/opt/homebrew/opt/postgresql@*/bin',
  '/usr/local/opt/postgresql@*/bin',
];

/** The folders to search: PATH first, then the usual ones, the newest version first. */
export function searchFolders(path = process.env.PATH ?? ''): string[] {
  return [
    ...new Set([
      ...path.split(':').filter(folder => folder.startsWith('/')),
      ...usualFolders.flatMap(expand),
    ]),
  ];
}

/** The folders below `root` that the usual ones would be if the system lived there. */
export function foldersBelow(root: string): string[] {
  return usualFolders.flatMap(pattern => expand(join(root, pattern)));
}

function expand(pattern: string): string[] {
  const star = pattern.indexOf('*');
  if (star < 0) return [pattern];
  const parent = pattern.slice(0, pattern.lastIndexOf('/', star));
  const [prefix = '', rest = ''] = pattern.slice(parent.length + 1).split('*');
  let names: string[];
  try {
    names = readdirSync(parent);
  } catch {
    return [];
  }
  return names
    .filter(name => name.startsWith(prefix))
    .sort((a, b) => compareVersions(b.slice(prefix.length), a.slice(prefix.length)))
    .map(name => `${parent}/${name}${rest}`);
}

/** Every file of that name that may be executed, in the order of the folders. */
export function executables(name: string, folders: readonly string[]): string[] {
  return folders.flatMap(folder => {
    const file = join(folder, name);
    try {
      accessSync(file, constants.X_OK);
      return statSync(file).isFile() ? [file] : [];
    } catch {
      return [];
    }
  });
}

/** mosquitto has no --version; its help, with an exit code of its own, starts with it. */
const versionArgument: Partial<Record<ProgramName, string>> = { mosquitto: '-h' };

/** Undefined when the program does not run here: another architecture, missing libraries, an older C library. */
export async function inspect(
  name: ProgramName,
  path: string,
  env: Readonly<Record<string, string>>,
  origin: BinaryOrigin,
): Promise<Binary | undefined> {
  const result = await runCommand(path, [versionArgument[name] ?? '--version'], { env, timeoutMs: 10_000 });
  if (result.code === undefined || result.code === 126 || result.code === 127) return undefined;
  if (/error while loading shared libraries|not found \(required by/.test(result.said)) return undefined;
  const version = versionIn(result.said);
  return version === undefined ? undefined : { path, env, version, origin };
}
