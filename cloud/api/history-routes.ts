/** History over HTTP: charts of one device, several series at a time, raw readings in pages, and exports. */
import type { TemplatedApp } from 'uWebSockets.js';
import type { Pool } from 'pg';
import { z } from 'zod';
import { isDeviceId, isSiteId } from '../../protocol/ids.ts';
import type { GatewayLink } from '../gateway-link.ts';
import { storedDays, withinDays } from '../history/query/days.ts';
import { deviceNumbers, isKnownSite } from '../history/query/device-numbers.ts';
import { type DownsampleOutcome, downsample, pointsOf, type RawSeries } from '../history/query/downsample.ts';
import { exportReadings } from '../history/query/export.ts';
import { millisOf, type Range, rangeOf } from '../history/query/micros.ts';
import { cursorText, parseCursor, readPage } from '../history/query/page.ts';
import { TooManyAtOnce } from '../history/query/pieces.ts';
import { readNewest } from '../history/query/series.ts';
import { getJson, Problem, type RouteRequest } from './http.ts';
import { ledgerShades, missingShades, type Shade } from './shades.ts';
import { getStream } from './stream.ts';
import { historySummaries } from './summaries.ts';

const limit = (initial: number, max: number) => z.coerce.number().int().min(1).max(max).default(initial);
/** Milliseconds since 1970, or ISO 8601; within what PostgreSQL and JavaScript both hold. */
const time = z.union([
  z.coerce.number().min(Date.UTC(0)).max(8.64e15),
  z.iso.datetime({ offset: true }).transform(text => Date.parse(text)),
]);
const metric = z
  .string()
  .min(1)
  .refine(text => !text.includes('\0'), 'contains U+0000');
const site = z.string().refine(isSiteId, 'not a site name');
const device = z.string().refine(isDeviceId, 'not a device name');
const times = { from: time.optional(), to: time.optional() };

const POINTS_MAX = 10_000;
const TwinQuery = z.object({
  ...{ metric, ...times },
  limit: limit(20_000, 50_000),
  points: z.coerce.number().int().min(1).max(POINTS_MAX).optional(),
});
const SERIES_MAX = 50;
const SeriesQuery = z.object({
  ...{ site, ...times },
  device: z.array(device).min(1, 'name at least one'),
  metric: z.array(metric).min(1, 'name at least one'),
  points: limit(1000, POINTS_MAX),
});
const RawQuery = z.object({
  ...{ site, device, metric, ...times },
  limit: limit(10_000, 50_000),
  after: z.string().max(100).optional(),
});
const all = z.literal('*').transform(() => null);
const ExportQuery = z.object({
  ...{ site, ...times },
  device: z.union([all, device]).default(null),
  metric: z.union([all, metric]).default(null),
  format: z.enum(['csv', 'ndjson']).default('csv'),
});

const HOUR_MS = 3_600_000;
const EXPORTS_AT_ONCE_MAX = 4;

export function registerHistoryRoutes(options: {
  readonly app: TemplatedApp;
  readonly pool: Pool;
  readonly gateways: GatewayLink;
  readonly onError: (route: string, error: unknown) => void;
}): void {
  const { app, pool, gateways, onError } = options;
  const get = (pattern: string, handle: (request: RouteRequest) => Promise<unknown>) =>
    getJson(app, pattern, request => handle(request).catch(asTold), onError);

  async function shadesOf(siteName: string, range: { from: number; to: number }): Promise<Shade[]> {
    const heard = [...gateways.gateways.values()]
      .filter(presence => presence.site === siteName)
      .map(presence => ({ ...presence, silentSince: gateways.silentSince(presence) }));
    const noted = await ledgerShades(pool, siteName, range);
    return [...noted, ...missingShades(heard, range, Date.now())];
  }

  get('/twins/:site/:device/history', async ({ parameters: [siteName = '', deviceName = ''], query }) => {
    if (!isSiteId(siteName) || !isDeviceId(deviceName)) {
      throw new Problem(404, 'Not found', `no twin ${siteName}/${deviceName}`);
    }
    const asked = TwinQuery.parse(Object.fromEntries(query));
    const { from, to } = timesOf(asked);
    const named = { site: siteName, device: deviceName, metric: asked.metric };
    if (asked.points !== undefined) {
      const [found] = await downsampled(pool, siteName, [deviceName], [asked.metric], {
        range: rangeOf(from, to),
        pointsMax: asked.points,
      });
      return { ...named, ...found, shades: await shadesOf(siteName, { from, to }) };
    }
    const [raw, thinned, shades] = await Promise.all([
      newestPoints(pool, named, rangeOf(from, to), asked.limit),
      historySummaries(pool, { ...named, from, to, pointsMax: asked.limit }),
      shadesOf(siteName, { from, to }),
    ]);
    return {
      ...{ ...named, points: raw.points, summaries: thinned.summaries, shades },
      truncated: raw.truncated || thinned.truncated,
    };
  });

  get('/history', async ({ query }) => {
    const asked = SeriesQuery.parse({
      ...Object.fromEntries(query),
      device: query.getAll('device'),
      metric: query.getAll('metric'),
    });
    const { from, to } = timesOf(asked);
    const devices = [...new Set(asked.device)];
    const metrics = [...new Set(asked.metric)];
    const count = devices.length * metrics.length;
    if (count > SERIES_MAX) {
      const detail = `${count} series (devices × metrics): at most ${SERIES_MAX} at a time`;
      throw new Problem(400, 'Bad request', detail);
    }
    const range = rangeOf(from, to);
    return {
      ...{ site: asked.site, from, to },
      series: await downsampled(pool, asked.site, devices, metrics, { range, pointsMax: asked.points }),
    };
  });

  get('/history/raw', async ({ query }) => {
    const asked = RawQuery.parse(Object.fromEntries(query));
    const { from, to } = timesOf(asked);
    const after = asked.after === undefined ? null : parseCursor(asked.after);
    if (asked.after !== undefined && !after) {
      throw new Problem(400, 'Bad request', 'after: expected the `next` of a page before');
    }
    const id = (await deviceNumbers(pool, asked.site, [asked.device])).get(asked.device);
    if (id === undefined) return { rows: [], next: null };
    const series = { device: id, metric: asked.metric };
    const page = await readPage(pool, series, rangeOf(from, to), { limit: asked.limit, after });
    return { rows: page.rows, next: page.next && cursorText(page.next) };
  });

  getStream(
    app,
    '/history/export',
    async query => {
      const asked = ExportQuery.parse(Object.fromEntries(query));
      const { from = Number.NEGATIVE_INFINITY, to = Number.POSITIVE_INFINITY } = asked;
      if (from > to) throw new Problem(400, 'Bad request', 'from lies after to');
      const range = rangeOf(from, to);
      const isKnown =
        asked.device === null
          ? await isKnownSite(pool, asked.site)
          : (await deviceNumbers(pool, asked.site, [asked.device])).size > 0;
      if (!isKnown) {
        const name = asked.device === null ? asked.site : `${asked.site}/${asked.device}`;
        throw new Problem(404, 'Not found', `history has nothing of ${name}`);
      }
      return {
        contentType: asked.format === 'csv' ? 'text/csv; charset=utf-8' : 'application/x-ndjson',
        fileName: `${asked.site}.${asked.format}`,
        headers: daysHeader(range, await storedDays(pool, range)),
        parts: told(exportReadings(pool, { ...asked, range })),
      };
    },
    { atOnceMax: EXPORTS_AT_ONCE_MAX, onError },
  );
}

