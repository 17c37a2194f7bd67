import { readFileSync } from 'node:fs';

/** Changes with every boot of the machine; monotonic times count from there, and lock.ts tells old holders by it. */
export function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return `process-${process.pid}-${Date.now()}`;
  }
}
