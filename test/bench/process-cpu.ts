/**
 * CPU time of processes and all their descendants, from /proc. What a child used counts even when it has ended: the
 * kernel adds it to its parent once the parent has waited for it (Postgres backends come and go).
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { childrenOf } from '../../deploy/local/process-table.ts';

/** CPU time of everything on this machine since it started, idle and waiting left out, in milliseconds. */
export function machineCpuMs(): number {
  // user, nice, system, idle, iowait, irq, softirq, steal
  const [user, nice, system, , , irq, softirq] = readFileSync('/proc/stat', 'latin1')
    .split('\n', 1)[0]!
    .split(/\s+/)
    .slice(1)
    .map(Number) as [number, number, number, number, number, number, number];
  return milliseconds(user + nice + system + irq + softirq);
}

let ticksPerSecond: number | undefined;

/** User and system time in milliseconds, to the kernel's tick of 10 ms. */
export function cpuMs(pid: number): number {
  return milliseconds(ticks(pid));
}

function milliseconds(inTicks: number): number {
  ticksPerSecond ??= Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
  return (inTicks * 1000) / ticksPerSecond;
}

function ticks(pid: number): number {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return 0;
  }
  // utime, stime, and both of the children that have ended; the name in parentheses may hold spaces.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const own = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
  return childrenOf(pid).reduce((sum, child) => sum + ticks(child), own);
}
