/** Maintenance of a site over HTTP: its incidents are recorded and page nobody, until a time that is always set. */
import type { TemplatedApp } from 'uWebSockets.js';
import type { Pool } from 'pg';
import { z } from 'zod';
import { type ChangeAccess, changeJson, getJson, Problem } from '../api/http.ts';
import { SiteName } from './model.ts';

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
export const MAINTENANCE_MS_MAX = 30 * DAY_MS;

const line = (charactersMax: number) =>
  z
    .string()
    .trim()
    .min(1)
    .max(charactersMax)
    .refine(
      text => !text.includes('\0') && text.isWellFormed(),
      'contains a character that cannot be stored',
    );

const Begin = z.strictObject({
  site: SiteName,
  forMs: z.number().int().min(MINUTE_MS, 'at least a minute').max(MAINTENANCE_MS_MAX, 'at most 30 days'),
  reason: line(500),
  by: line(200).optional(),
});
const Query = z.object({
  site: SiteName.optional(),
  /** `true`: those that are over, too. */
  past: z.enum(['true', 'false']).default('false'),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
});

const COLUMNS = `id::float8 as id, site, reason, by, extract(epoch from starts_at)::float8 * 1000 as "startsAt",
       extract(epoch from ends_at)::float8 * 1000 as "endsAt", ends_at > clock_timestamp() as "isOn"`;

export function registerMaintenanceRoutes(options: {
  readonly app: TemplatedApp;
  readonly pool: Pool;
  readonly access: ChangeAccess;
  readonly onError: (route: string, error: unknown) => void;
}): void {
  const { app, pool, access, onError } = options;
  getJson(
    app,
    '/maintenance',
    async ({ query }) => {
      const { site, past, limit } = Query.parse(Object.fromEntries(query));
      const { rows } = await pool.query(
        `select ${COLUMNS} from holdfast.maintenance
          where ($1::text is null or site = $1) and ($2 or ends_at > clock_timestamp())
          order by id desc limit $3`,
        [site ?? null, past === 'true', limit],
      );
      return { maintenance: rows };
    },
    onError,
  );
  changeJson(
    app,
    'post',
    '/maintenance',
    async ({ body }) => {
      const { site, forMs, reason, by } = Begin.parse(body);
      const { rows } = await pool.query(
        `insert into holdfast.maintenance (site, reason, by, ends_at)
         values ($1, $2, $3, clock_timestamp() + make_interval(secs => $4::float8 / 1000)) returning ${COLUMNS}`,
        [site, reason, by ?? null, forMs],
      );
      return rows[0];
    },
    access,
    onError,
  );
  changeJson(
    app,
    'del',
    '/maintenance/:id',
    async ({ parameters: [id = ''] }) => {
      if (!/^\d{1,15}$/.test(id)) throw new Problem(404, 'Not found', `no maintenance ${id}`);
      const { rows } = await pool.query(
        `update holdfast.maintenance
            set ends_at = greatest(least(ends_at, clock_timestamp()), starts_at + interval '1 microsecond')
          where id = $1 returning ${COLUMNS}`,
        [Number(id)],
      );
      if (rows.length === 0) throw new Problem(404, 'Not found', `no maintenance ${id}`);
      return rows[0];
    },
    access,
    onError,
  );
}