/** The first day of an export and the last one, for whoever shows how far it is. */
function daysHeader(range: Range, days: readonly number[]): Record<string, string> {
  const within = withinDays(range, days);
  if (!within) return {};
  const day = (time: number) => new Date(millisOf(time)).toISOString().slice(0, 10);
  return { 'holdfast-days': `${day(within.from)}/${day(within.to - 1)}` };
}

/** By default the last hour. */
function timesOf({ from, to }: { from?: number | undefined; to?: number | undefined }) {
  const until = to ?? Date.now();
  const since = from ?? until - HOUR_MS;
  if (since > until) throw new Problem(400, 'Bad request', 'from lies after to');
  return { from: since, to: until };
}

/** Nobody but who asked can do something about it. */
function asTold(error: unknown): never {
  throw error instanceof TooManyAtOnce ? new Problem(400, 'Too much', error.message) : error;
}

async function* told<T>(parts: AsyncIterable<T>): AsyncGenerator<T> {
  try {
    yield* parts;
  } catch (error) {
    asTold(error);
  }
}

const EMPTY: RawSeries = { level: 'raw', bucketMs: null, points: [], summaries: [], truncated: false };

/** A series that history does not know is empty. */
async function downsampled(
  pool: Pool,
  siteName: string,
  devices: readonly string[],
  metrics: readonly string[],
  { range, pointsMax }: { range: Range; pointsMax: number },
) {
  const ids = await deviceNumbers(pool, siteName, devices);
  const days = await storedDays(pool, range);
  const wanted = devices.flatMap(name => metrics.map(of => ({ device: name, metric: of })));
  const known = wanted.flatMap(({ device: name, metric: of }) => {
    const id = ids.get(name);
    return id === undefined ? [] : [{ device: id, metric: of }];
  });
  const answer = await downsample(pool, { series: known, range, pointsMax, days });
  if (answer.outcome === 'too-many') throw new Problem(400, 'Too much', tooMuchText(answer));
  const found = answer.series.values();
  return wanted.map(of => ({ ...of, ...(ids.has(of.device) ? found.next().value! : EMPTY) }));
}

function tooMuchText({ readings, readingsMax }: DownsampleOutcome & { outcome: 'too-many' }): string {
  return (
    `${readings} readings would have to be read, at most ${readingsMax} are: ask for fewer points ` +
    '(buckets of an hour and more cost nothing), a shorter time, or fewer series'
  );
}

async function newestPoints(
  pool: Pool,
  { site: siteName, device: name, metric: of }: { site: string; device: string; metric: string },
  range: Range,
  pointsMax: number,
): Promise<Pick<RawSeries, 'points' | 'truncated'>> {
  const id = (await deviceNumbers(pool, siteName, [name])).get(name);
  if (id === undefined) return { points: [], truncated: false };
  const days = await storedDays(pool, range);
  const newest = await readNewest(pool, { device: id, metric: of, range, days }, pointsMax);
  return { points: pointsOf(newest.slices), truncated: newest.more };
}
