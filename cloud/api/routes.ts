/** The HTTP API: twins from Redis, history and incidents from Postgres, health from the node itself. */

import type { TemplatedApp } from 'uWebSockets.js';
import type { NatsConnection } from '@nats-io/transport-node';
import type { Pool } from 'pg';
import { z } from 'zod';
import { isSiteId } from '../../protocol/ids.ts';
import type { GatewayLink } from '../gateway-link.ts';
import type { Health } from '../health.ts';
import type { LiveState } from '../live-state.ts';
import type { Metrics } from '../metrics.ts';
import { siteCompleteness } from './completeness.ts';
import { registerHistoryRoutes } from './history-routes.ts';
import { type ChangeAccess, getJson, getText, Problem, type RouteRequest } from './http.ts';
import { registerIncidentRoutes } from './incidents.ts';
import { quarantined } from './records.ts';
import { registerRuleRoutes } from './rules.ts';
import { type SiteDirectory, siteNames } from './site-directory.ts';

const limit = (initial: number, max: number) => z.coerce.number().int().min(1).max(max).default(initial);
const site = z.string().refine(isSiteId, 'not a site name').optional();
const TwinsQuery = z.object({
  site,
  search: z.string().max(200).default(''),
  limit: limit(100, 1000),
  after: z.string().optional(),
});
const CompletenessQuery = z.object({ limit: limit(100, 1000) });
const QuarantineQuery = z.object({
  site,
  limit: limit(50, 1000),
  before: z.coerce.number().int().min(1).optional(),
});

export function registerRoutes(options: {
  app: TemplatedApp;
  pool: Pool;
  live: LiveState;
  gateways: GatewayLink;
  directory: SiteDirectory;
  health: () => Health;
  metrics: Metrics;
  /** Retired devices: they are in no list, and found by their name. */
  isHidden?: (site: string, device: string) => boolean;
  nats: NatsConnection;
  access: ChangeAccess;
  /** Whether webhooks may go to private addresses. */
  webhookPrivate: boolean;
  onError: (route: string, error: unknown) => void;
}): void {
  const { app, pool, live, directory, gateways } = options;
  const get = (pattern: string, handle: (request: RouteRequest) => unknown) =>
    getJson(app, pattern, handle, options.onError);

  get('/health', () => options.health());
  getText(app, '/metrics', options.metrics.contentType, options.metrics.text, options.onError);

  get('/sites', async () => {
    const present = [...gateways.gateways.values()];
    const sites = new Map((await directory.sites()).map(entry => [entry.site, entry]));
    // A gateway that has never had a message is there too: it says why, such as a broker that refuses it.
    for (const gateway of present) {
      if (!sites.has(gateway.site)) sites.set(gateway.site, { site: gateway.site, twins: 0 });
    }
    return {
      sites: [...sites.values()].map(entry => ({
        ...entry,
        gateways: present
          .filter(gateway => gateway.site === entry.site)
          .map(presence => {
            const { gateway, lastHelloAt, report } = presence;
            const silentSinceMs = gateways.silentSince(presence);
            const link = silentSinceMs === null ? 'up' : 'silent';
            return { gateway, lastHelloAt, link, silentSinceMs, ...report };
          }),
      })),
    };
  });

  get('/sites/:site/completeness', async ({ parameters: [siteName = ''], query }) => {
    const { limit: logsMax } = CompletenessQuery.parse(Object.fromEntries(query));
    const found = isSiteId(siteName)
      ? await siteCompleteness(pool, siteName, [...gateways.gateways.values()], logsMax)
      : null;
    if (!found) throw new Problem(404, 'Not found', `no site ${siteName}`);
    return found;
  });

  get('/twins', async request => {
    const query = TwinsQuery.parse(Object.fromEntries(request.query));
    const names = query.site ? [query.site] : siteNames(await directory.sites());
    const search = query.search.toLowerCase();
    const found: [string, string][] = [];
    for (const name of names) {
      for (const twin of (await live.devices(name)).sort()) {
        if (options.isHidden?.(name, twin)) continue;
        if (`${name}/${twin}`.toLowerCase().includes(search)) found.push([name, twin]);
      }
    }
    const start = query.after ? found.findIndex(([s, d]) => `${s}/${d}` > query.after!) : 0;
    const page = start < 0 ? [] : found.slice(start, start + query.limit);
    const twins = [];
    for (const [name, of] of Map.groupBy(page, ([s]) => s)) {
      twins.push(
        ...(await live.twins(
          name,
          of.map(([, d]) => d),
        )),
      );
    }
    const last = page.at(-1);
    const more = start >= 0 && start + page.length < found.length;
    return { twins, next: more && last ? last.join('/') : null, total: found.length };
  });

  get('/twins/:site/:device', async ({ parameters: [siteName = '', deviceName = ''] }) => {
    const twin = await live.twin(siteName, deviceName);
    if (!twin) throw new Problem(404, 'Not found', `no twin ${siteName}/${deviceName}`);
    // However new the values look: nobody has heard of the site since.
    return { ...twin, gatewaySilentSince: gateways.siteSilentSince(siteName) };
  });

  registerHistoryRoutes(options);
  registerIncidentRoutes(options);
  registerRuleRoutes(options);
  get('/quarantine', async ({ query }) =>
    quarantined(pool, QuarantineQuery.parse(Object.fromEntries(query))),
  );
}
