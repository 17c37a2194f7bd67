/**
 * One history transaction: rows by binary COPY and quarantine, then fence, ledger, cursors, twins, incidents, marks,
 * minutes and summaries together with COMMIT in one last round trip (invariants A, B, D). Outcomes are values; only a
 * broken assumption throws.
 *
 *   begin → COPY → summaries to the stage → quarantine → [settle(…); marks; minutes; stage into summary; commit]
 *
 * What has a key of its own comes behind the fence: a writer that is paused before it holds up nobody (D).
 * All of it has one deadline: a connection that went silent is given up, not waited for (R).
 */
import { pipeline } from 'node:stream/promises';
import { DatabaseError, escapeLiteral, type Pool, type PoolClient } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { hasBug } from '../../protocol/planted-bug.ts';
import type { Lane } from '../../protocol/subjects.ts';
import type { IncidentTransition } from '../actors/incident.ts';
import { COPY_MESSAGES } from './copy-rows.ts';
import { COPY_SUMMARIES, MAKE_SUMMARY_STAGE, STORE_SUMMARIES } from './copy-summaries.ts';
import type { MinuteCount, RunCount, StatusCounts } from './tally.ts';

export interface QuarantineRow {
  readonly site: string;
  readonly gateway: string;
  readonly log: number;
  readonly sequence: number;
  readonly receivedAt: number;
  readonly reason: string;
  readonly topic: string;
  readonly payloadBytes: number;
  readonly payload: Uint8Array;
}

export interface MarkRow {
  readonly log: number;
  /** First sequence, and one past the last. */
  readonly from: number;
  readonly to: number;
  readonly status: 'quarantined' | 'expired' | 'lost' | 'thinned';
  /** How many messages of the range it concerns. */
  readonly messages: number;
  readonly reason: string;
}

export interface CursorMove {
  readonly lane: Lane;
  readonly created: string;
  readonly sequence: number;
}

export interface Transaction {
  readonly partition: number;
  readonly epoch: number;
  /** When the PostgreSQL started that all numbers in here were read of. */
  readonly serverStarted: string;
  /** The COPY stream, or null when there is no row. */
  readonly rows: Buffer | null;
  /** The same of summaries. */
  readonly summaries: Buffer | null;
  readonly quarantine: readonly QuarantineRow[];
  readonly marks: readonly MarkRow[];
  /** Per log, what this transaction settles, as `int8multirange` text, and how much of it not live and whole. */
  readonly ranges: readonly (StatusCounts & { readonly log: number; readonly ranges: string })[];
  readonly minutes: readonly MinuteCount[];
  readonly runs: readonly RunCount[];
  /** Rows and summaries that are too old to be stored. */
  readonly expiredRows: number;
  readonly cursors: readonly CursorMove[];
  readonly twins: readonly { site: string; device: string; version: number; state: string }[];
  readonly incidents: readonly IncidentTransition[];
}

export type CommitOutcome =
  | { readonly outcome: 'committed' }
  /** Another node owns the partition: nothing was written. */
  | { readonly outcome: 'stale-epoch' }
  /** Part of the ranges was settled before: read the ledger again. */
  | { readonly outcome: 'overlap' }
  /** Postgres refuses a value: look for the row. */
  | { readonly outcome: 'refused'; readonly reason: string }
  /** Given up for its time, by PostgreSQL or by this side, and perhaps written all the same: less at a time may do. */
  | { readonly outcome: 'too-slow'; readonly reason: string }
  /** Not now: connection gone, disk full, shutting down, or another start of PostgreSQL. Try the same again later. */
  | { readonly outcome: 'unavailable'; readonly reason: string };

export async function commitHistory(
  pool: Pool,
  work: Transaction,
  timeoutMs: number,
): Promise<CommitOutcome> {
  let client: PoolClient;
  try {
    client = await pool.connect();
  } catch (error) {
    return { outcome: 'unavailable', reason: (error as Error).message };
  }
  // Without a listener a lost connection between two statements would be an uncaught exception.
  let connectionError: Error | undefined;
  const onError = (error: Error) => {
    connectionError = error;
  };
  client.on('error', onError);
  const silence = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => silence.reject(new TooSlow(`PostgreSQL did not answer within ${timeoutMs} ms`)),
    timeoutMs,
  );
  let broken = false;
  try {
    await Promise.race([transact(client, work), silence.promise]);
    return { outcome: 'committed' };
  } catch (error) {
    // Only PostgreSQL's own answer says where the connection stands; after anything else it is given up.
    broken = !(error instanceof DatabaseError);
    if (!broken) {
      await Promise.race([client.query('rollback'), silence.promise]).catch(() => {
        broken = true;
      });
    }
    return outcomeOf(error as Error & { code?: string });
  } finally {
    clearTimeout(timer);
    client.off('error', onError);
    client.release(broken || connectionError !== undefined);
  }
}

async function transact(client: PoolClient, work: Transaction): Promise<void> {
  await client.query('begin');
  if (work.rows) await copyIn(client, COPY_MESSAGES, work.rows);
  if (work.summaries) {
    await client.query(MAKE_SUMMARY_STAGE);
    await copyIn(client, COPY_SUMMARIES, work.summaries);
  }
  if (work.quarantine.length > 0) await insertQuarantine(client, work.quarantine);
  const statements = [
    `select holdfast.expect_server(${escapeLiteral(work.serverStarted)})`,
    settleStatement(work),
  ];
  if (work.marks.length > 0) statements.push(markStatement(work.marks));
  if (work.runs.length > 0) statements.push(runStatement(work.runs));
  if (work.summaries) statements.push(STORE_SUMMARIES);
  await client.query([...statements, 'commit'].join('; '));
}

