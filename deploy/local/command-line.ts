/**
 * How a found program becomes a command: directly, or inside a container that sees only the server's own folder and
 * whose port is published on one address of this machine.
 */
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Binary } from './binaries.ts';
import type { Launch } from './process.ts';

export interface Program {
  readonly binary: Binary;
  readonly name: string;
  readonly args: readonly string[];
  /** Absolute; the same path inside a container. */
  readonly directory: string;
  /** Address and port of this machine under which the server is reached. */
  readonly publish?: { readonly host: string; readonly port: number };
  /** Whom to run as, where it matters. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
}

type Command = Pick<Launch, 'command' | 'args' | 'env' | 'uid' | 'gid' | 'beforeStart' | 'afterKill'>;

/** The address a server binds to: inside a container its own network, which is published on `host` alone. */
export function bindAddress(binary: Binary, host: string): string {
  return binary.origin.kind === 'container' ? '0.0.0.0' : host;
}

export function commandLine(program: Program): Command {
  const { binary, args, user } = program;
  if (binary.origin.kind !== 'container') return { command: binary.path, args, env: binary.env, ...user };
  const { docker, image } = binary.origin;
  const key = createHash('sha256').update(program.directory).digest('hex').slice(0, 12);
  const container = `holdfast-${program.name}-${key}`;
  const { uid, gid } = user ?? { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const remove = () =>
    new Promise<void>(resolve => {
      execFile(docker, ['rm', '--force', container], () => resolve());
    });
  return {
    command: docker,
    args: [
      ...['run', '--rm', '--init', '--name', container, '--user', `${uid}:${gid}`],
      ...['--volume', `${program.directory}:${program.directory}`],
      ...['--volume', `${passwdFile(program.directory, uid, gid)}:/etc/passwd:ro`],
      ...(program.publish
        ? ['--publish', `${program.publish.host}:${program.publish.port}:${program.publish.port}`]
        : []),
      ...['--entrypoint', binary.path, image, ...args],
    ],
    env: binary.env,
    // A container outlives a docker client that was killed.
    beforeStart: remove,
    afterKill: remove,
  };
}

/** initdb and postgres look their own user up by number, and an image does not know this machine's users. */
function passwdFile(directory: string, uid: number, gid: number): string {
  const file = join(directory, 'container-passwd');
  const line = `holdfast:x:${uid}:${gid}::${directory}:/bin/sh\n`;
  writeFileSync(file, uid === 0 ? line : `root:x:0:0::/:/bin/sh\n${line}`);
  return file;
}

/** Runs a program to its end. Throws with what it said when it fails. */
export function runToEnd(program: Program): void {
  const command = commandLine(program);
  try {
    execFileSync(command.command, [...command.args], {
      cwd: '/',
      env: { ...process.env, ...command.env },
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(command.uid === undefined ? {} : { uid: command.uid }),
      ...(command.gid === undefined ? {} : { gid: command.gid }),
    });
  } catch (error) {
    const { stderr, stdout, message } = error as Error & { stderr?: Buffer; stdout?: Buffer };
    throw new Error(
      `${program.name}: ${String(stderr ?? '').trim() || String(stdout ?? '').trim() || message}`,
    );
  }
}
