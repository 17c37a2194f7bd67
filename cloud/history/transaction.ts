/**
 * What one history transaction writes, made of stretches of batches that the ledger lacks. No connection is held while
 * it is made.
 *
 *   raw        rows; what was set aside is quarantined, what is too old is expired
 *   lost       a mark
 *   thinned    whole: kept rows as of a raw batch, summaries, one mark for the run
 *              in part: kept rows of the fresh sequences; the others are lost, for their summaries would count
 *              readings again that are settled already (B)
 *   poison     a mark and one quarantine entry, whatever the batch is (H)
 */
import type { ReadingsBatch, ThinnedBatch } from '../../protocol/batch.ts';
import { kinds } from '../../protocol/batch.ts';
import { correctedAt, forEachRow } from '../../protocol/batch-rows.ts';
import { limits } from '../../protocol/limits.ts';
import { hasBug } from '../../protocol/planted-bug.ts';
import { type Range, RangeSet } from '../../protocol/range-set.ts';
import type { Lane } from '../../protocol/subjects.ts';
import type { TwinState } from '../actors/twin.ts';
import { storeTwin } from '../twin-json.ts';
import type { CursorMove, MarkRow, QuarantineRow, Transaction } from './commit.ts';
import { copyBuffer, LATEST_CLAIM_MS } from './copy-rows.ts';
import { copySummaries, type SummaryRow } from './copy-summaries.ts';
import type { Dictionary } from './dictionary.ts';
import { summaryRows } from './summary-rows.ts';
import { newTally, type Tally } from './tally.ts';
import { isWholeRun, type Work } from './work.ts';
import type { HistoryItem } from './writer.ts';

export interface TransactionContext {
  readonly dictionary: Dictionary;
  readonly partition: number;
  readonly epoch: number;
  readonly retentionMs: number;
  readonly now: () => number;
}

const DAY_MS = 86_400_000;
const TOO_OLD = 'older than the retention time';
const SETTLED_IN_PART =
  'part of this thinned run was settled before: its summaries would count readings a second time';

/** All that is gathered for one transaction. */
interface Content {
  readonly context: TransactionContext;
  readonly nowMs: number;
  readonly rows: ReturnType<typeof copyBuffer>;
  readonly days: Set<string>;
  readonly summaries: SummaryRow[];
  readonly quarantine: QuarantineRow[];
  readonly marks: MarkRow[];
  readonly tally: Tally;
  expiredRows: number;
}

/**
 * @param items those whose cursors, twins and incidents go along
 * @throws what the dictionary throws when PostgreSQL is away; RangeError when it is more than a buffer holds; Error when
 *   two of `works` share a sequence
 */
export async function buildTransaction(
  works: readonly Work[],
  items: readonly HistoryItem[],
  context: TransactionContext,
): Promise<Transaction> {
  const nowMs = context.now();
  const content: Content = {
    context,
    nowMs,
    rows: copyBuffer(works.reduce((sum, work) => sum + work.item.bytes * 2, 0)),
    days: new Set(),
    summaries: [],
    quarantine: [],
    marks: [],
    tally: newTally(nowMs, nowMs + limits.futureToleranceMs),
    expiredRows: 0,
  };
  const serverStarted = await context.dictionary.serverStarted();
  for (const work of works) await addWork(work, content);
  await context.dictionary.ensureDays(content.days);

  const ranges = new Map<number, RangeSet>();
  const settledOf = (id: number) => works.find(({ log }) => log.id === id)!.log.settled;
  for (const { log, fresh } of works) {
    const before = ranges.get(log.id) ?? RangeSet.empty;
    const all = before.union(fresh);
    // The ledger would take them once and the table their rows twice (B).
    if (all.size !== before.size + fresh.size)
      throw new Error(`log ${log.id}: ${fresh} twice in one transaction`);
    ranges.set(log.id, all);
  }
  const twins = new Map<string, TwinState>();
  for (const item of items) for (const twin of item.twins) twins.set(`${twin.site}/${twin.device}`, twin);
  return {
    partition: context.partition,
    epoch: context.epoch,
    serverStarted,
    rows: content.rows.rows() > 0 ? content.rows.finish() : null,
    summaries: content.summaries.length > 0 ? copySummaries(content.summaries) : null,
    quarantine: content.quarantine,
    marks: content.marks,
    ranges: [...ranges].map(([log, set]) => ({
      log,
      ranges: (hasBug('skip-ledger') ? set.difference(settledOf(log)) : set).toString(),
      ...content.tally.counts(log),
    })),
    minutes: content.tally.minutes(),
    runs: content.tally.runs(),
    expiredRows: content.expiredRows,
    cursors: cursorMoves(items),
    twins: [...twins.values()].map(twin => ({
      site: twin.site,
      device: twin.device,
      version: twin.version,
      state: storeTwin(twin, context.epoch),
    })),
    incidents: items.flatMap(item => item.transitions),
  };
}

