/**
 * One of our own processes (gateway, cloud node, fleet): started with Node's own runtime, ready when it says so.
 *
 *   stopped ──start──▶ starting ──"ready"──▶ running ──stop / kill / by itself──▶ stopped
 *
 * It holds an IPC channel to whoever started it and drains by itself when that one is gone, so nothing is left behind.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

export interface NodeProcess {
  readonly name: string;
  pid(): number | undefined;
  /** Resolves with what the process said of itself when it got ready. Rejects with the tail of its output. */
  start(): Promise<Record<string, unknown>>;
  /** SIGTERM, and SIGKILL when it takes longer than `stopTimeoutMs`. */
  stop(): Promise<void>;
  kill(): Promise<void>;
  send(message: object): void;
  onMessage(listener: (message: Record<string, unknown>) => void): () => void;
  /** The last 64 KiB of stdout and stderr. */
  output(): string;
  onUnexpectedExit(listener: (reason: string) => void): () => void;
}

const OUTPUT_BYTES_MAX = 64 * 1024;

export function nodeProcess(options: {
  name: string;
  /** Module to run. */
  entry: URL;
  args?: readonly string[];
  env: Readonly<Record<string, string>>;
  stopTimeoutMs?: number;
  readyTimeoutMs?: number;
}): NodeProcess {
  const stopTimeoutMs = options.stopTimeoutMs ?? 15_000;
  const readyTimeoutMs = options.readyTimeoutMs ?? 60_000;
  const exitListeners = new Set<(reason: string) => void>();
  const messageListeners = new Set<(message: Record<string, unknown>) => void>();
  let running: { child: ChildProcess; exited: Promise<string>; expected: boolean } | undefined;
  let tail = '';

  const remember = (chunk: Buffer) => {
    tail = (tail + chunk.toString('utf8')).slice(-OUTPUT_BYTES_MAX);
  };

  async function start(): Promise<Record<string, unknown>> {
    if (running) throw new Error(`${options.name} runs already`);
    const child = fork(options.entry, [...(options.args ?? [])], {
      env: { ...process.env, ...options.env },
      execArgv: ['--disable-warning=ExperimentalWarning'],
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      // Its own process group: Ctrl-C is for the one who started it, who then stops it in order.
      detached: true,
    });
    child.stdout?.on('data', remember);
    child.stderr?.on('data', remember);
    const exited = new Promise<string>(resolve => {
      child.once('error', error => resolve(`could not be started: ${error.message}`));
      child.once('exit', (code, signal) =>
        resolve(signal ? `ended by ${signal}` : `ended with code ${code}`),
      );
    });
    const mine = { child, exited, expected: true };
    running = mine;
    void exited.then(reason => {
      if (running === mine) running = undefined;
      if (!mine.expected) for (const listener of exitListeners) listener(reason);
    });
    const ready = new Promise<Record<string, unknown>>(resolve => {
      child.on('message', message => {
        const said = message as Record<string, unknown>;
        if (said.type === 'ready') resolve(said);
        for (const listener of messageListeners) listener(said);
      });
    });
    const timeout = new AbortController();
    const late = sleep(readyTimeoutMs, `was not ready within ${readyTimeoutMs / 1000} s`, {
      signal: timeout.signal,
    });
    late.catch(() => {});
    const first = await Promise.race([ready, exited, late]);
    timeout.abort();
    if (typeof first === 'string') {
      child.kill('SIGKILL');
      await exited;
      throw new Error(`${options.name} ${first}; it said:\n${tail.trim().split('\n').slice(-8).join('\n')}`);
    }
    mine.expected = false;
    return first;
  }

  async function end(signal: NodeJS.Signals): Promise<void> {
    const mine = running;
    if (!mine) return;
    mine.expected = true;
    mine.child.kill(signal);
    const timeout = new AbortController();
    const late = sleep(stopTimeoutMs, null, { signal: timeout.signal }).catch(() => null);
    if ((await Promise.race([mine.exited, late])) === null) mine.child.kill('SIGKILL');
    timeout.abort();
    await mine.exited;
  }

  return {
    name: options.name,
    pid: () => running?.child.pid,
    start,
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
    // A child that is going away takes no more messages; its exit tells the rest.
    send: message => void running?.child.send(message, () => {}),
    onMessage(listener) {
      messageListeners.add(listener);
      return () => messageListeners.delete(listener);
    },
    output: () => tail,
    onUnexpectedExit(listener) {
      exitListeners.add(listener);
      return () => exitListeners.delete(listener);
    },
  };
}
