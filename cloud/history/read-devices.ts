/** Devices and their messages out of history, a page at a time: for what reads through months of it (F). */
import type { Pool } from 'pg';
import type { Value } from '../../protocol/batch.ts';
import type { Traits } from '../actors/rule.ts';

export interface HistoryDevice {
  readonly id: number;
  readonly site: string;
  readonly device: string;
  readonly traits: Traits | null;
}

export interface HistoryReading {
  readonly at: number;
  readonly log: string;
  readonly sequence: number;
  readonly element: number;
  readonly metrics: readonly string[];
  readonly values: readonly Value[];
}

const DEVICES_PER_PAGE = 500;
const MESSAGES_PER_PAGE = 5000;

/** In the order they were first heard. */
export async function* readDevices(
  pool: Pool,
  { site, device }: { readonly site: string | null; readonly device: string | null },
): AsyncGenerator<HistoryDevice> {
  for (let after = 0; ; ) {
    const { rows } = await pool.query<{
      id: number;
      site: string;
      device: string;
      type: string | null;
      tags: string[] | null;
      groups: string[] | null;
    }>(
      `select d.id, d.site, d.name as device, r.type, r.tags, r.groups
         from holdfast.device d left join holdfast.registry_device r on r.site = d.site and r.device = d.name
        where d.id > $1 and ($2::text is null or d.site = $2) and ($3::text is null or d.name = $3)
        order by d.id limit $4`,
      [after, site, device, DEVICES_PER_PAGE],
    );
    for (const { id, type, tags, groups, ...named } of rows) {
      yield { id, ...named, traits: tags ? { type, tags, groups: groups ?? [] } : null };
    }
    if (rows.length < DEVICES_PER_PAGE) return;
    after = rows.at(-1)!.id;
  }
}

/**
 * A device's messages in the order of their times.
 * @param metrics whose numbers are read; a message without any of them comes with none
 * @param from, to milliseconds since 1970, both ends included
 */
export async function* readMessages(
  pool: Pool,
  device: number,
  metrics: readonly string[],
  from: number,
  to: number,
): AsyncGenerator<HistoryReading> {
  let after: readonly [string, number, string, number] | null = null;
  for (;;) {
    const { rows }: { rows: MessageRow[] } = await pool.query<MessageRow>(
      `select r.at::text as key, extract(epoch from r.at)::float8 * 1000 as at, r.log, l.log_id as "logId",
              r.sequence::text as sequence, r.element,
              (select coalesce(json_object_agg(m.name, r.numbers[m.position]), '{}')
                 from holdfast.shape_metric m
                where m.shape = r.shape and m.type = 'n' and m.name = any ($4)) as numbers
         from holdfast.message r join holdfast.gateway_log l on l.id = r.log
        where r.device = $1 and r.at between to_timestamp($2 / 1000.0) and to_timestamp($3 / 1000.0)
          and ($5::timestamptz is null
               or (r.at >= $5 and (r.at, r.log, r.sequence, r.element) > ($5, $6::int, $7::bigint, $8::int)))
        order by r.at, r.log, r.sequence, r.element
        limit $9`,
      [device, from, to, metrics, ...(after ?? [null, null, null, null]), MESSAGES_PER_PAGE],
    );
    for (const { at, logId, sequence, element, numbers } of rows) {
      yield {
        at,
        log: logId,
        sequence: Number(sequence),
        element,
        metrics: Object.keys(numbers),
        values: Object.values(numbers),
      };
    }
    const last = rows.at(-1);
    if (!last || rows.length < MESSAGES_PER_PAGE) return;
    after = [last.key, last.log, last.sequence, last.element];
  }
}

interface MessageRow {
  key: string;
  at: number;
  log: number;
  logId: string;
  sequence: string;
  element: number;
  numbers: Record<string, number>;
}
