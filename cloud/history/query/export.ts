/**
 * A site's readings as text, in the order of device, metric and time: one series after the other, piece by
 * piece, so that what is in memory is two pieces and a buffer whatever the range (F). The next piece is
 * fetched while this one becomes text.
 */
import type { Pool } from 'pg';
import { storedDays, withinDays } from './days.ts';
import { type LineFormat, openLines } from './lines.ts';
import { DAY_US, type Range, timestampOf } from './micros.ts';
import { readSeries } from './series.ts';

export interface ExportRequest {
  readonly site: string;
  /** Null: all of them. */
  readonly device: string | null;
  readonly metric: string | null;
  readonly range: Range;
  readonly format: LineFormat;
}

const DEVICES_PER_PAGE = 500;

/** Buffers of some 256 KiB; they are the caller's. */
export async function* exportReadings(pool: Pool, request: ExportRequest): AsyncGenerator<Buffer> {
  const { site, metric } = request;
  const lines = openLines(request.format);
  const days = await storedDays(pool, request.range);
  const range = withinDays(request.range, days);
  if (range) {
    for await (const { id, name } of devicesOf(pool, request)) {
      for (const of of metric === null ? await metricsOf(pool, id, range) : [metric]) {
        for await (const slices of readSeries(pool, { device: id, metric: of, range, days, ahead: true })) {
          for (const slice of slices) yield* lines.add(site, name, slice);
        }
      }
    }
  }
  yield lines.rest();
}

async function* devicesOf(
  pool: Pool,
  { site, device }: ExportRequest,
): AsyncGenerator<{ id: number; name: string }> {
  for (let after = ''; ; ) {
    const { rows } = await pool.query<{ id: number; name: string }>(
      `select id, name from holdfast.device
        where site = $1 and ($2::text is null or name = $2) and name collate "C" > $3
        order by name collate "C" limit $4`,
      [site, device, after, DEVICES_PER_PAGE],
    );
    yield* rows;
    if (rows.length < DEVICES_PER_PAGE) return;
    after = rows.at(-1)!.name;
  }
}

/** Those that the device has in the range, by name. */
async function metricsOf(pool: Pool, device: number, range: Range): Promise<string[]> {
  const { rows } = await pool.query<{ name: string }>(
    `select name from (
       select distinct m.name from holdfast.shape_metric m where m.shape in (
         select shape from holdfast.chunk where device = $1 and at >= $2 and at < $4 and until >= $3
         union
         select shape from holdfast.message where device = $1 and at >= $3 and at < $4)) named
      order by name collate "C"`,
    [
      device,
      timestampOf(Math.floor(range.from / DAY_US) * DAY_US),
      timestampOf(range.from),
      timestampOf(range.to),
    ],
  );
  return rows.map(({ name }) => name);
}