async function copyIn(client: PoolClient, statement: string, rows: Buffer): Promise<void> {
  const copy = client.query(copyFrom(statement));
  // Says so once more when its connection is given up, after the pipeline has stopped listening.
  copy.on('error', () => {});
  await pipeline([rows], copy);
}

const json = (value: unknown): string => `${escapeLiteral(JSON.stringify(value))}::jsonb`;

function settleStatement(work: Transaction): string {
  const incidents = work.incidents.map(incident => ({
    id: incident.id,
    rule: incident.rule,
    kind: incident.kind,
    severity: incident.severity,
    site: incident.site,
    device: incident.device,
    // Names of metrics are the devices' own: JSON for PostgreSQL holds neither U+0000 nor half of a surrogate pair.
    metric: incident.metric === null ? null : withoutNul(incident.metric).toWellFormed(),
    summary: withoutNul(incident.summary).toWellFormed(),
    threshold: incident.threshold,
    opened_at: incident.openedAt,
    opened_value: incident.openedValue,
    cleared_at: incident.clearedAt,
    cleared_value: incident.clearedValue,
    late: incident.late,
  }));
  const epoch = hasBug('skip-fence')
    ? `(select epoch from holdfast.partition where id = ${work.partition})`
    : work.epoch;
  return `select holdfast.settle(${work.partition}, ${epoch}, ${json(work.ranges)}, ${json(work.minutes)}, ${json(work.cursors)}, ${json(work.twins)}, ${json(incidents)})`;
}

class TooSlow extends Error {}

/** What an error means for the transaction. */
export function outcomeOf(error: Error & { code?: string }): CommitOutcome {
  const code = error.code ?? '';
  if (code === 'HF001') return { outcome: 'stale-epoch' };
  if (code === 'HF002') return { outcome: 'overlap' };
  // The day's table is not there, though it was made once: nothing is wrong with the row.
  if (code === '23514' && error.message.startsWith('no partition of relation'))
    return { outcome: 'unavailable', reason: error.message };
  // Class 22: data exception, 23: integrity constraint violation, 54: more than PostgreSQL can hold in one place.
  // A RangeError: more than a string or buffer of this process can hold, which never gets as far as PostgreSQL.
  if (/^(2[23]|54)/.test(code) || error instanceof RangeError) {
    return { outcome: 'refused', reason: error.message };
  }
  // 57014: statement_timeout. The words are those of the client's own query_timeout, which has no code.
  if (code === '57014' || error instanceof TooSlow || error.message === 'Query read timeout') {
    return { outcome: 'too-slow', reason: error.message };
  }
  // 53100: disk full. Said outright, as PostgreSQL's own words name a file and what to do, but not always this.
  if (code === '53100') return { outcome: 'unavailable', reason: `its disk is full: ${error.message}` };
  return { outcome: 'unavailable', reason: error.message };
}

async function insertQuarantine(client: PoolClient, rows: readonly QuarantineRow[]): Promise<void> {
  await client.query(
    `insert into holdfast.quarantine
       (site, gateway, log, sequence, received_at, reason, topic, payload_bytes, payload)
     select site, gateway, log, sequence, to_timestamp(received_at / 1000.0), reason, topic, payload_bytes, payload
       from unnest($1::text[], $2::text[], $3::int[], $4::bigint[], $5::float8[], $6::text[], $7::text[],
                   $8::int[], $9::bytea[])
         as r (site, gateway, log, sequence, received_at, reason, topic, payload_bytes, payload)`,
    [
      rows.map(row => row.site),
      rows.map(row => row.gateway),
      rows.map(row => row.log),
      rows.map(row => row.sequence),
      rows.map(row => row.receivedAt),
      rows.map(row => withoutNul(row.reason)),
      rows.map(row => withoutNul(row.topic)),
      rows.map(row => row.payloadBytes),
      rows.map(row => Buffer.from(row.payload)),
    ],
  );
}

function markStatement(marks: readonly MarkRow[]): string {
  const rows = marks.map(mark => ({
    log: mark.log,
    first: mark.from,
    past: mark.to,
    status: mark.status,
    messages: mark.messages,
    // JSON for PostgreSQL holds no half of a surrogate pair.
    reason: withoutNul(mark.reason).toWellFormed(),
  }));
  return `insert into holdfast.ledger_mark (log, range, status, messages, reason)
    select log, int8range(first, past), status, messages, reason
      from jsonb_to_recordset(${json(rows)})
        as r (log int, first bigint, past bigint, status text, messages bigint, reason text)
    on conflict (log, range, status) do nothing`;
}

/** Evenly, to the message: the shares of the minutes add up to the run. A minute that gets none is in it all the same. */
function runStatement(runs: readonly RunCount[]): string {
  return `insert into holdfast.ledger_minute as m (log, minute, status, messages)
    select log, to_timestamp((minute + i) * 60.0), status,
           sum(messages * (i + 1) / minutes - messages * i / minutes)
      from jsonb_to_recordset(${json(runs)})
        as r (log int, status text, messages bigint, minute bigint, minutes bigint), generate_series(0, minutes - 1) i
     group by log, minute + i, status
    on conflict (log, minute, status) do update set messages = m.messages + excluded.messages
     where excluded.messages > 0`;
}

/** PostgreSQL's text holds every character but U+0000. */
export const withoutNul = (text: string): string => text.replaceAll('\0', '\u2400');
