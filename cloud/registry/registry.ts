/**
 * The registry as a node has it in memory: read at the start, again every few seconds and on the nudge
 * `registry.changed`, of a site only when its revision has moved.
 *
 *   revisions ─▶ moved? ─▶ read the site (or the types) ─▶ new snapshot ─▶ onChange(sites)
 *
 * A snapshot is never changed in place: whoever holds one may finish its batch with it. While PostgreSQL is away the last
 * snapshot holds (R). Bounded by the bounds of the tables (F).
 */
import type { NatsConnection } from '@nats-io/transport-node';
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import {
  conversionsOf,
  type DeviceFacts,
  type NameEntry,
  type SiteRegistry,
  TypeEntry,
  type UnknownPolicy,
} from './model.ts';
import type { Conversion } from './units.ts';

export const REGISTRY_CHANGED_SUBJECT = 'registry.changed';

export interface Registry {
  /** For `applyRegistry`; null when nobody has entered anything of the site. */
  site(site: string): SiteRegistry | null;
  /** What rules and lists need of one device; null when it has no entry. Aliases are found too. */
  of(site: string, device: string): DeviceFacts | null;
  /** Reads what has changed. Rejects while PostgreSQL does not answer; the last snapshot holds. */
  refresh(): Promise<void>;
  /** After a change: this node reads it at once, and the others are told. */
  changed(): Promise<void>;
  close(): void;
}

interface SiteRow {
  readonly site: string;
  readonly unknown_devices: UnknownPolicy;
  readonly revision: string;
}

interface Known {
  readonly revision: string;
  readonly registry: SiteRegistry;
}

/**
 * @param options.nats null: without nudges, for tests and tools
 * @param options.onChange sites whose snapshot is another one now
 */
export function openRegistry(options: {
  readonly pool: Pool;
  readonly nats: NatsConnection | null;
  readonly logger: Logger;
  readonly onChange?: (sites: readonly string[]) => void;
}): Registry {
  const { pool, nats, logger } = options;
  let sites: ReadonlyMap<string, Known> = new Map();
  let types: ReadonlyMap<string, ReadonlyMap<string, Conversion> | null> = new Map();
  let typesRevision = '';
  let reading: Promise<void> = Promise.resolve();

  /** One after the other: an older answer must never follow a newer one. */
  function refresh(): Promise<void> {
    const next = reading.then(read, read);
    reading = next.catch(() => {});
    return next;
  }

  async function read(): Promise<void> {
    const { rows: revisions } = await pool.query<{ revision: string }>(
      'select revision::text from holdfast.registry_types_revision',
    );
    const revision = revisions[0]?.revision ?? '';
    const typesMoved = revision !== typesRevision;
    const readTypes = typesMoved ? await allTypes(pool, logger) : types;
    const { rows } = await pool.query<SiteRow>(
      'select site, unknown_devices, revision::text from holdfast.registry_site',
    );
    const next = new Map<string, Known>();
    const changed: string[] = [];
    for (const row of rows) {
      const known = sites.get(row.site);
      if (known && known.revision === row.revision && !typesMoved) {
        next.set(row.site, known);
        continue;
      }
      // The revision was read first: what is read now is that old or newer, and if newer it is read again.
      next.set(row.site, { revision: row.revision, registry: await siteRegistry(pool, row, readTypes) });
      changed.push(row.site);
    }
    for (const site of sites.keys()) if (!next.has(site)) changed.push(site);
    sites = next;
    types = readTypes;
    typesRevision = revision;
    if (changed.length > 0) options.onChange?.(changed);
  }

  const subscription = nats?.subscribe(REGISTRY_CHANGED_SUBJECT, {
    callback: error => {
      if (error) return;
      refresh().catch(reason => logger.debug({ reason: (reason as Error).message }, 'registry not read'));
    },
  });

  return {
    site: site => sites.get(site)?.registry ?? null,
    of: (site, device) => sites.get(site)?.registry.names.get(device)?.facts ?? null,
    refresh,
    async changed() {
      try {
        nats?.publish(REGISTRY_CHANGED_SUBJECT);
      } catch (error) {
        // The others read again by themselves, a little later.
        logger.debug({ reason: (error as Error).message }, 'registry: the other nodes are not told');
      }
      await refresh();
    },
    close: () => subscription?.unsubscribe(),
  };
}

async function allTypes(
  pool: Pool,
  logger: Logger,
): Promise<ReadonlyMap<string, ReadonlyMap<string, Conversion> | null>> {
  const { rows } = await pool.query<{
    id: string;
    description: string;
    metrics: unknown;
    retention: unknown;
  }>('select id, description, metrics, retention from holdfast.device_type');
  return new Map(
    rows.map(({ id, description, metrics, retention }) => {
      const parsed = TypeEntry.safeParse({ description, metrics, retention });
      // Somebody wrote it by hand: it must not keep the others (H).
      if (!parsed.success) logger.warn({ type: id, reason: parsed.error.message }, 'device type set aside');
      return [id, parsed.success ? conversionsOf(parsed.data) : null];
    }),
  );
}

async function siteRegistry(
  pool: Pool,
  { site, unknown_devices: unknownDevices }: SiteRow,
  types: ReadonlyMap<string, ReadonlyMap<string, Conversion> | null>,
): Promise<SiteRegistry> {
  const { rows: devices } = await pool.query<DeviceFacts & { device: string }>(
    `select device, display_name as "displayName", type, tags, groups, retired
       from holdfast.registry_device where site = $1`,
    [site],
  );
  const names = new Map<string, NameEntry>();
  for (const { device, ...facts } of devices) {
    const conversions = facts.type === null ? null : (types.get(facts.type) ?? null);
    names.set(device, { device, facts, conversions });
  }
  const { rows } = await pool.query<{ alias: string; device: string }>(
    'select alias, device from holdfast.device_alias where site = $1',
    [site],
  );
  const aliases = new Map<string, string>();
  for (const { alias, device } of rows) {
    const entry = names.get(device);
    // Read a moment later than the entries: what does not fit yet comes with the next revision.
    if (entry === undefined || names.has(alias)) continue;
    aliases.set(alias, device);
    names.set(alias, entry);
  }
  return { unknownDevices, names, aliases };
}
