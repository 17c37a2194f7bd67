/**
 * What a node does again and again: every chore at its own interval, never twice at a time. One that fails is done again
 * at the next one (R).
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { BackupWatch } from './backup/watch.ts';
import type { CloudConfig } from './config.ts';
import type { GatewayLink } from './gateway-link.ts';
import type { Dictionary } from './history/dictionary.ts';
import { expireHistory } from './history/retention.ts';
import { forgetOldIncidents } from './incidents/incident-table.ts';
import type { Partition } from './partition.ts';
import type { Postgres } from './postgres.ts';
import type { RegistryApi } from './registry/api.ts';
import type { Registry } from './registry/registry.ts';
import type { Releases } from './releases.ts';
import type { RuleBook } from './rule-book.ts';
import type { StreamLocator } from './stream-locator.ts';
import { purgeHandled } from './stream-purge.ts';

const FENCE_CHECK_MS = 2000;
const PASSIVATION_MS = 60_000;
const LINK_CHECK_MS = 1000;
const REGISTRY_REFRESH_MS = 5000;
const STREAM_CHECK_MS = 5000;
const RULES_REFRESH_MS = 5000;
const GATEWAYS_FLUSH_MS = 5000;
const POSTGRES_CHECK_MS = 5000;
const HOUSEKEEPING_MS = 30_000;
const EXPIRY_MS = 3_600_000;
const QUARANTINE_ROWS_MAX = 100_000;
const DAY_MS = 86_400_000;

/** Each interval registers its release. */
export function startChores(options: {
  config: Pick<CloudConfig, 'twinIdleMs' | 'retentionMs' | 'retention' | 'incidentRetentionMs'>;
  logger: Logger;
  onClose: Releases['onClose'];
  postgres: Postgres;
  /** When the PostgreSQL that the node has read from was started. */
  postgresStarted: string;
  dictionary: Dictionary;
  manager: JetStreamManager;
  stream: StreamLocator;
  /** How many there are, of all nodes. */
  partitions: number;
  partitionsOpen: () => Iterable<Partition>;
  gateways: GatewayLink;
  registry: Registry;
  registryApi: RegistryApi;
  rules: RuleBook;
  backups: BackupWatch;
}): void {
  const { config, logger, postgres, dictionary, gateways, registry, rules, backups, partitionsOpen } =
    options;
  const { pool } = postgres;

  const every = (ms: number, work: () => Promise<void>, what: string) => {
    let busy = false;
    const timer = setInterval(() => {
      if (busy) return;
      busy = true;
      work()
        .catch(error => logger.debug({ reason: (error as Error).message }, `${what} failed, trying again`))
        .finally(() => {
          busy = false;
        });
    }, ms);
    options.onClose(what, () => clearInterval(timer));
  };
  const forEachPartition = (work: (partition: Partition) => Promise<unknown>) => async () => {
    await Promise.all([...partitionsOpen()].map(work));
  };

  let postgresStarted = options.postgresStarted;
  async function checkPostgres(): Promise<void> {
    try {
      const { rows } = await pool.query<{ started: string }>('select holdfast.server_started() as started');
      const { started } = rows[0]!;
      if (started !== postgresStarted) {
        logger.info('postgres: was restarted, its ledger and names are read again');
        dictionary.forgetAll();
        // It may be one from a backup.
        for (const partition of partitionsOpen()) await partition.retell();
      }
      postgresStarted = started;
      postgres.noteHealth({ ok: true, reason: null });
    } catch (error) {
      postgres.noteHealth({ ok: false, reason: (error as Error).message });
    }
  }

  async function keepHouse(): Promise<void> {
    await ensureDaysAround(dictionary, Date.now());
    await purgeHandled(options.manager, pool, options.partitions);
    await forgetOldQuarantine(pool);
  }

  every(
    FENCE_CHECK_MS,
    forEachPartition(partition => partition.checkFences()),
    'checking fences',
  );
  every(
    PASSIVATION_MS,
    forEachPartition(async partition => void partition.passivate(config.twinIdleMs)),
    'forgetting idle twins',
  );
  every(
    LINK_CHECK_MS,
    forEachPartition(partition => partition.judgeLinks(gateways)),
    'judging links',
  );
  every(REGISTRY_REFRESH_MS, registry.refresh, 'reading the registry');
  every(HOUSEKEEPING_MS, options.registryApi.housekeeping, 'telling twins of what was replayed');
  every(STREAM_CHECK_MS, async () => void (await options.stream.locate()), 'stream check');
  every(RULES_REFRESH_MS, rules.refresh, 'reading rules');
  every(GATEWAYS_FLUSH_MS, gateways.flush, 'noting gateways');
  every(POSTGRES_CHECK_MS, checkPostgres, 'Postgres check');
  every(HOUSEKEEPING_MS, keepHouse, 'housekeeping');
  every(HOUSEKEEPING_MS, backups.refresh, 'reading the backups');
  every(
    EXPIRY_MS,
    () => forgetOldMinutes(pool, Date.now() - config.retentionMs),
    'forgetting old minutes of the ledger',
  );
  every(
    EXPIRY_MS,
    async () => {
      const nowMs = await databaseNowMs(pool);
      await expireHistory(pool, config.retention, nowMs);
      await forgetOldIncidents(pool, nowMs - config.incidentRetentionMs);
    },
    'taking away what history keeps no longer',
  );
}

/** Makes history's tables of yesterday, today and the next two days, by UTC. */
export function ensureDaysAround(dictionary: Dictionary, now: number): Promise<void> {
  return dictionary.ensureDays(
    [-1, 0, 1, 2].map(offset => new Date(now + offset * DAY_MS).toISOString().slice(0, 10)),
  );
}

/** What goes is gone: a node's own clock may have jumped. */
async function databaseNowMs(pool: Pool): Promise<number> {
  const { rows } = await pool.query<{ now: number }>(
    'select (extract(epoch from now()) * 1000)::float8 as now',
  );
  return rows[0]!.now;
}

async function forgetOldQuarantine(pool: Pool): Promise<void> {
  await pool.query(
    'delete from holdfast.quarantine where id <= (select max(id) - $1 from holdfast.quarantine)',
    [QUARANTINE_ROWS_MAX],
  );
}

/** @param oldest milliseconds since 1970 */
async function forgetOldMinutes(pool: Pool, oldest: number): Promise<void> {
  await pool.query('delete from holdfast.ledger_minute where minute < to_timestamp($1 / 1000.0)', [oldest]);
}
