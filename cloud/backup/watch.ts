/** The outlook of backups as this node last read it: for figures that are asked for often. */
import type { Pool } from 'pg';
import { type BackupOutlook, backupOutlook } from './outlook.ts';
import { readBackups } from './store.ts';

export interface BackupWatch {
  /** Null until it was read. */
  readonly outlook: BackupOutlook | null;
  refresh(): Promise<void>;
}

export function openBackupWatch(pool: Pool): BackupWatch {
  let outlook: BackupOutlook | null = null;
  return {
    get outlook() {
      return outlook;
    },
    async refresh() {
      outlook = backupOutlook(await readBackups(pool));
    },
  };
}
