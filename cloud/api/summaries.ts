/** What is left of one metric where its readings were thinned. */
import type { Pool } from 'pg';

export interface HistoryRange {
  readonly site: string;
  readonly device: string;
  readonly metric: string;
  /** Milliseconds since 1970, both ends included. */
  readonly from: number;
  readonly to: number;
  readonly pointsMax: number;
}

/** `[from, intervalMs, minimum, maximum, mean, count]`; `from` is the start of the interval, milliseconds since 1970. */
export type SummaryPoint = [
  from: number,
  intervalMs: number,
  minimum: number,
  maximum: number,
  mean: number,
  count: number,
];

/** The longest interval there is: what began that much earlier may reach into the range. */
const INTERVAL_MAX = '1 day';

/** @returns ascending, one per interval whatever the number of runs; where there are too many, the newest, and `truncated` */
export async function historySummaries(
  pool: Pool,
  range: HistoryRange,
): Promise<{ summaries: SummaryPoint[]; truncated: boolean }> {
  const { rows } = await pool.query<{ point: SummaryPoint }>(
    `select json_build_array(extract(epoch from time)::float8 * 1000, extract(epoch from interval)::float8 * 1000,
                             minimum, maximum, mean, count) as point
       from holdfast.thinned_reading
      where site = $1 and device = $2 and metric = $3
        and time > to_timestamp($4 / 1000.0) - interval '${INTERVAL_MAX}' and time <= to_timestamp($5 / 1000.0)
        and time + interval > to_timestamp($4 / 1000.0)
      order by time desc, interval desc
      limit $6`,
    [range.site, range.device, range.metric, range.from, range.to, range.pointsMax + 1],
  );
  const truncated = rows.length > range.pointsMax;
  return {
    summaries: rows
      .slice(0, range.pointsMax)
      .reverse()
      .map(({ point }) => point),
    truncated,
  };
}
