/** Runs a client program of the servers, such as mosquitto_pub or psql, to its end. */
import { execFile } from 'node:child_process';
import { type Binaries, binary, type ProgramName } from '../../deploy/local/binaries.ts';

/** Resolves with what it printed. Rejects when it ends with another code than 0. */
export function runProgram(
  binaries: Binaries,
  name: ProgramName,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const { path, env: ownEnv, origin } = binary(binaries, name);
  const inContainer = origin.kind === 'container';
  const command = inContainer ? origin.docker : path;
  const before = inContainer
    ? [
        ...['run', '--rm', '--network', 'host'],
        ...Object.keys(env).flatMap(key => ['--env', key]),
        ...['--entrypoint', path, origin.image],
      ]
    : [];
  return new Promise((resolve, reject) => {
    execFile(
      command,
      [...before, ...args],
      { env: { ...process.env, ...ownEnv, ...env }, timeout: 30_000 },
      (error, stdout, stderr) => {
        if (error) reject(new Error(`${name}: ${error.message}\n${stderr}`));
        else resolve(stdout);
      },
    );
  });
}
