/**
 * Gives the stream's space back behind what history has handled, on all partitions together: one purge by sequence,
 * which drops whole blocks. (A purge by subject writes a tombstone per message, each on disk before the next: it was seen
 * to stop the stream for 400 ms.)
 *
 * The cursors come from Postgres, so any node may do it for all. A lane that is quiet does not hold the others
 * back: its last message lies behind its cursor, so there is nothing of it that is still needed.
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { Pool } from 'pg';
import { INGEST_STREAM, parseIngestSubject, partitionOf } from '../protocol/subjects.ts';

/** Messages behind the cursor that stay, for a Postgres that was restored to a moment ago. */
const PURGE_LAG = 1000;
/** Not worth a purge below this. */
const PURGE_AT_LEAST = 1000;
/** Quiet subjects looked at in one go; with more of them the purge waits for the next time. */
const LOOK_UPS_MAX = 1000;

/** @returns the first sequence that stays, or null when nothing was purged */
export async function purgeHandled(
  manager: JetStreamManager,
  pool: Pool,
  partitions: number,
): Promise<number | null> {
  const { created, state } = await manager.streams.info(INGEST_STREAM, {
    subjects_filter: `${INGEST_STREAM}.>`,
  });
  const { rows } = await pool.query<{ lane: string; sequence: string }>(
    `select partition || '.' || lane as lane, stream_sequence as sequence
       from holdfast.stream_cursor where stream_created = $1`,
    [created],
  );
  const handled = new Map(rows.map(row => [row.lane, Number(row.sequence)]));
  const subjects = Object.keys(state.subjects ?? {})
    .filter(subject => isRead(subject, partitions))
    .map(subject => ({ subject, cursor: handled.get(laneOf(subject)) ?? 0 }))
    .sort((a, b) => a.cursor - b.cursor);

  let keepFrom = state.last_seq + 1;
  let lookUps = 0;
  for (const { subject, cursor } of subjects) {
    if (cursor + 1 >= keepFrom - PURGE_LAG) break;
    if (++lookUps > LOOK_UPS_MAX || (await lastSequence(manager, subject)) > cursor) {
      keepFrom = cursor + 1;
      break;
    }
  }
  const first = keepFrom - PURGE_LAG;
  if (first < state.first_seq + PURGE_AT_LEAST) return null;
  await manager.streams.purge(INGEST_STREAM, { seq: first });
  return first;
}

async function lastSequence(manager: JetStreamManager, subject: string): Promise<number> {
  const message = await manager.streams.getMessage(INGEST_STREAM, { last_by_subj: subject });
  return message?.seq ?? 0;
}

/** What nobody will ever read holds nobody back: a subject of no partition, or of a site in the wrong one (H). */
function isRead(subject: string, partitions: number): boolean {
  const address = parseIngestSubject(subject);
  return address !== null && partitionOf(address.site, partitions) === address.partition;
}

function laneOf(subject: string): string {
  const address = parseIngestSubject(subject);
  return address ? `${address.partition}.${address.lane}` : subject;
}
