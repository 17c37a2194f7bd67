/**
 * The registry in PostgreSQL: one operation per function. What changes a site's entries goes through {@link changeSite},
 * which moves the site's revision in the same transaction and so lets one change at a time through.
 */
import type { Pool, PoolClient } from 'pg';
import { committedWhenDone } from '../in-transaction.ts';
import { type DevicePatch, registryLimits, type TypeEntry, type UnknownPolicy } from './model.ts';

export interface TypeRow extends TypeEntry {
  readonly id: string;
}

export interface DeviceRow {
  readonly site: string;
  readonly device: string;
  readonly displayName: string | null;
  readonly type: string | null;
  readonly tags: string[];
  readonly groups: string[];
  readonly metadata: Record<string, unknown>;
  readonly retired: boolean;
  /** Other names that its readings come under. */
  readonly aliases: string[];
  /** Milliseconds since 1970. */
  readonly changedAt: number;
}

/** `refused` says why, for a person. */
export type ChangeOutcome = { readonly outcome: 'done' } | Refusal;
export type Refusal = { readonly outcome: 'not-found' | 'conflict'; readonly reason: string };

const done: ChangeOutcome = { outcome: 'done' };
const conflict = (reason: string): Refusal => ({ outcome: 'conflict', reason });
const notFound = (reason: string): Refusal => ({ outcome: 'not-found', reason });

const DEVICE_COLUMNS = `r.site, r.device, r.display_name as "displayName", r.type, r.tags, r.groups, r.metadata, r.retired,
       array(select alias from holdfast.device_alias a where a.site = r.site and a.device = r.device order by alias) as aliases,
       extract(epoch from r.changed_at)::float8 * 1000 as "changedAt"`;

/** A change of a site's entries. The site's row is locked first: changes of one site follow one another. */
export const changeSite = <T extends { readonly outcome: string }>(
  pool: Pool,
  site: string,
  work: (client: PoolClient) => Promise<T>,
): Promise<T> =>
  committedWhenDone(pool, async client => {
    await client.query('select holdfast.touch_registry($1)', [site]);
    return work(client);
  });

export async function listTypes(pool: Pool, page: { limit: number; after: string }): Promise<TypeRow[]> {
  const { rows } = await pool.query<TypeRow>(
    'select id, description, metrics, retention from holdfast.device_type where id > $1 order by id limit $2',
    [page.after, page.limit],
  );
  return rows;
}

export const putType = (pool: Pool, id: string, entry: TypeEntry): Promise<ChangeOutcome> =>
  committedWhenDone(pool, async client => {
    await client.query('update holdfast.registry_types_revision set revision = revision + 1');
    const { rowCount } = await client.query(
      `insert into holdfast.device_type (id, description, metrics, retention)
       select $1, $2, $3, $5
        where exists (select from holdfast.device_type where id = $1)
           or (select count(*) from holdfast.device_type) < $4
       on conflict (id) do update set description = $2, metrics = $3, retention = $5, changed_at = now()`,
      [
        ...[id, entry.description, JSON.stringify(entry.metrics), registryLimits.typesMax],
        JSON.stringify(entry.retention),
      ],
    );
    return rowCount === 1 ? done : conflict(`there are ${registryLimits.typesMax} types already`);
  });

export const deleteType = (pool: Pool, id: string): Promise<ChangeOutcome> =>
  committedWhenDone(pool, async client => {
    await client.query('update holdfast.registry_types_revision set revision = revision + 1');
    const { rows } = await client.query('select from holdfast.registry_device where type = $1 limit 1', [id]);
    if (rows.length > 0) return conflict(`there are devices of the type ${id}`);
    const { rowCount } = await client.query('delete from holdfast.device_type where id = $1', [id]);
    return rowCount === 1 ? done : notFound(`no type ${id}`);
  });

export interface DevicesWanted {
  readonly site?: string | undefined;
  readonly type?: string | undefined;
  readonly tag?: string | undefined;
  readonly group?: string | undefined;
  readonly search?: string | undefined;
  /** Retired ones, the others, or (undefined) all. */
  readonly retired?: boolean | undefined;
  readonly limit: number;
  /** `site/device` of the last one that was seen. */
  readonly after: { readonly site: string; readonly device: string } | null;
}

