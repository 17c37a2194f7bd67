/** Incidents in PostgreSQL as people see and change them: one operation per function. */
import type { Pool } from 'pg';
import type { IncidentKind, Severity } from '../actors/incident.ts';

export type IncidentState = 'open' | 'acknowledged' | 'cleared';

/** Times are milliseconds since 1970. */
export interface Incident {
  readonly id: string;
  readonly rule: string;
  readonly kind: IncidentKind;
  readonly severity: Severity;
  readonly state: IncidentState;
  readonly site: string;
  readonly device: string | null;
  readonly metric: string | null;
  readonly summary: string;
  readonly threshold: number | null;
  readonly openedAt: number;
  readonly openedValue: number | null;
  readonly acknowledgedAt: number | null;
  readonly acknowledgedBy: string | null;
  readonly acknowledgeNote: string | null;
  readonly clearedAt: number | null;
  readonly clearedValue: number | null;
  /** Null when the readings cleared it. */
  readonly clearedBy: string | null;
  readonly clearNote: string | null;
  readonly late: boolean;
  readonly maintenance: boolean;
}

export interface DeliveryView {
  readonly channel: string;
  readonly event: 'opened' | 'cleared';
  readonly state: 'pending' | 'delivered' | 'failed';
  readonly attempts: number;
  readonly lastError: string | null;
  readonly digest: string | null;
  readonly doneAt: number | null;
}

export interface IncidentFilter {
  readonly site?: string | undefined;
  readonly device?: string | undefined;
  readonly severity?: Severity | undefined;
  readonly state?: IncidentState | undefined;
  readonly late?: boolean | undefined;
  /** Opened from this time on, and before that one. */
  readonly from?: number | undefined;
  readonly to?: number | undefined;
  readonly limit: number;
  readonly after?: PageStart | undefined;
}

/** Where a page of the list starts: behind this incident. */
export interface PageStart {
  /** Microseconds since 1970, PostgreSQL's own grain. */
  readonly openedAtUs: number;
  readonly id: string;
}

const time = (column: string) => `(extract(epoch from ${column}) * 1000)::float8`;
const STATE = `case when cleared_at is not null then 'cleared' when acknowledged_at is not null then 'acknowledged' else 'open' end`;
const COLUMNS = `id, rule, kind, severity, ${STATE} as state, site, device, metric, summary, threshold,
  ${time('opened_at')} as "openedAt", opened_value as "openedValue",
  ${time('acknowledged_at')} as "acknowledgedAt", acknowledged_by as "acknowledgedBy", acknowledge_note as "acknowledgeNote",
  ${time('cleared_at')} as "clearedAt", cleared_value as "clearedValue", cleared_by as "clearedBy", clear_note as "clearNote",
  late, maintenance`;

/** Newest first. */
export async function listIncidents(
  pool: Pool,
  filter: IncidentFilter,
): Promise<{ incidents: Incident[]; next: PageStart | null }> {
  const { rows } = await pool.query<Incident & { openedAtUs: number }>(
    `select ${COLUMNS}, (extract(epoch from opened_at) * 1e6)::float8 as "openedAtUs"
       from holdfast.incident
      where ($1::text is null or site = $1) and ($2::text is null or device = $2)
        and ($3::text is null or severity = $3) and ($4::text is null or ${STATE} = $4)
        and ($5::boolean is null or late = $5)
        and ($6::float8 is null or opened_at >= to_timestamp($6 / 1000.0))
        and ($7::float8 is null or opened_at < to_timestamp($7 / 1000.0))
        and ($8::float8 is null or opened_at < ${AFTER} or (opened_at = ${AFTER} and id > $9))
      order by opened_at desc, id limit $10`,
    [
      filter.site ?? null,
      filter.device ?? null,
      filter.severity ?? null,
      filter.state ?? null,
      filter.late ?? null,
      filter.from ?? null,
      filter.to ?? null,
      filter.after?.openedAtUs ?? null,
      filter.after?.id ?? null,
      filter.limit + 1,
    ],
  );
  const page = rows.slice(0, filter.limit);
  const last = page.at(-1);
  return {
    incidents: page.map(({ openedAtUs: _, ...incident }) => incident),
    next: rows.length > page.length && last ? { openedAtUs: last.openedAtUs, id: last.id } : null,
  };
}

/** Whole microseconds: `to_timestamp` of a fraction would be off by one now and then. */
const AFTER = `('epoch'::timestamptz + $8::float8 * interval '1 microsecond')`;

export async function findIncident(
  pool: Pool,
  id: string,
): Promise<(Incident & { deliveries: DeliveryView[] }) | null> {
  const { rows } = await pool.query<Incident>(`select ${COLUMNS} from holdfast.incident where id = $1`, [id]);
  if (!rows[0]) return null;
  const { rows: deliveries } = await pool.query<DeliveryView>(
    `select channel, event, state, attempts, last_error as "lastError", digest, ${time('done_at')} as "doneAt"
       from holdfast.delivery where incident = $1 order by channel, event desc`,
    [id],
  );
  return { ...rows[0], deliveries };
}

/** The first who acknowledges is kept. @returns the incident, or null when there is none */
export async function acknowledgeIncident(
  pool: Pool,
  id: string,
  by: string,
  note: string | null,
): Promise<Incident | null> {
  await pool.query(
    `update holdfast.incident
        set acknowledged_at = clock_timestamp(), acknowledged_by = $2, acknowledge_note = $3
      where id = $1 and acknowledged_at is null and cleared_at is null`,
    [id, by, note],
  );
  return readIncident(pool, id);
}

/** Clears one that is open, and lets those know who were told that it opened. @returns it, or null when there is none */
export async function clearIncident(
  pool: Pool,
  id: string,
  by: string,
  note: string | null,
): Promise<Incident | null> {
  await pool.query(
    `with cleared as (
       update holdfast.incident
          set cleared_at = clock_timestamp(), cleared_by = $2, clear_note = $3
        where id = $1 and cleared_at is null
       returning id
     )
     insert into holdfast.delivery (incident, event, channel, partition)
     select d.incident, 'cleared', d.channel, d.partition
       from cleared join holdfast.delivery d on d.incident = cleared.id and d.event = 'opened'
     on conflict (incident, event, channel) do nothing`,
    [id, by, note],
  );
  return readIncident(pool, id);
}

async function readIncident(pool: Pool, id: string): Promise<Incident | null> {
  const { rows } = await pool.query<Incident>(`select ${COLUMNS} from holdfast.incident where id = $1`, [id]);
  return rows[0] ?? null;
}

/** Rows that go in one statement. */
const FORGOTTEN_AT_ONCE = 10_000;

/** Forgets what was over by then. @param beforeMs milliseconds since 1970 */
export async function forgetOldIncidents(pool: Pool, beforeMs: number): Promise<void> {
  for (let gone = FORGOTTEN_AT_ONCE; gone === FORGOTTEN_AT_ONCE; ) {
    const { rowCount } = await pool.query(
      `delete from holdfast.incident where id in (
         select id from holdfast.incident
          where opened_at < to_timestamp($1 / 1000.0) and cleared_at < to_timestamp($1 / 1000.0)
          order by opened_at limit ${FORGOTTEN_AT_ONCE})`,
      [beforeMs],
    );
    gone = rowCount ?? 0;
  }
}
