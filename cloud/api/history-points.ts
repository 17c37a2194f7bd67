/** One metric of one device over a range of time, from history. */
import type { Pool } from 'pg';
import type { Value } from '../../protocol/batch.ts';

export interface HistoryRange {
  readonly site: string;
  readonly device: string;
  readonly metric: string;
  /** Milliseconds since 1970, both ends included. */
  readonly from: number;
  readonly to: number;
  readonly pointsMax: number;
}

/** @returns `[at, value]` ascending; where there are more than `pointsMax`, the newest of them and `truncated`. */
export async function historyPoints(
  pool: Pool,
  range: HistoryRange,
): Promise<{ points: [number, Value][]; truncated: boolean }> {
  const { rows } = await pool.query<{
    at: number;
    value: number | null;
    text: string | null;
    truth: boolean | null;
  }>(
    `select extract(epoch from r.at)::float8 * 1000 as at,
            case when m.type = 'n' then r.numbers[m.position] end as value,
            case when m.type = 's' then r.texts[m.position] end as text,
            case when m.type = 'b' then r.numbers[m.position] <> 0 end as truth
       from holdfast.message r
       join holdfast.shape_metric m on m.shape = r.shape and m.name = $3
      where r.device = (select id from holdfast.device where site = $1 and name = $2)
        and r.at between to_timestamp($4 / 1000.0) and to_timestamp($5 / 1000.0)
      order by r.at desc, r.log desc, r.sequence desc, r.element desc
      limit $6`,
    [range.site, range.device, range.metric, range.from, range.to, range.pointsMax + 1],
  );
  const truncated = rows.length > range.pointsMax;
  const points = rows
    .slice(0, range.pointsMax)
    .reverse()
    .map(({ at, value, text, truth }): [number, Value] => [at, (value ?? text ?? truth) as Value]);
  return { points, truncated };
}
