/** Devices and their messages out of history, a piece at a time: for what reads through months of it (F). */
import type { Pool } from 'pg';
import type { Value } from '../../protocol/batch.ts';
import type { Traits } from '../actors/rule.ts';
import { storedDays, withinDays } from './query/days.ts';
import { millisOf, rangeOf } from './query/micros.ts';
import { type Piece, readPieces } from './query/pieces.ts';
import { type Column, inOneOrder } from './query/runs.ts';

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
 * A device's messages in the order of their times, those that are compacted and those that are not.
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
  const asked = rangeOf(from, to);
  const days = await storedDays(pool, asked);
  const range = withinDays(asked, days);
  if (!range) return;
  const logs = new Map<number, string>();
  const pieces = readPieces(pool, { device, metrics, range, days, withBare: true, ahead: true });
  for await (const piece of pieces) {
    await nameLogs(pool, logs, piece);
    const columns = new Map(piece.runs.map(({ run, columns: of }) => [run, of.filter(isNumber)]));
    // One column per run stands for its messages.
    const heads = piece.runs.map(({ run }): Column => ({ run, metric: '', type: 'n', position: 0 }));
    for (const { column, from: first, to: end } of inOneOrder(heads, piece.range)) {
      const { run } = column;
      const { at, sequence, element } = run.messages();
      const numbers = columns.get(run)!;
      const names = numbers.map(({ metric }) => metric);
      const values = numbers.map(({ position }) => run.numbers(position));
      for (let i = first; i < end; i++) {
        yield {
          at: millisOf(at[i]!),
          log: logs.get(run.log)!,
          sequence: sequence[i]!,
          element: element[i]!,
          metrics: names,
          values: values.map(of => of[i]!),
        };
      }
    }
  }
}

const isNumber = ({ type }: Column): boolean => type === 'n';

/** Logs that were not met before. A device has few: one for every start of its gateway (F). */
async function nameLogs(pool: Pool, names: Map<number, string>, piece: Piece): Promise<void> {
  const unknown = [...new Set(piece.runs.map(({ run }) => run.log))].filter(log => !names.has(log));
  if (unknown.length === 0) return;
  const { rows } = await pool.query<{ id: number; name: string }>(
    'select id, log_id as name from holdfast.gateway_log where id = any ($1)',
    [unknown],
  );
  for (const { id, name } of rows) names.set(id, name);
}
