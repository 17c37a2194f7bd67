/**
 * The history writer of one partition: gathers batches, drops what the ledger has, commits, tells the gateways.
 *
 *   enqueue ─▶ queue ─▶ gather ─▶ commit ──committed──▶ onSettled
 *                ▲                  │ unavailable: wait, same again     (R)
 *                │                  │ overlap: read the ledger again    (B)
 *                │                  │ too slow: halve until it is not, never quarantine
 *                └── budget ◀───────┤ refused: halve until the poison row is alone, quarantine it (H);
 *                                   │          a thinned run is one piece: its kept rows are tried without it
 *                                   └ stale-epoch: stop for good        (D)
 *
 * The queue is bounded by a budget that all partitions of the node share; the pump waits when it is used up (F).
 */
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { Batch } from '../../protocol/batch.ts';
import type { GatewayId, SiteId } from '../../protocol/ids.ts';
import { limits } from '../../protocol/limits.ts';
import { hasBug } from '../../protocol/planted-bug.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import type { Lane } from '../../protocol/subjects.ts';
import type { IncidentTransition } from '../actors/incident.ts';
import type { TwinState } from '../actors/twin.ts';
import { keptMessageOf } from '../registry/kept-message.ts';
import type { Budget } from './budget.ts';
import { type CommitOutcome, type CursorMove, commitHistory, outcomeOf, type Transaction } from './commit.ts';
import type { Dictionary } from './dictionary.ts';
import { minutesOfRun } from './tally.ts';
import { buildTransaction } from './transaction.ts';
import { halve, isWholeRun, piecesOf, type Work } from './work.ts';

export interface HistoryItem {
  readonly lane: Lane;
  /** Identity of the stream and the message's sequence in it; null for what did not come by the stream. */
  readonly stream: { readonly created: string; readonly sequence: number } | null;
  readonly site: SiteId;
  readonly gateway: GatewayId;
  /** Null: nothing to write, the cursor moves on. */
  readonly batch: Batch | null;
  /** Set when the content could not be decoded: the whole range is quarantined with it. */
  readonly poison: { readonly reason: string; readonly bytes: Uint8Array } | null;
  readonly twins: readonly TwinState[];
  readonly transitions: readonly IncidentTransition[];
  /** Memory it holds, for the budget. */
  readonly bytes: number;
}

export interface SettledNotice {
  readonly site: SiteId;
  readonly gateway: GatewayId;
  readonly logId: string;
  readonly ranges: RangeSet;
}

export interface HistoryWriter {
  enqueue(item: HistoryItem): void;
  /** Items that history does not have yet. */
  readonly queued: number;
  /** Why PostgreSQL does not take what is first in the queue; null while it does. It is tried again for ever. */
  readonly trouble: string | null;
  /** Commits what is queued and stops. Returns within the time, even when a commit hangs. */
  close(deadlineMs: number): Promise<void>;
}

/** Rows in one transaction: some 100 ms of Postgres work at most. */
const ROWS_PER_TRANSACTION = 50_000;
/** Twins go into one JSON value, of which PostgreSQL takes 256 MB. */
const TWINS_PER_TRANSACTION = 20_000;
/** A transaction that takes longer is given up and tried again (R). */
const COMMIT_TIMEOUT_MS = 60_000;

