/** Backups over HTTP: what is in none of them, and noting that one is begun or safely stored. */
import type { TemplatedApp } from 'uWebSockets.js';
import type { Pool } from 'pg';
import { type ChangeAccess, changeJson, getJson, Problem } from '../api/http.ts';
import { backupOutlook } from './outlook.ts';
import { beginBackup, confirmBackup, readBackups } from './store.ts';

export function registerBackupRoutes(options: {
  readonly app: TemplatedApp;
  readonly pool: Pool;
  readonly access: ChangeAccess;
  readonly onError: (route: string, error: unknown) => void;
}): void {
  const { app, pool, access, onError } = options;
  getJson(app, '/backups', async () => backupOutlook(await readBackups(pool)), onError);
  changeJson(app, 'post', '/backups', () => beginBackup(pool), access, onError);
  changeJson(
    app,
    'post',
    '/backups/:id/confirm',
    async ({ parameters: [id = ''] }) => {
      const unknown = new Problem(
        404,
        'Not found',
        `no backup ${id} is begun in this database: it may have been restored to an earlier hour since`,
      );
      if (!/^\d{1,15}$/.test(id)) throw unknown;
      const outcome = await confirmBackup(pool, Number(id));
      if (outcome.outcome === 'unknown') throw unknown;
      if (outcome.outcome === 'overtaken') {
        const detail = `backup ${id} was begun before ${outcome.by}, which is confirmed and covers more`;
        throw new Problem(409, 'Conflict', detail);
      }
      return outcome.backup;
    },
    access,
    onError,
  );
}
