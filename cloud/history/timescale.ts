/**
 * History on TimescaleDB, where the server has it: detected at migration, moved to by command.
 *
 *   stock ──no readings yet, at migration──▶ hypertables      sql/timescale/, in one transaction
 *     └────`holdfast history to-timescale`──────▲
 *
 * There is no way back but a dump of the readings. What is not there, or not allowed, leaves history as it is, and says why.
 */
import type { ClientBase } from 'pg';

export type Timescale =
  | { readonly on: 'stock'; readonly why: string }
  | { readonly on: 'timescale'; readonly version: string; readonly licence: string; readonly moved: boolean };

/** `off`: as if the server had none. */
export type TimescaleWish = 'auto' | 'off';

type Client = Pick<ClientBase, 'query'>;

export const FIRST_STEP = 'timescale/001-hypertables.sql';

/**
 * @param apply applies one file of `sql/` in a transaction and notes that
 * @param withReadings history is moved even when that takes its time
 */
export async function adoptTimescale(
  client: Client,
  applied: ReadonlySet<string>,
  apply: (name: string) => Promise<void>,
  { wish, withReadings }: { readonly wish: TimescaleWish; readonly withReadings: boolean },
): Promise<Timescale> {
  if (applied.has(FIRST_STEP)) return { on: 'timescale', ...(await editionOf(client)), moved: false };
  if (wish === 'off') return { on: 'stock', why: 'HOLDFAST_TIMESCALE is off' };
  if (!(await isLoaded(client))) return { on: 'stock', why: 'the server has no TimescaleDB' };
  if (!withReadings && (await hasReadings(client))) {
    return { on: 'stock', why: 'there are readings: `holdfast history to-timescale` moves them' };
  }
  try {
    await client.query('create extension if not exists timescaledb');
    await apply(FIRST_STEP);
  } catch (error) {
    return { on: 'stock', why: (error as Error).message };
  }
  return { on: 'timescale', ...(await editionOf(client)), moved: true };
}

/** Without being preloaded it ends the connection that wants to create it; its settings are there for everybody. */
async function isLoaded(client: Client): Promise<boolean> {
  const { rows } = await client.query<{ loaded: boolean }>(
    `select current_setting('timescaledb.disable_load', true) is not null
        and exists (select from pg_available_extensions where name = 'timescaledb') as loaded`,
  );
  return rows[0]!.loaded;
}

async function hasReadings(client: Client): Promise<boolean> {
  const { rows } = await client.query<{ some: boolean }>(
    'select exists (select from holdfast.message) or exists (select from holdfast.chunk) as some',
  );
  return rows[0]!.some;
}

async function editionOf(client: Client): Promise<{ version: string; licence: string }> {
  const { rows } = await client.query<{ version: string; licence: string }>(
    `select extversion as version, current_setting('timescaledb.license') as licence
       from pg_extension where extname = 'timescaledb'`,
  );
  return rows[0]!;
}