export function openHistoryWriter(options: {
  pool: Pool;
  dictionary: Dictionary;
  partition: number;
  epoch: number;
  budget: Budget;
  logger: Logger;
  /** Transactions of a partition start at least this far apart, so that twins and cursors are written once for many batches. */
  commitIntervalMs: number;
  retentionMs: number;
  commitTimeoutMs?: number;
  now: () => number;
  onSettled: (
    notices: readonly SettledNotice[],
    cursors: readonly CursorMove[],
    incidents: readonly IncidentTransition[],
  ) => void;
  /** Rows and summaries of a committed transaction that were older than the retention time and are not stored. */
  onExpired?: (rows: number) => void;
  onStaleEpoch: () => void;
}): HistoryWriter {
  const { pool, dictionary, partition, budget, logger } = options;
  const { commitTimeoutMs = COMMIT_TIMEOUT_MS } = options;
  const queue: HistoryItem[] = [];
  let phase: 'open' | 'closing' | 'closed' = 'open';
  let wake: () => void = () => {};
  let lastReason = '';
  let working = 0;

  const running = run();

  async function run(): Promise<void> {
    while (phase !== 'closed') {
      if (queue.length === 0) {
        if (phase === 'closing') return;
        await new Promise<void>(resolve => {
          wake = resolve;
        });
        continue;
      }
      const startedAt = performance.now();
      const items = takeItems();
      working = items.length;
      await settleItems(items);
      working = 0;
      budget.release(bytesOf(items));
      const spent = performance.now() - startedAt;
      if (phase === 'open' && spent < options.commitIntervalMs) await pause(options.commitIntervalMs - spent);
    }
  }

  function takeItems(): HistoryItem[] {
    let rows = 0;
    let count = 0;
    const twins = new Set<string>();
    while (count < queue.length && rows < ROWS_PER_TRANSACTION) {
      const item = queue[count]!;
      for (const twin of item.twins) twins.add(`${twin.site}/${twin.device}`);
      if (count > 0 && twins.size > TWINS_PER_TRANSACTION) break;
      rows += rowsOf(item.batch, options.now());
      count++;
    }
    return queue.splice(0, count);
  }

  /** Retries until the items are settled, or the partition is not ours any more. */
  async function settleItems(items: readonly HistoryItem[]): Promise<void> {
    let waitMs = 50;
    while (phase !== 'closed') {
      const outcome = await attempt(items);
      if (outcome.outcome === 'committed') {
        if (lastReason) logger.info({ partition }, 'history: writing again');
        lastReason = '';
        return;
      }
      if (outcome.outcome === 'stale-epoch') {
        phase = 'closed';
        options.onStaleEpoch();
        return;
      }
      if (outcome.outcome === 'overlap') {
        for (const item of items) {
          if (item.batch) dictionary.forgetLog(item.site, item.gateway, item.batch.logId);
        }
        continue;
      }
      if (outcome.reason !== lastReason) {
        logger.warn({ partition, reason: outcome.reason }, 'history: Postgres does not take rows, retrying');
        lastReason = outcome.reason;
      }
      dictionary.forgetAll();
      await pause(waitMs * (0.5 + Math.random()));
      waitMs = Math.min(waitMs * 2, 2000);
    }
  }

  async function attempt(items: readonly HistoryItem[]): Promise<CommitOutcome> {
    let works: Work[];
    try {
      works = await unsettled(items);
    } catch (error) {
      const outcome = outcomeOf(error as Error);
      // Whatever it is, no row is to blame: none was offered.
      return outcome.outcome === 'unavailable'
        ? outcome
        : { outcome: 'unavailable', reason: (error as Error).message };
    }
    return commitWorks(works, items);
  }

  /** What of the items the ledger lacks; the same sequences twice within `items` count once. */
  async function unsettled(items: readonly HistoryItem[]): Promise<Work[]> {
    const works: Work[] = [];
    // By number: another partition may empty the dictionary meanwhile, and the log comes back as another entry (B).
    const taken = new Map<number, RangeSet>();
    for (const item of items) {
      const { batch } = item;
      if (!batch) continue;
      const log = await dictionary.log(item.site, item.gateway, batch.logId);
      const before = taken.get(log.id) ?? RangeSet.empty;
      const fresh = RangeSet.of(batch.firstSequence, batch.firstSequence + batch.count)
        .difference(hasBug('skip-ledger') ? RangeSet.empty : log.settled)
        .difference(before);
      if (fresh.isEmpty) continue;
      taken.set(log.id, before.union(fresh));
      works.push({ item: { ...item, batch }, log, fresh });
    }
    return works;
  }

  /** Commits `works`; `items` are those whose cursors, twins and incidents go along. */
  async function commitWorks(works: readonly Work[], items: readonly HistoryItem[]): Promise<CommitOutcome> {
    let transaction: Transaction;
    try {
      transaction = await buildTransaction(works, items, options);
    } catch (error) {
      const outcome = outcomeOf(error as Error);
      return outcome.outcome === 'refused' ? isolate(works, items, outcome.reason) : outcome;
    }
    if (hasBug('acknowledge-before-commit')) announce(works, transaction);
    const outcome = await commitHistory(pool, transaction, commitTimeoutMs);
    if (outcome.outcome === 'refused') return isolate(works, items, outcome.reason);
    if (outcome.outcome === 'too-slow') {
      const { reason } = outcome;
      // What is too slow alone is not to blame: it is tried again, not quarantined (A).
      if (totalOf(works) <= 1 && items.length === 0) return { outcome: 'unavailable', reason };
      logger.warn({ partition, reason }, 'history: a transaction takes too long, trying it in parts');
      return isolate(works, items, reason);
    }
    if (outcome.outcome === 'committed') announce(works, transaction);
    return outcome;
  }

  /** Halves the work until the row that Postgres refuses is alone, and quarantines that one (H); or until it is not too slow. */
  async function isolate(
    works: readonly Work[],
    items: readonly HistoryItem[],
    reason: string,
  ): Promise<CommitOutcome> {
    const total = totalOf(works);
    if (total === 0) {
      if (items.length < 2) return { outcome: 'unavailable', reason };
      // All rows are in; what goes along may only be too much at a time.
      const middle = Math.floor(items.length / 2);
      const outcome = await commitWorks([], items.slice(0, middle));
      return outcome.outcome === 'committed' ? commitWorks([], items.slice(middle)) : outcome;
    }
    if (total === 1) {
      // First without what goes along: a twin or incident that is refused must not put the blame on a good row (A).
      if (items.length > 0) {
        const alone = await commitWorks(works, []);
        return alone.outcome === 'committed' ? commitWorks([], items) : alone;
      }
      const work = works[0]!;
      const { item } = work;
      if (item.poison) return { outcome: 'unavailable', reason };
      const refused = `refused by PostgreSQL: ${reason}`;
      // Events and status must not go down with a summary, or with one bad row among them (A).
      if (isWholeRun(work)) return commitWorks([{ ...work, refused }], []);
      const bytes =
        item.batch.settlement === 'raw'
          ? keptMessageOf(item.batch, work.fresh.ranges[0]!.from)
          : new Uint8Array();
      const poison = { reason: refused, bytes };
      return commitWorks([{ ...work, item: { ...item, poison } }], []);
    }
    const [first, second] = halve(works, Math.floor(total / 2));
    const outcome = await commitWorks(first, []);
    return outcome.outcome === 'committed' ? commitWorks(second, items) : outcome;
  }

  function announce(works: readonly Work[], transaction: Transaction): void {
    for (const { item, fresh } of works) {
      dictionary.noteSettled(item.site, item.gateway, item.batch.logId, fresh);
    }
    const notices = works.map(({ item, fresh }) => ({
      site: item.site,
      gateway: item.gateway,
      logId: item.batch.logId,
      ranges: fresh,
    }));
    options.onSettled(notices, transaction.cursors, transaction.incidents);
    if (transaction.expiredRows > 0) options.onExpired?.(transaction.expiredRows);
  }

  return {
    get queued() {
      return queue.length + working;
    },
    get trouble() {
      return lastReason || null;
    },
    enqueue(item) {
      if (phase === 'closed') return;
      budget.take(item.bytes);
      queue.push(item);
      wake();
    },
    async close(deadlineMs) {
      if (phase === 'open') phase = 'closing';
      wake();
      const deadline = Promise.withResolvers<void>();
      const timer = setTimeout(deadline.resolve, deadlineMs);
      await Promise.race([running, deadline.promise]);
      clearTimeout(timer);
      // A commit that hangs ends by its own deadline; nothing starts after it. What was not committed is in the stream, and
      // its next owner's to write.
      phase = 'closed';
      budget.release(bytesOf(queue.splice(0)));
    },
  };
}

const bytesOf = (items: readonly HistoryItem[]): number => items.reduce((sum, item) => sum + item.bytes, 0);
const totalOf = (works: readonly Work[]): number => works.reduce((sum, work) => sum + piecesOf(work), 0);

/** What a batch costs PostgreSQL: a thinned run has a row in the ledger by time for each of its minutes. */
export function rowsOf(batch: Batch | null, nowMs: number): number {
  if (batch?.settlement === 'raw') return batch.rows.length;
  if (batch?.settlement === 'thinned') {
    const { kept, summaries, receivedFrom, receivedTo } = batch;
    const latestMs = nowMs + limits.futureToleranceMs;
    const run = minutesOfRun({ arrivedFrom: receivedFrom, arrivedTo: receivedTo }, nowMs, latestMs);
    return kept.rows.length + summaries.length + run.minutes;
  }
  return 1;
}

const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms));
