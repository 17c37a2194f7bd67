/**
 * One server process: started, watched, stopped, killed, started again.
 *
 *   stopped ──start──▶ running ──stop/kill──▶ stopped
 *                         └──exits by itself──▶ stopped, and the listeners hear of it
 *
 * The process runs in its own process group, so that Ctrl-C in a terminal reaches the program that started it and
 * not the servers it still has to drain into. Whoever is killed with -9 leaves servers behind; `running.json` beside
 * their data names them, and the next start on that data ends them first (invariant R).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { killWithChildren, processIdentity } from './process-table.ts';
import type { Server } from './server.ts';

export interface Launch {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly url: string;
  /** Exists; holds `running.json`. */
  readonly directory: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly uid?: number;
  readonly gid?: number;
  readonly stopSignal: NodeJS.Signals;
  /** After this the graceful stop turns into a kill. */
  readonly stopTimeoutMs: number;
  readonly readyTimeoutMs: number;
  /** One attempt of a real client; false or a rejection means not yet. */
  answers(): Promise<boolean>;
  /** Sees to what a killed predecessor may have left lying about. */
  beforeStart?(): void | Promise<void>;
  /** Ends what SIGKILL of the process itself does not reach, such as a container. */
  afterKill?(): Promise<void>;
}

interface Running {
  readonly child: ChildProcess;
  readonly pid: number;
  /** Resolves, never rejects, with a sentence that says how it ended. */
  readonly exited: Promise<string>;
  asked: boolean;
}

const outputBytesMax = 64 * 1024;
const answerPauseMs = 20;

/** Processes alive now, for the last resort when this program ends without stopping them. */
const alive = new Map<number, NodeJS.Signals>();
process.on('exit', () => {
  for (const [pid, signal] of alive) {
    try {
      process.kill(pid, signal);
    } catch {
      // Gone already.
    }
  }
});

/** Starts the process and resolves with its handle when it answers. */
export async function launchServer(launch: Launch): Promise<Server> {
  let running: Running | undefined;
  let tail = '';
  const listeners = new Set<(reason: string) => void>();

  function remember(chunk: Buffer): void {
    tail += chunk.toString('utf8');
    if (tail.length > outputBytesMax) tail = tail.slice(-outputBytesMax);
  }

  function spawnProcess(): Running {
    const child = spawn(launch.command, launch.args, {
      cwd: '/',
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...launch.env },
      ...(launch.uid === undefined ? {} : { uid: launch.uid }),
      ...(launch.gid === undefined ? {} : { gid: launch.gid }),
    });
    child.stdout?.on('data', remember);
    child.stderr?.on('data', remember);
    const exited = new Promise<string>(resolve => {
      child.once('error', error => resolve(`could not be started: ${error.message}`));
      child.once('exit', (code, signal) =>
        resolve(signal ? `ended by ${signal}` : `ended with code ${code}`),
      );
    });
    const mine: Running = { child, pid: child.pid ?? -1, exited, asked: false };
    if (mine.pid > 0) {
      alive.set(mine.pid, launch.stopSignal === 'SIGINT' ? 'SIGQUIT' : 'SIGKILL');
      writeRecord(launch.directory, mine.pid);
    }
    void exited.then(reason => {
      alive.delete(mine.pid);
      if (running === mine) running = undefined;
      if (!mine.asked) for (const listener of listeners) listener(reason);
    });
    return mine;
  }

  async function start(): Promise<void> {
    if (running) return;
    await endPredecessor(launch);
    await launch.beforeStart?.();
    tail = '';
    const mine = spawnProcess();
    running = mine;
    // Until it answers its end is this call's failure, not an unexpected exit.
    mine.asked = true;
    const over = { reason: undefined as string | undefined };
    void mine.exited.then(reason => {
      over.reason = reason;
    });
    const deadline = Date.now() + launch.readyTimeoutMs;
    for (;;) {
      const answered =
        over.reason === undefined &&
        (await Promise.race([launch.answers().catch(() => false), mine.exited.then(() => false)]));
      if (over.reason !== undefined) throw new Error(explain(over.reason));
      if (answered) break;
      if (Date.now() > deadline) {
        await end(mine, 'SIGKILL');
        throw new Error(explain(`did not answer within ${launch.readyTimeoutMs / 1000} s`));
      }
      await Promise.race([sleep(answerPauseMs), mine.exited]);
    }
    mine.asked = false;
  }

  function explain(what: string): string {
    const said = tail.trim().split('\n').slice(-12).join('\n');
    return `${launch.name} on ${launch.host}:${launch.port} ${what}${said === '' ? '' : `; it said:\n${said}`}`;
  }

  async function end(mine: Running, signal: NodeJS.Signals): Promise<void> {
    mine.asked = true;
    if (signal === 'SIGKILL') {
      if (mine.pid > 0) await killWithChildren(mine.pid);
      await launch.afterKill?.();
    } else {
      mine.child.kill(signal);
      const timeout = new AbortController();
      const late = sleep(launch.stopTimeoutMs, 'late', { signal: timeout.signal }).catch(() => 'in time');
      if ((await Promise.race([mine.exited, late])) === 'late') {
        await killWithChildren(mine.pid);
        await launch.afterKill?.();
      }
      timeout.abort();
    }
    await mine.exited;
    rmSync(join(launch.directory, recordName), { force: true });
  }

  await start();
  return {
    name: launch.name,
    host: launch.host,
    port: launch.port,
    url: launch.url,
    external: false,
    pid: () => running?.pid,
    stop: async () => {
      if (running) await end(running, launch.stopSignal);
    },
    kill: async () => {
      if (running) await end(running, 'SIGKILL');
    },
    start,
    output: () => tail,
    onUnexpectedExit: listener => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

const recordName = 'running.json';

interface RunRecord {
  readonly pid: number;
  readonly identity: string;
  readonly startedBy: number;
  readonly startedByIdentity: string;
}

function writeRecord(directory: string, pid: number): void {
  const record: RunRecord = {
    pid,
    identity: processIdentity(pid) ?? '',
    startedBy: process.pid,
    startedByIdentity: processIdentity(process.pid) ?? '',
  };
  writeFileSync(join(directory, recordName), JSON.stringify(record));
}

/** Ends the server that a killed program left running on this data; refuses when that program still lives. */
async function endPredecessor(launch: Launch): Promise<void> {
  let record: RunRecord;
  try {
    record = JSON.parse(readFileSync(join(launch.directory, recordName), 'utf8')) as RunRecord;
  } catch {
    return;
  }
  if (processIdentity(record.pid) === undefined || processIdentity(record.pid) !== record.identity) return;
  if (processIdentity(record.startedBy) === record.startedByIdentity) {
    throw new Error(
      `${launch.name} is already running on ${launch.directory} as process ${record.pid}, started by process ${record.startedBy}: stop that one first, or use another folder`,
    );
  }
  await killWithChildren(record.pid);
  await launch.afterKill?.();
}
