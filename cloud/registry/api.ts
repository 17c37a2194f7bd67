/** Registry, maintenance, quarantine and backups over HTTP, put together for a node. */

import type { TemplatedApp } from 'uWebSockets.js';
import type { JetStreamClient } from '@nats-io/jetstream';
import type { Pool } from 'pg';
import type { ChangeAccess } from '../api/http.ts';
import { registerBackupRoutes } from '../backup/routes.ts';
import type { Dictionary } from '../history/dictionary.ts';
import { registerQuarantineRoutes } from '../quarantine/routes.ts';
import { tellTwins } from '../quarantine/tell-twins.ts';
import { registerMaintenanceRoutes } from './maintenance-routes.ts';
import { moveHistory } from './move-history.ts';
import type { Registry } from './registry.ts';
import { registerRegistryRoutes } from './routes.ts';

export interface RegistryApi {
  /** What a change left over: rows and stored twins under an alias, and twins that were not told of a replay. */
  housekeeping(): Promise<void>;
}

const PUBLISH_TIMEOUT_MS = 5000;

export function registerRegistryApi(options: {
  readonly app: TemplatedApp;
  readonly pool: Pool;
  readonly registry: Registry;
  readonly dictionary: Dictionary;
  readonly stream: Pick<JetStreamClient, 'publish'>;
  readonly partitions: number;
  readonly retentionMs: number;
  readonly access: ChangeAccess;
  readonly onError: (route: string, error: unknown) => void;
}): RegistryApi {
  const { pool, registry, dictionary, retentionMs, stream, partitions } = options;
  const tell = () =>
    tellTwins({
      pool,
      partitions,
      publish: (subject, batch) => stream.publish(subject, batch, { timeout: PUBLISH_TIMEOUT_MS }),
    });
  registerRegistryRoutes(options);
  registerMaintenanceRoutes(options);
  registerBackupRoutes(options);
  registerQuarantineRoutes({
    ...options,
    context: { pool, dictionary, registry: registry.site, retentionMs, now: Date.now },
    tellTwins: tell,
  });
  return {
    async housekeeping() {
      await tell();
      await moveHistory(pool);
    },
  };
}
