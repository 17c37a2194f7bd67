/** The registry over HTTP: types, devices, a site's policy, and the moves of a device's life. */
import type { TemplatedApp } from 'uWebSockets.js';
import type { Pool } from 'pg';
import { z } from 'zod';
import {
  type ChangeAccess,
  type ChangeMethod,
  type ChangeRequest,
  changeJson,
  getJson,
  Problem,
} from '../api/http.ts';
import { DeviceName, DevicePatch, SiteName, TypeEntry, TypeName, unknownPolicies } from './model.ts';
import { moveHistory } from './move-history.ts';
import type { Registry } from './registry.ts';
import {
  type ChangeOutcome,
  changeSite,
  deleteDevice,
  deleteType,
  findDevice,
  isInHistory,
  listDevices,
  listTypes,
  patchDevice,
  putPolicy,
  putType,
  renameDevice,
  replaceHardware,
} from './store.ts';

const limit = (initial: number, max: number) => z.coerce.number().int().min(1).max(max).default(initial);
const TypesQuery = z.object({ limit: limit(100, 1000), after: z.string().max(200).default('') });
const DevicesQuery = z.object({
  site: SiteName.optional(),
  type: z.string().max(200).optional(),
  tag: z.string().max(200).optional(),
  group: z.string().max(200).optional(),
  search: z.string().max(200).optional(),
  state: z.enum(['active', 'retired', 'all']).default('active'),
  limit: limit(100, 1000),
  after: z.string().max(300).optional(),
});
const Policy = z.strictObject({ unknownDevices: z.enum(unknownPolicies) });
const Replace = z.strictObject({ hardware: DeviceName });
const Rename = z.strictObject({ to: DeviceName });

/** @throws Problem when it was refused */
export function settled(outcome: ChangeOutcome): void {
  if (outcome.outcome === 'not-found') throw new Problem(404, 'Not found', outcome.reason);
  if (outcome.outcome === 'conflict') throw new Problem(409, 'Conflict', outcome.reason);
}

export function registerRegistryRoutes(options: {
  readonly app: TemplatedApp;
  readonly pool: Pool;
  readonly registry: Registry;
  readonly access: ChangeAccess;
  readonly onError: (route: string, error: unknown) => void;
}): void {
  const { app, pool, registry, access, onError } = options;
  const get = (pattern: string, handle: Parameters<typeof getJson>[2]) =>
    getJson(app, pattern, handle, onError);
  const change = (
    method: ChangeMethod,
    pattern: string,
    handle: (request: ChangeRequest) => Promise<unknown>,
  ) =>
    changeJson(
      app,
      method,
      pattern,
      async request => {
        const answer = await handle(request);
        await registry.changed();
        return answer;
      },
      access,
      onError,
    );

  get('/registry/types', async ({ query }) => {
    const page = TypesQuery.parse(Object.fromEntries(query));
    const types = await listTypes(pool, page);
    return { types, next: types.length === page.limit ? types.at(-1)!.id : null };
  });
  change('put', '/registry/types/:id', async ({ parameters: [id], body }) => {
    settled(await putType(pool, TypeName.parse(id), TypeEntry.parse(body ?? {})));
  });
  change('del', '/registry/types/:id', async ({ parameters: [id = ''] }) => {
    settled(await deleteType(pool, id));
  });

  get('/registry/sites/:site', ({ parameters: [site] }) => {
    const known = registry.site(SiteName.parse(site));
    return { site, unknownDevices: known?.unknownDevices ?? 'admit' };
  });
  change('put', '/registry/sites/:site', async ({ parameters: [site], body }) => {
    const { unknownDevices } = Policy.parse(body);
    const name = SiteName.parse(site);
    settled(await changeSite(pool, name, client => putPolicy(client, name, unknownDevices)));
    return { site: name, unknownDevices };
  });

  get('/registry/devices', async ({ query }) => {
    const { state, after, ...wanted } = DevicesQuery.parse(Object.fromEntries(query));
    const devices = await listDevices(pool, {
      ...wanted,
      retired: state === 'all' ? undefined : state === 'retired',
      after: after === undefined ? null : placeOf(after),
    });
    const last = devices.at(-1);
    const next = last && devices.length === wanted.limit ? `${last.site}/${last.device}` : null;
    return { devices, next };
  });
  get('/registry/devices/:site/:device', async ({ parameters: [site = '', device = ''] }) => {
    const found = await findDevice(pool, site, device);
    if (found) return found;
    const heard = await isInHistory(pool, site, device);
    const reason = heard ? `${site}/${device} is heard, and has no entry` : `no device ${site}/${device}`;
    throw new Problem(404, 'Not found', reason);
  });

  const changeDevice = (
    method: ChangeMethod,
    path: string,
    handle: (
      site: string,
      device: string,
      body: unknown,
    ) => (client: Parameters<typeof patchDevice>[0]) => Promise<ChangeOutcome>,
    nameAfter: (device: string, body: unknown) => string = device => device,
  ) =>
    change(method, `/registry/devices/:site/:device${path}`, async ({ parameters, body }) => {
      const site = SiteName.parse(parameters[0]);
      const device = DeviceName.parse(parameters[1]);
      settled(await changeSite(pool, site, handle(site, device, body)));
      // What is left is moved again from time to time, so its failing now is no failure of the change.
      if (path === '/replace' || path === '/rename')
        await moveHistory(pool, site).catch(error => onError(path, error));
      return method === 'del' ? undefined : await findDevice(pool, site, nameAfter(device, body));
    });
  changeDevice('patch', '', (site, device, body) => {
    const patch = DevicePatch.parse(body ?? {});
    return client => patchDevice(client, site, device, patch);
  });
  changeDevice('del', '', (site, device) => client => deleteDevice(client, site, device));
  changeDevice(
    'post',
    '/retire',
    (site, device) => async client =>
      (await isThere(client, site, device)) ?? patchDevice(client, site, device, { retired: true }),
  );
  changeDevice(
    'post',
    '/restore',
    (site, device) => async client =>
      (await isThere(client, site, device)) ?? patchDevice(client, site, device, { retired: false }),
  );
  changeDevice('post', '/replace', (site, device, body) => {
    const { hardware } = Replace.parse(body);
    return client => replaceHardware(client, site, device, hardware);
  });
  changeDevice(
    'post',
    '/rename',
    (site, device, body) => {
      const { to } = Rename.parse(body);
      return client => renameDevice(client, site, device, to);
    },
    (_, body) => Rename.parse(body).to,
  );
}

/** @returns the refusal when nobody knows the device: a misspelt name must not become an entry */
async function isThere(
  client: Parameters<typeof patchDevice>[0],
  site: string,
  device: string,
): Promise<ChangeOutcome | null> {
  const { rows } = await client.query(
    'select from holdfast.registry_device where site = $1 and device = $2',
    [site, device],
  );
  if (rows.length > 0 || (await isInHistory(client, site, device))) return null;
  return { outcome: 'not-found', reason: `no device ${site}/${device}` };
}

function placeOf(after: string): { site: string; device: string } {
  const slash = after.indexOf('/');
  return { site: after.slice(0, Math.max(0, slash)), device: after.slice(slash + 1) };
}
