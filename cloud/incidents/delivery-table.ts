/** Deliveries in PostgreSQL: one operation per function, ownership in its WHERE (D). */
import type { Pool } from 'pg';
import type { Channel } from './channel.ts';
import type { Page, PageEvent, PageIncident } from './page.ts';

export interface OwnedPartition {
  readonly id: number;
  readonly epoch: number;
}

export interface MaintenanceWindow {
  readonly site: string;
  /** Milliseconds since 1970. */
  readonly from: number;
  readonly to: number;
}

export interface DuePage {
  readonly channel: string;
  readonly attempts: number;
  readonly page: Page;
}

/** What is to be written of one page to one channel. */
export interface DeliveryNote {
  readonly incident: string;
  readonly event: PageEvent;
  readonly channel: string;
  readonly partition: number;
  /** `pending`: it failed, and is tried again. */
  readonly state: 'pending' | 'delivered' | 'failed';
  readonly attempts: number;
  /** Milliseconds since 1970; of `pending`. */
  readonly nextAt: number | null;
  readonly reason: string | null;
  readonly digest: string | null;
}

/** Of the columns of incident `i`, as a page tells them. */
const PAGE_INCIDENT = `jsonb_build_object(
  'id', i.id, 'rule', i.rule, 'kind', i.kind, 'severity', i.severity, 'site', i.site, 'device', i.device,
  'metric', i.metric, 'summary', i.summary, 'threshold', i.threshold,
  'openedAt', (extract(epoch from i.opened_at) * 1000)::float8, 'openedValue', i.opened_value,
  'clearedAt', (extract(epoch from i.cleared_at) * 1000)::float8, 'clearedValue', i.cleared_value,
  'clearedBy', i.cleared_by)`;

export async function readChannels(pool: Pool): Promise<Channel[]> {
  const { rows } = await pool.query<Channel>(
    `select id, kind, target, secret, sites, severity_min as "severityMin", enabled
       from holdfast.channel order by id`,
  );
  return rows;
}

/** Those that have not ended, and those that ended a little while ago: a page may still be on its way. */
export async function readMaintenance(pool: Pool): Promise<MaintenanceWindow[]> {
  const { rows } = await pool.query<MaintenanceWindow>(
    `select site, (extract(epoch from starts_at) * 1000)::float8 as from,
            (extract(epoch from ends_at) * 1000)::float8 as to
       from holdfast.maintenance where ends_at > now() - interval '1 hour'`,
  );
  return rows;
}

/**
 * Takes what is due of the partitions, oldest first, at most `perChannelMax` of each channel, and only under epochs that
 * still hold. What was taken is due again after `takenMs`, for a later epoch at once. A clear whose opening is pending
 * is not due.
 */
export async function takeDue(
  pool: Pool,
  owned: readonly OwnedPartition[],
  perChannelMax: number,
  takenMs: number,
): Promise<DuePage[]> {
  const { rows } = await pool.query<{
    channel: string;
    event: PageEvent;
    attempts: number;
    partition: number;
    epoch: number;
    since: number;
    incident: PageIncident;
  }>(
    `with mine as (
       select p.id, p.epoch from unnest($1::int[], $2::bigint[]) as m (id, epoch)
         join holdfast.partition p on p.id = m.id and p.epoch = m.epoch
     ), due as (
       select d.incident, d.event, d.channel, d.epoch
         from holdfast.channel c
        cross join lateral (
          select d.incident, d.event, d.channel, mine.epoch
            from holdfast.delivery d join mine on mine.id = d.partition
           where d.channel = c.id and d.state = 'pending'
             and (d.next_attempt_at <= clock_timestamp() or d.taken_epoch not in (0, mine.epoch))
             and (d.event = 'opened' or not exists (
                   select from holdfast.delivery o
                    where o.incident = d.incident and o.channel = d.channel and o.event = 'opened' and o.state = 'pending'))
           order by d.next_attempt_at
           limit $3
        ) d
        where c.enabled
     ), taken as (
       update holdfast.delivery d
          set taken_epoch = due.epoch, next_attempt_at = clock_timestamp() + make_interval(secs => $4 / 1000.0)
         from due
        where d.incident = due.incident and d.event = due.event and d.channel = due.channel and d.state = 'pending'
       returning d.incident, d.event, d.channel, d.partition, d.attempts, d.created_at, due.epoch
     )
     select t.channel, t.event, t.attempts, t.partition, t.epoch::float8,
            (extract(epoch from t.created_at) * 1000)::float8 as since, ${PAGE_INCIDENT} as incident
       from taken t join holdfast.incident i on i.id = t.incident
      order by t.created_at, t.event desc`,
    [owned.map(({ id }) => id), owned.map(({ epoch }) => epoch), perChannelMax, takenMs],
  );
  return rows.map(({ channel, attempts, event, incident, partition, epoch, since }) => ({
    channel,
    attempts,
    page: { event, incident, partition, epoch, since },
  }));
}

/** What these partitions' channels were told of incidents that are open, or of late: `[incident, event, channel]`. */
export async function readDelivered(
  pool: Pool,
  partitions: readonly number[],
  max: number,
): Promise<[incident: string, event: PageEvent, channel: string][]> {
  const { rows } = await pool.query<{ incident: string; event: PageEvent; channel: string }>(
    `select d.incident, d.event, d.channel
       from holdfast.delivery d left join holdfast.incident i on i.id = d.incident
      where d.partition = any ($1) and d.state = 'delivered'
        and (i.cleared_at is null or d.done_at > now() - interval '1 hour')
      order by d.done_at desc limit $2`,
    [partitions, max],
  );
  return rows.map(({ incident, event, channel }) => [incident, event, channel]);
}

/**
 * Writes what became of pages. That one was delivered is a fact, under whatever epoch, and may be noted before the
 * incident itself is there; that one failed is noted of a row that is there.
 */
export async function writeNotes(pool: Pool, notes: readonly DeliveryNote[]): Promise<void> {
  if (notes.length === 0) return;
  await pool.query(
    `with note as (
       select * from jsonb_to_recordset($1::jsonb) as n (incident text, event text, channel text, partition int, state text,
              attempts int, "nextAt" float8, reason text, digest text)
     ), retried as (
       update holdfast.delivery d
          set attempts = n.attempts, last_error = n.reason, next_attempt_at = to_timestamp(n."nextAt" / 1000.0)
         from note n
        where n.state = 'pending' and d.state = 'pending'
          and d.incident = n.incident and d.event = n.event and d.channel = n.channel
     )
     insert into holdfast.delivery as d (incident, event, channel, partition, state, attempts, last_error, digest, done_at)
     select incident, event, channel, partition, state, attempts, reason, digest, clock_timestamp()
       from note where state <> 'pending'
     on conflict (incident, event, channel) do update
        set state = excluded.state, attempts = excluded.attempts, last_error = excluded.last_error,
            digest = excluded.digest, done_at = excluded.done_at
      where d.state = 'pending'`,
    [JSON.stringify(notes)],
  );
}

/** What is over for long, and deliveries to channels that are gone. */
export async function forgetOld(pool: Pool, olderThanMs: number): Promise<void> {
  await pool.query(
    `delete from holdfast.delivery d
      where (d.state <> 'pending' and d.done_at < now() - make_interval(secs => $1 / 1000.0))
         or not exists (select from holdfast.channel c where c.id = d.channel)`,
    [olderThanMs],
  );
}
