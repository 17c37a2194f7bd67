/**
 * Backups in PostgreSQL. Holdfast does not dump anything itself: it takes note of what history has settled before a dump is
 * taken, and when somebody says that this dump is safe, that much is covered and gateways may give it back.
 *
 *   begin ─▶ begun ──(pg_dump)──▶ confirm ─▶ confirmed, its part of the ledger is covered
 *              └─ a later one is confirmed, or too many are begun: forgotten (F)
 *
 * A dump is of a moment after the note, so it has all of the note (A). `covered` is a part of `settled` at every moment.
 */
import type { Pool, PoolClient } from 'pg';
import { inTransaction } from '../in-transaction.ts';

export interface Backup {
  /** The time it was begun, by UTC, as a number: 20260131235959. */
  readonly id: number;
  /** Times are milliseconds since 1970, by PostgreSQL's clock. */
  readonly begunAt: number;
  readonly confirmedAt: number | null;
}

export interface Backups {
  /** By PostgreSQL's clock. */
  readonly now: number;
  /** The newest confirmed one. */
  readonly confirmed: Backup | null;
  /** Begun after that one and not confirmed, newest first. */
  readonly begun: readonly Backup[];
  /** When the first of all data was settled; null when there is none. */
  readonly firstDataAt: number | null;
  /** Settled messages that are in no confirmed backup. */
  readonly uncoveredMessages: number;
}

export type ConfirmOutcome =
  | { readonly outcome: 'confirmed'; readonly backup: Backup }
  | { readonly outcome: 'unknown' }
  /** A later one was confirmed meanwhile: it covers all that this one could. */
  | { readonly outcome: 'overtaken'; readonly by: number };

/** Backups that are begun and not confirmed, and confirmed ones that are remembered. */
export const BACKUPS_MAX = 10;

/** The writer of history locks the same rows in an order of its own; one of the two is sent away then. */
const DEADLOCK = '40P01';
const ATTEMPTS_MAX = 5;

const COLUMNS = `id::float8 as id, floor(extract(epoch from begun_at) * 1000)::float8 as "begunAt",
       floor(extract(epoch from confirmed_at) * 1000)::float8 as "confirmedAt"`;

/** @returns with the number of messages that it will cover when it is confirmed */
export async function beginBackup(pool: Pool): Promise<Backup & { readonly messages: number }> {
  return alone(pool, async client => {
    // Nothing of what is settled from here on is in the note, though some of it will be in the dump.
    const begun = await client.query<Backup>(
      `insert into holdfast.backup (id)
       select greatest(to_char(clock_timestamp() at time zone 'UTC', 'YYYYMMDDHH24MISS')::bigint, max(id) + 1)
         from holdfast.backup
       returning ${COLUMNS}`,
    );
    const backup = begun.rows[0]!;
    const noted = await client.query<{ messages: number }>(
      `with noted as (
         insert into holdfast.backup_log (backup, log, settled)
         select $1, id, settled - covered from holdfast.gateway_log where not settled <@ covered
         returning settled)
       select coalesce(sum(upper(r) - lower(r)), 0)::float8 as messages from noted, unnest(noted.settled) r`,
      [backup.id],
    );
    await client.query(
      `delete from holdfast.backup where id in
         (select id from holdfast.backup where confirmed_at is null order by id desc offset $1)`,
      [BACKUPS_MAX],
    );
    return { ...backup, messages: noted.rows[0]!.messages };
  });
}

/** What was settled when it was begun is covered from now on. Harmless when it was confirmed before. */
export async function confirmBackup(pool: Pool, id: number): Promise<ConfirmOutcome> {
  return alone(pool, async client => {
    const found = await client.query<Backup>(`select ${COLUMNS} from holdfast.backup where id = $1`, [id]);
    const backup = found.rows[0];
    if (!backup) {
      const { rows } = await client.query<{ id: number }>(
        `select id::float8 as id from holdfast.backup
          where confirmed_at is not null and id > $1 order by id desc limit 1`,
        [id],
      );
      return rows[0] ? { outcome: 'overtaken', by: rows[0].id } : { outcome: 'unknown' };
    }
    if (backup.confirmedAt !== null) return { outcome: 'confirmed', backup };
    await client.query(
      `update holdfast.gateway_log l set covered = l.covered + b.settled
         from holdfast.backup_log b where b.backup = $1 and b.log = l.id`,
      [id],
    );
    const confirmed = await client.query<Backup>(
      `update holdfast.backup set confirmed_at = clock_timestamp() where id = $1 returning ${COLUMNS}`,
      [id],
    );
    await client.query('delete from holdfast.backup_log where backup <= $1', [id]);
    await client.query('delete from holdfast.backup where confirmed_at is null and id < $1', [id]);
    await client.query(
      `delete from holdfast.backup where id in
         (select id from holdfast.backup where confirmed_at is not null order by id desc offset $1)`,
      [BACKUPS_MAX],
    );
    return { outcome: 'confirmed', backup: confirmed.rows[0]! };
  });
}

export async function readBackups(pool: Pool): Promise<Backups> {
  const [backups, ledger] = await Promise.all([
    pool.query<Backup>(`select ${COLUMNS} from holdfast.backup order by id desc`),
    pool.query<Omit<Backups, 'confirmed' | 'begun'>>(
      `select floor(extract(epoch from clock_timestamp()) * 1000)::float8 as now,
              (select floor(extract(epoch from min(created_at)) * 1000)::float8 from holdfast.gateway_log
                where settled <> '{}') as "firstDataAt",
              (select coalesce(sum(upper(r) - lower(r)), 0)::float8
                 from holdfast.gateway_log l, unnest(l.settled - l.covered) r
                where not l.settled <@ l.covered) as "uncoveredMessages"`,
    ),
  ]);
  const confirmed = backups.rows.find(backup => backup.confirmedAt !== null) ?? null;
  const begun = backups.rows.filter(backup => backup.confirmedAt === null);
  return { ...ledger.rows[0]!, confirmed, begun };
}

/** In a transaction, one at a time over all nodes; again when PostgreSQL ended it for a deadlock. */
async function alone<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await inTransaction(pool, async client => {
        await client.query("select pg_advisory_xact_lock(hashtext('holdfast.backup'))");
        return work(client);
      });
    } catch (error) {
      if ((error as { code?: string }).code !== DEADLOCK || attempt === ATTEMPTS_MAX) throw error;
    }
  }
}
