/**
 * Presence: what a device's status messages, retained or its last will, say of its connection. Pure. The newest one
 * counts, in the order of `order.ts`, so that a late one never takes it back (C).
 */
import type { Value } from '../../protocol/batch.ts';
import type { ReadingOrder } from './order.ts';

export interface Presence extends ReadingOrder {
  readonly online: boolean;
}

/** `devices/x/status` with a bare word or an object, and what the ready profiles make of availability topics. */
const NAMES = new Set(['status', 'status.status', 'status.online', 'status.connected', 'status.state']);

const WORDS: ReadonlyMap<string, boolean> = new Map([
  ['online', true],
  ['connected', true],
  ['true', true],
  ['1', true],
  ['offline', false],
  ['disconnected', false],
  ['lost', false],
  ['false', false],
  ['0', false],
]);

/** @returns what a status message says of the connection; null when it is about something else */
export function connectionIn(metrics: readonly string[], values: readonly Value[]): boolean | null {
  for (let i = 0; i < metrics.length; i++) {
    if (!NAMES.has(metrics[i]!)) continue;
    const online = WORDS.get(String(values[i]).trim().toLowerCase());
    if (online !== undefined) return online;
  }
  return null;
}
