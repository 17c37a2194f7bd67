/**
 * What is in no backup, and how bad that is, pure. It counts from the beginning of the last confirmed backup, or from the
 * first data. Gateways keep what history has settled for some time: what is in no backup after that is in the database alone.
 */
import { limits } from '../../protocol/limits.ts';
import type { Backup, Backups } from './store.ts';

/** A backup a day is what the documentation asks for. */
export const BACKUP_DUE_MS = 24 * 3_600_000;

export interface BackupOutlook {
  readonly confirmed: Backup | null;
  /** Begun after that one and not confirmed, newest first. */
  readonly begun: readonly Backup[];
  readonly uncovered: {
    /** Since when what history took is in no confirmed backup; null when there is no data. Milliseconds since 1970. */
    readonly since: number | null;
    readonly hours: number;
    readonly messages: number;
  };
  /** How long gateways keep what is settled, while they have room. */
  readonly keptHours: number;
  /**
   * `empty`: there is no data. `fresh`: less than a day is in no backup. `due`: more. `overdue`: gateways may have given back
   * what no backup has.
   */
  readonly state: 'empty' | 'fresh' | 'due' | 'overdue';
}

export function backupOutlook({
  now,
  confirmed,
  begun,
  firstDataAt,
  uncoveredMessages,
}: Backups): BackupOutlook {
  const since = confirmed?.begunAt ?? firstDataAt;
  const forMs = since === null ? 0 : Math.max(0, now - since);
  return {
    confirmed,
    begun,
    uncovered: { since, hours: Math.floor(forMs / 360_000) / 10, messages: uncoveredMessages },
    keptHours: limits.keepSettledMs / 3_600_000,
    state: stateOf(since, forMs, uncoveredMessages),
  };
}

function stateOf(since: number | null, forMs: number, messages: number): BackupOutlook['state'] {
  if (since === null) return 'empty';
  if (forMs >= limits.keepSettledMs && messages > 0) return 'overdue';
  return forMs >= BACKUP_DUE_MS ? 'due' : 'fresh';
}