export async function listDevices(pool: Pool, wanted: DevicesWanted): Promise<DeviceRow[]> {
  const { rows } = await pool.query<DeviceRow>(
    `select ${DEVICE_COLUMNS} from holdfast.registry_device r
      where ($1::text is null or r.site = $1) and ($2::text is null or r.type = $2)
        and ($3::text is null or $3 = any (r.tags)) and ($4::text is null or $4 = any (r.groups))
        and ($5::boolean is null or r.retired = $5)
        and ($6::text is null or (r.site, r.device) > ($6, $7))
        and ($8::text is null or position(lower($8) in lower(concat_ws(' ', r.site || '/' || r.device, r.display_name))) > 0)
      order by r.site, r.device limit $9`,
    [
      wanted.site ?? null,
      wanted.type ?? null,
      wanted.tag ?? null,
      wanted.group ?? null,
      wanted.retired ?? null,
      wanted.after?.site ?? null,
      wanted.after?.device ?? null,
      wanted.search || null,
      wanted.limit,
    ],
  );
  return rows;
}

/** By its own name or one of its aliases. */
export async function findDevice(pool: Pool, site: string, name: string): Promise<DeviceRow | null> {
  const { rows } = await pool.query<DeviceRow>(
    `select ${DEVICE_COLUMNS} from holdfast.registry_device r
      where r.site = $1
        and r.device = coalesce((select device from holdfast.device_alias where site = $1 and alias = $2), $2)`,
    [site, name],
  );
  return rows[0] ?? null;
}

/** Whether history has rows, or a twin, under just that name. */
export async function isInHistory(client: Pool | PoolClient, site: string, device: string): Promise<boolean> {
  const { rows } = await client.query(
    `select from holdfast.device where site = $1 and name = $2
     union all select from holdfast.twin where site = $1 and device = $2 limit 1`,
    [site, device],
  );
  return rows.length > 0;
}

/** Makes the entry when there is none; what the patch does not name stays. */
export async function patchDevice(
  client: PoolClient,
  site: string,
  device: string,
  patch: DevicePatch & { readonly retired?: boolean },
): Promise<ChangeOutcome> {
  const of = await aliasTarget(client, site, device);
  if (of !== null) return conflict(`${device} is another name of ${of}`);
  if (patch.type) {
    const { rows } = await client.query('select from holdfast.device_type where id = $1', [patch.type]);
    if (rows.length === 0) return notFound(`no type ${patch.type}`);
  }
  const { rowCount } = await client.query(
    `insert into holdfast.registry_device (site, device) select $1, $2
      where not exists (select from holdfast.registry_device where site = $1 and device = $2)
        and (select count(*) from holdfast.registry_device where site = $1) < $3`,
    [site, device, registryLimits.devicesPerSiteMax],
  );
  const { rowCount: changed } = await client.query(
    `update holdfast.registry_device
        set display_name = case when $3 then $4 else display_name end,
            type = case when $5 then $6 else type end,
            tags = coalesce($7, tags), groups = coalesce($8, groups), metadata = coalesce($9::jsonb, metadata),
            retired = coalesce($10, retired), changed_at = now()
      where site = $1 and device = $2`,
    [
      site,
      device,
      patch.displayName !== undefined,
      patch.displayName ?? null,
      patch.type !== undefined,
      patch.type ?? null,
      patch.tags ?? null,
      patch.groups ?? null,
      patch.metadata === undefined ? null : JSON.stringify(patch.metadata),
      patch.retired ?? null,
    ],
  );
  return rowCount === 1 || changed === 1
    ? done
    : conflict(`the site has ${registryLimits.devicesPerSiteMax} entries already`);
}

/** The entry and its aliases; what history has of the device stays. */
export async function deleteDevice(client: PoolClient, site: string, device: string): Promise<ChangeOutcome> {
  await client.query('delete from holdfast.device_alias where site = $1 and device = $2', [site, device]);
  const { rowCount } = await client.query(
    'delete from holdfast.registry_device where site = $1 and device = $2',
    [site, device],
  );
  return rowCount === 1 ? done : notFound(`no entry of ${site}/${device}`);
}

