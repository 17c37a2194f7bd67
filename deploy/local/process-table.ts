/**
 * Looks at other processes: is this one alive, is it the same one as before, which are its children. Reads /proc
 * where there is one, else asks ps.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const hasProc = existsSync('/proc/self/stat');

interface Entry {
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
    return { parent: Number(fields[1]), started: fields[19] ?? '' };
  }
  try {
    const line = execFileSync('ps', ['-o', 'stat=,ppid=,lstart=', '-p', String(pid)], {
      encoding: 'utf8',
    }).trim();
    const [state, parent, ...started] = line.split(/\s+/);
    if (!state || state.startsWith('Z')) return undefined;
    return { parent: Number(parent), started: started.join(' ') };
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