async function addWork(work: Work, content: Content): Promise<void> {
  const { item, log, fresh } = work;
  const { batch } = item;
  const { tally } = content;
  if (item.poison) {
    for (const { from, to } of fresh.ranges) {
      mark(content, work, { from, to }, 'quarantined', to - from, item.poison.reason);
    }
    quarantineAll(content, work, item.poison.reason, item.poison.bytes);
    if (batch.settlement === 'thinned') {
      const [from, to] = arrivalOfRun(batch, fresh);
      tally.addRun(log.id, 'quarantined', fresh.size, from, to);
    } else {
      const arrivedAt = batch.settlement === 'raw' ? arrivalOf(batch, fresh.ranges[0]!.from) : null;
      tally.add(log.id, 'quarantined', fresh.size, arrivedAt);
    }
    return;
  }
  switch (batch.settlement) {
    case 'lost':
      for (const { from, to } of fresh.ranges) {
        mark(content, work, { from, to }, 'lost', to - from, batch.reason);
      }
      tally.add(log.id, 'lost', fresh.size, null);
      return;
    case 'raw': {
      const { arrivals, lastAt } = await addReadings(batch, work, content);
      // A message that there was nothing to store of leaves no row; it came beside one that did.
      if (item.lane === 'backfill') tally.add(log.id, 'late', fresh.size - arrivals.size, lastAt);
      return;
    }
    case 'thinned':
      return addThinned(batch, work, content);
  }
}

async function addThinned(batch: ThinnedBatch, work: Work, content: Content): Promise<void> {
  const { log, fresh } = work;
  const { arrivals } = await addReadings(batch.kept, work, content);
  let status: 'thinned' | 'expired' | 'lost' | 'quarantined';
  let reason: string;
  if (isWholeRun(work)) {
    const stored = await addSummaries(batch, work, content);
    status = stored || batch.summaries.length === 0 ? 'thinned' : 'expired';
    reason = status === 'thinned' ? `thinned to one summary per ${batch.intervalMs / 1000} s` : TOO_OLD;
  } else if (work.refused !== undefined) {
    status = 'quarantined';
    reason = work.refused;
    if (fresh.size > arrivals.size) quarantineAll(content, work, reason, new Uint8Array());
  } else {
    status = 'lost';
    reason = SETTLED_IN_PART;
  }
  for (const { from, to } of fresh.ranges) {
    let messages = to - from;
    for (const sequence of arrivals.keys()) if (sequence >= from && sequence < to) messages--;
    if (messages > 0 || status === 'thinned') mark(content, work, { from, to }, status, messages, reason);
  }
  const [arrivedFrom, arrivedTo] = arrivalOfRun(batch, fresh);
  content.tally.addRun(log.id, status, fresh.size - arrivals.size, arrivedFrom, arrivedTo);
}

/**
 * Rows and messages set aside, of the fresh sequences.
 * @returns arrival of each message that has a row or was set aside (of a raw batch in the live lane, where nobody asks:
 *   only what is not plain), and the last one
 */