export async function putPolicy(
  client: PoolClient,
  site: string,
  unknownDevices: UnknownPolicy,
): Promise<ChangeOutcome> {
  await client.query('update holdfast.registry_site set unknown_devices = $2 where site = $1', [
    site,
    unknownDevices,
  ]);
  return done;
}

/** What comes under the name `hardware` is the device's from now on, and so is what came under it before. */
export async function replaceHardware(
  client: PoolClient,
  site: string,
  device: string,
  hardware: string,
): Promise<ChangeOutcome> {
  if (device === hardware) return conflict('both are the same name');
  const existing = await aliasTarget(client, site, hardware);
  if (existing === device) return done;
  if (existing !== null) return conflict(`${hardware} stands for ${existing} already`);
  const of = await aliasTarget(client, site, device);
  if (of !== null) return conflict(`${device} is another name of ${of}: name that one`);
  if (await hasEntry(client, site, hardware)) {
    return conflict(`${hardware} has an entry of its own: delete that first`);
  }
  if (!(await hasEntry(client, site, device)) && !(await isInHistory(client, site, device))) {
    return notFound(`no device ${site}/${device}`);
  }
  const entered = await patchDevice(client, site, device, { retired: false });
  if (entered.outcome !== 'done') return entered;
  return addAlias(client, site, hardware, device);
}

/** The name changes everywhere: rows hold a device's number, so history follows; what still comes under `from` is the device's. */
export async function renameDevice(
  client: PoolClient,
  site: string,
  from: string,
  to: string,
): Promise<ChangeOutcome> {
  if (from === to) return conflict('both are the same name');
  const of = await aliasTarget(client, site, from);
  if (of === to) return done;
  if (of !== null) return conflict(`${from} is another name of ${of}: name that one`);
  const taken = await aliasTarget(client, site, to);
  if (taken !== null && taken !== from) return conflict(`${to} stands for ${taken} already`);
  if ((await hasEntry(client, site, to)) || (await isInHistory(client, site, to))) {
    return conflict(`there is a device ${site}/${to}: to give it the place of ${from}, use replace`);
  }
  if (!(await hasEntry(client, site, from)) && !(await isInHistory(client, site, from))) {
    return notFound(`no device ${site}/${from}`);
  }
  const entered = await patchDevice(client, site, from, {});
  if (entered.outcome !== 'done') return entered;
  await client.query('delete from holdfast.device_alias where site = $1 and alias = $2', [site, to]);
  for (const statement of [
    'update holdfast.registry_device set device = $3, changed_at = now() where site = $1 and device = $2',
    'update holdfast.device_alias set device = $3, changed_at = now() where site = $1 and device = $2',
    'update holdfast.device set name = $3 where site = $1 and name = $2',
    'update holdfast.incident set device = $3 where site = $1 and device = $2',
    'update holdfast.rule set device = $3 where site = $1 and device = $2',
  ]) {
    await client.query(statement, [site, from, to]);
  }
  return addAlias(client, site, from, to);
}

async function addAlias(
  client: PoolClient,
  site: string,
  alias: string,
  device: string,
): Promise<ChangeOutcome> {
  const { rowCount } = await client.query(
    `insert into holdfast.device_alias (site, alias, device) select $1, $2, $3
      where (select count(*) from holdfast.device_alias where site = $1 and device = $3) < $4`,
    [site, alias, device, registryLimits.aliasesPerDeviceMax],
  );
  return rowCount === 1
    ? done
    : conflict(`${device} has ${registryLimits.aliasesPerDeviceMax} other names already`);
}

async function aliasTarget(client: PoolClient, site: string, name: string): Promise<string | null> {
  const { rows } = await client.query<{ device: string }>(
    'select device from holdfast.device_alias where site = $1 and alias = $2',
    [site, name],
  );
  return rows[0]?.device ?? null;
}

async function hasEntry(client: PoolClient, site: string, device: string): Promise<boolean> {
  const { rows } = await client.query(
    'select from holdfast.registry_device where site = $1 and device = $2',
    [site, device],
  );
  return rows.length > 0;
}
