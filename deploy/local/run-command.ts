/** Runs a helper program to its end; how it ended is a value. */
import { execFile } from 'node:child_process';

export interface CommandResult {
  /** Undefined when it could not be started, was ended by a signal, or took too long. */
  readonly code: number | undefined;
  readonly stdout: string;
  /** stdout and stderr together, for people. */
  readonly said: string;
}

export interface CommandOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
}

const outputBytesMax = 16 * 1024 * 1024;

export function runCommand(
  command: string,
  args: readonly string[],
  { env = {}, timeoutMs = 30_000 }: CommandOptions = {},
): Promise<CommandResult> {
  return new Promise(resolve => {
    execFile(
      command,
      [...args],
      {
        env: { ...process.env, LC_ALL: 'C', ...env },
        timeout: timeoutMs,
        killSignal: 'SIGKILL',
        maxBuffer: outputBytesMax,
        cwd: '/',
      },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : undefined;
        const said = `${stdout}${stderr}`.trim();
        resolve({ code, stdout, said: said === '' && error ? error.message : said });
      },
    );
  });
}