async function addReadings(
  batch: ReadingsBatch,
  work: Work,
  content: Content,
): Promise<{ arrivals: ReadonlyMap<number, number>; lastAt: number | null }> {
  const { item, log, fresh } = work;
  const { context, tally } = content;
  const isPlain = item.lane === 'live' && item.batch.settlement === 'raw';
  const arrivals = new Map<number, number>();
  const notLate = new Set<number>();
  let lastAt: number | null = null;
  const noteOnce = (sequence: number, status: 'quarantined' | 'expired', at: number) => {
    arrivals.set(sequence, at);
    if (notLate.has(sequence)) return;
    notLate.add(sequence);
    tally.add(log.id, status, 1, at);
  };

  for (const entry of batch.setAside) {
    const sequence = batch.firstSequence + entry.sequenceOffset;
    if (!fresh.contains(sequence)) continue;
    lastAt = entry.receivedAt;
    mark(content, work, { from: sequence, to: sequence + 1 }, 'quarantined', 1, entry.reason);
    content.quarantine.push({ ...entry, site: item.site, gateway: item.gateway, log: log.id, sequence });
    noteOnce(sequence, 'quarantined', entry.receivedAt);
  }

  const devices = await context.dictionary.devices(item.site, batch.devices);
  const shapes = await context.dictionary.shapes(batch.metrics, batch.shapes);
  const whole = fresh.covers(batch.firstSequence, batch.firstSequence + batch.count);
  const oldest = content.nowMs - context.retentionMs;
  const columns = batch.rows;
  let lastDay = Number.NaN;
  forEachRow(batch, ({ row, values }) => {
    const sequence = batch.firstSequence + columns.sequenceOffset[row]!;
    if (!whole && !fresh.contains(sequence)) return;
    const receivedAt = columns.receivedAt[row]!;
    lastAt = receivedAt;
    if (!isPlain) arrivals.set(sequence, receivedAt);
    const claimed = columns.at[row]!;
    const at = correctedAt(claimed, receivedAt);
    if (!(at >= oldest)) {
      content.expiredRows++;
      noteOnce(sequence, 'expired', receivedAt);
      return mark(content, work, { from: sequence, to: sequence + 1 }, 'expired', 1, TOO_OLD);
    }
    const day = Math.floor(at / DAY_MS);
    if (day !== lastDay) {
      content.days.add(new Date(day * DAY_MS).toISOString().slice(0, 10));
      lastDay = day;
    }
    const shape = shapes[columns.shape[row]!]!;
    content.rows.add({
      at,
      claimedAt: claimed === at ? null : Math.min(claimed, LATEST_CLAIM_MS),
      sequence,
      log: log.id,
      device: devices[columns.device[row]!]!,
      shape: shape.id,
      element: columns.element[row]!,
      kind: Math.min(columns.kind[row]!, kinds.length - 1),
      values,
      numbers: shape.numbers,
      texts: shape.texts,
    });
  });
  if (item.lane === 'backfill') {
    for (const [sequence, at] of arrivals) if (!notLate.has(sequence)) tally.add(log.id, 'late', 1, at);
  }
  return { arrivals, lastAt };
}

/** @returns whether any of them is young enough to be stored */
async function addSummaries(batch: ThinnedBatch, { item, log }: Work, content: Content): Promise<boolean> {
  const { dictionary, retentionMs } = content.context;
  const { rows, expired } = summaryRows(batch, {
    log: log.id,
    devices: await dictionary.devices(item.site, batch.summaries.devices),
    metrics: await dictionary.metrics(batch.summaries.metrics),
    nowMs: content.nowMs,
    oldestMs: content.nowMs - retentionMs,
  });
  for (const row of rows) content.summaries.push(row);
  content.expiredRows += expired;
  return rows.length > 0;
}

function mark(
  { marks }: Content,
  { log }: Work,
  { from, to }: Range,
  status: MarkRow['status'],
  messages: number,
  reason: string,
): void {
  const last = marks.at(-1);
  // A replay of something old expires message by message: one mark for all that follow one another.
  if (status === 'expired' && last?.status === status && last.log === log.id && last.reason === reason) {
    if (from >= last.from && to <= last.to) return;
    if (from === last.to) {
      marks[marks.length - 1] = { ...last, to, messages: last.messages + messages };
      return;
    }
  }
  marks.push({ log: log.id, from, to, status, messages, reason });
}

/** One entry for a person to look at, whatever the number of messages. */
function quarantineAll(
  content: Content,
  { item, log, fresh }: Work,
  reason: string,
  bytes: Uint8Array,
): void {
  content.quarantine.push({
    site: item.site,
    gateway: item.gateway,
    log: log.id,
    sequence: fresh.ranges[0]!.from,
    receivedAt: content.nowMs,
    reason,
    topic: '',
    payloadBytes: bytes.length,
    payload: bytes,
  });
}

/** When a message arrived at the gateway; of one without rows nobody knows. */
function arrivalOf({ firstSequence, rows, setAside }: ReadingsBatch, sequence: number): number | null {
  const row = rows.sequenceOffset.indexOf(sequence - firstSequence);
  if (row >= 0) return rows.receivedAt[row]!;
  return setAside.find(entry => firstSequence + entry.sequenceOffset === sequence)?.receivedAt ?? null;
}

/** When the fresh part of a run arrived, as if its messages had come evenly. */
function arrivalOfRun(
  { firstSequence, count, receivedFrom, receivedTo }: ThinnedBatch,
  fresh: RangeSet,
): [from: number, to: number] {
  const at = (sequence: number) =>
    receivedFrom + ((receivedTo - receivedFrom) * (sequence - firstSequence)) / count;
  return [at(fresh.ranges[0]!.from), at(fresh.ranges.at(-1)!.to)];
}

function cursorMoves(items: readonly HistoryItem[]): CursorMove[] {
  const moves = new Map<Lane, CursorMove>();
  for (const { lane, stream } of items) {
    if (stream) moves.set(lane, { lane, ...stream });
  }
  return [...moves.values()];
}
