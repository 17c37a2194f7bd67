/**
 * Looks at other processes: is this one alive, is it the same one as before, which are its children. Reads /proc
 * where there is one, else asks ps.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const hasProc = existsSync('/proc/self/stat');

interface Entry {
  /** As `ps` has it: T is stopped. */
  readonly state: string;
  readonly parent: number;
  readonly started: string;
}

/** Undefined when there is no such process, or when it is dead and only waits to be reaped. */
function entry(pid: number): Entry | undefined {
  if (hasProc) {
    let stat: string;
    try {
      stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    } catch {
      return undefined;
    }
    // The name in parentheses may itself hold spaces and parentheses.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
    return { state: fields[0] ?? '', parent: Number(fields[1]), started: fields[19] ?? '' };
  }
  try {
    const line = execFileSync('ps', ['-o', 'stat=,ppid=,lstart=', '-p', String(pid)], {
      encoding: 'utf8',
    }).trim();
    const [state, parent, ...started] = line.split(/\s+/);
    if (!state || state.startsWith('Z')) return undefined;
    return { state, parent: Number(parent), started: started.join(' ') };
  } catch {
    return undefined;
  }
}

/** Names this run of this process: a process id used again later, or after a reboot, gives another value. */
export function processIdentity(pid: number): string | undefined {
  const found = entry(pid);
  if (!found) return undefined;
  let boot = '';
  try {
    boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    // Only Linux has one.
  }
  return `${boot}/${found.started}`;
}

export function childrenOf(pid: number): number[] {
  const all = hasProc
    ? readdirSync('/proc').flatMap(name => (/^\d+$/.test(name) ? [Number(name)] : []))
    : execFileSync('ps', ['-A', '-o', 'pid='], { encoding: 'utf8' }).trim().split(/\s+/).map(Number);
  return all.filter(candidate => entry(candidate)?.parent === pid);
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/**
 * Stops a process and its children, and waits until each of them stands still: a signal arrives when it does. The parent
 * comes first, so that no child is born meanwhile.
 * @returns all of them, for {@link goOn}
 */
export function standStill(pid: number): number[] {
  signal(pid, 'SIGSTOP');
  waitUntilStopped(pid);
  const children = childrenOf(pid);
  for (const child of children) signal(child, 'SIGSTOP');
  for (const child of children) waitUntilStopped(child);
  return [pid, ...children];
}

export function goOn(pids: readonly number[]): void {
  for (const pid of pids.toReversed()) signal(pid, 'SIGCONT');
}

function waitUntilStopped(pid: number): void {
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let found = entry(pid); found && !/^[Tt]/.test(found.state); found = entry(pid)) {
    Atomics.wait(pause, 0, 0, 1);
  }
}

/**
 * SIGKILL for a process and its children, and a wait until none is left. It is stopped first so that no child is
 * born between the look and the kill; Postgres does not start while a child of its former life is attached to the
 * shared memory.
 */
export async function killWithChildren(pid: number): Promise<void> {
  signal(pid, 'SIGSTOP');
  const family = [pid, ...childrenOf(pid)].map(member => ({
    pid: member,
    identity: processIdentity(member),
  }));
  for (const member of family) signal(member.pid, 'SIGKILL');
  for (const member of family) {
    while (member.identity !== undefined && processIdentity(member.pid) === member.identity) await sleep(5);
  }
}
