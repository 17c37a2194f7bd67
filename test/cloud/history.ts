/** What the tests of history share: batches made of messages the way a gateway makes them, and a writer to put them in. */
import type { Pool } from 'pg';
import { claimPartitions } from '../../cloud/cluster/leases.ts';
import { newBudget } from '../../cloud/history/budget.ts';
import { type Dictionary, openDictionary } from '../../cloud/history/dictionary.ts';
import {
  type HistoryItem,
  type HistoryWriter,
  openHistoryWriter,
  type SettledNotice,
} from '../../cloud/history/writer.ts';
import { buildBatch } from '../../edge-gateway/batch-builder.ts';
import type { ReadingsBatch, Summaries, ThinnedBatch } from '../../protocol/batch.ts';
import { gatewayId, type LogId, siteId } from '../../protocol/ids.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import { frame, LOG_ID } from '../edge-gateway/frames.ts';
import { atEnd, eventually, silentLogger } from './servers.ts';

export const SITE = siteId('demo');
export const GATEWAY = gatewayId('edge-1');
/** All tests live at this moment. */
export const NOW = Date.UTC(2026, 0, 15, 12);
export const DAY_MS = 86_400_000;

/** `[topic, payload]`; a payload that is no string is written as JSON. */
export type Sent = readonly [topic: string, payload: unknown];

export function batchOf(
  firstSequence: number,
  messages: readonly Sent[],
  logId: LogId = LOG_ID,
): ReadingsBatch {
  return buildBatch(
    logId,
    messages.map(([topic, payload], index) =>
      frame(firstSequence + index, topic, typeof payload === 'string' ? payload : JSON.stringify(payload), {
        receivedAt: NOW - 1000 + index,
      }),
    ),
  );
}

/** `count` messages of one device, each with its own sequence as the value `n`. */
export const counted = (first: number, count: number, device = 'pump'): ReadingsBatch =>
  batchOf(
    first,
    Array.from(
      { length: count },
      (_, index) => [`devices/${device}/telemetry`, { n: first + index }] as const,
    ),
  );

/** What thinning left of one device's metric in one interval. */
export interface SampleSummary {
  readonly device?: string;
  readonly metric?: string;
  readonly from?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly mean?: number;
  readonly count?: number;
}

export const MINUTE_MS = 60_000;
/** The minute that `NOW` begins. */
export const THIS_MINUTE = NOW / MINUTE_MS;

/** A thinned run of `count` sequences that arrived in the `count` seconds before `NOW`. */
export function thinnedOf(
  firstSequence: number,
  count: number,
  options: {
    /** Messages that stay as they were, by sequence. */
    readonly kept?: ReadonlyMap<number, Sent>;
    readonly summaries?: readonly SampleSummary[];
    readonly intervalMs?: number;
    readonly logId?: LogId;
  } = {},
): ThinnedBatch {
  const { kept = new Map<number, Sent>(), summaries = [], intervalMs = MINUTE_MS, logId = LOG_ID } = options;
  const receivedAt = (sequence: number) => NOW - (firstSequence + count - sequence) * 1000;
  // Built as neighbours, which is what a gateway builds; their places in the run are put in after.
  const frames = [...kept].map(([sequence, [topic, payload]], index) =>
    frame(index, topic, typeof payload === 'string' ? payload : JSON.stringify(payload), {
      receivedAt: receivedAt(sequence),
    }),
  );
  const built = buildBatch(logId, frames);
  const offsets = [...kept.keys()].map(sequence => sequence - firstSequence);
  return {
    settlement: 'thinned',
    logId,
    firstSequence,
    count,
    intervalMs,
    receivedFrom: receivedAt(firstSequence),
    receivedTo: NOW - 1,
    summaries: summariesOf(summaries),
    kept: {
      ...built,
      firstSequence,
      count,
      rows: { ...built.rows, sequenceOffset: built.rows.sequenceOffset.map(index => offsets[index]!) },
      setAside: built.setAside.map(entry => ({ ...entry, sequenceOffset: offsets[entry.sequenceOffset]! })),
    },
  };
}

function summariesOf(samples: readonly SampleSummary[]): Summaries {
  const sorted = samples
    .map(sample => ({ device: 'pump', metric: 'n', from: NOW - MINUTE_MS, count: 1, ...sample }))
    .map(sample => ({ minimum: 1, ...sample }))
    .map(sample => ({ maximum: sample.minimum, mean: sample.minimum, ...sample }));
  const devices = [...new Set(sorted.map(({ device }) => device))];
  const metrics = [...new Set(sorted.map(({ metric }) => metric))];
  const [device, metric] = [
    sorted.map(one => devices.indexOf(one.device)),
    sorted.map(one => metrics.indexOf(one.metric)),
  ];
  const order = [...sorted.keys()].sort(
    (a, b) => metric[a]! - metric[b]! || device[a]! - device[b]! || sorted[a]!.from - sorted[b]!.from,
  );
  return {
    length: sorted.length,
    devices,
    metrics,
    device: Uint32Array.from(order, i => device[i]!),
    metric: Uint32Array.from(order, i => metric[i]!),
    from: Float64Array.from(order, i => sorted[i]!.from),
    minimum: Float64Array.from(order, i => sorted[i]!.minimum),
    maximum: Float64Array.from(order, i => sorted[i]!.maximum),
    mean: Float64Array.from(order, i => sorted[i]!.mean),
    count: Uint32Array.from(order, i => sorted[i]!.count),
  };
}

let streamSequence = 0;

export const item = (batch: HistoryItem['batch'], more: Partial<HistoryItem> = {}): HistoryItem => ({
  lane: 'live',
  stream: { created: 'stream-1', sequence: ++streamSequence },
  site: SITE,
  gateway: GATEWAY,
  batch,
  poison: null,
  twins: [],
  transitions: [],
  bytes: 1000,
  ...more,
});

export interface TestWriter extends HistoryWriter {
  readonly notices: SettledNotice[];
  readonly incidents: string[];
  readonly stale: () => boolean;
  /** Rows of committed transactions that were too old to keep. */
  readonly expired: () => number;
  readonly epoch: number;
  /** What the gateway was told of one log. */
  told(logId?: LogId): RangeSet;
  /** Puts the items in and waits until they are through. */
  write(...items: HistoryItem[]): Promise<void>;
}

export async function openWriter(
  pool: Pool,
  options: {
    readonly epoch?: number;
    readonly commitIntervalMs?: number;
    readonly commitTimeoutMs?: number;
    readonly dictionary?: Dictionary;
  } = {},
): Promise<TestWriter> {
  const epoch = options.epoch ?? (await claimPartitions(pool, 'test', [0], 1))[0]!.epoch;
  const notices: SettledNotice[] = [];
  const incidents: string[] = [];
  const budget = newBudget(64 * 1024 * 1024);
  let isStale = false;
  let expired = 0;
  const writer = openHistoryWriter({
    pool,
    dictionary: options.dictionary ?? openDictionary(pool),
    partition: 0,
    epoch,
    budget,
    logger: silentLogger,
    commitIntervalMs: options.commitIntervalMs ?? 0,
    ...(options.commitTimeoutMs === undefined ? {} : { commitTimeoutMs: options.commitTimeoutMs }),
    retentionMs: 90 * DAY_MS,
    now: () => NOW,
    onSettled(more, _, transitions) {
      notices.push(...more);
      incidents.push(...transitions.map(({ id }) => id));
    },
    onExpired: rows => {
      expired += rows;
    },
    onStaleEpoch: () => {
      isStale = true;
    },
  });
  atEnd(() => writer.close(1000));
  return {
    enqueue: one => writer.enqueue(one),
    close: deadlineMs => writer.close(deadlineMs),
    get queued() {
      return writer.queued;
    },
    get trouble() {
      return writer.trouble;
    },
    notices,
    incidents,
    epoch,
    stale: () => isStale,
    expired: () => expired,
    told: (logId = LOG_ID) =>
      notices
        .filter(notice => notice.logId === logId)
        .reduce((all, { ranges }) => all.union(ranges), RangeSet.empty),
    async write(...items) {
      for (const one of items) writer.enqueue(one);
      await eventually('everything is written', () => budget.bytes === 0 || isStale);
    },
  };
}

export interface Stored {
  readonly device: string;
  readonly metric: string;
  readonly time: number;
  readonly value: number | null;
  readonly text: string | null;
  readonly truth: boolean | null;
  readonly kind: string;
  readonly sequence: number;
  readonly element: number;
}

/** All of the view `reading`, in the order of its key. */
export async function readings(pool: Pool): Promise<Stored[]> {
  const { rows } = await pool.query(
    `select device, metric, extract(epoch from time)::float8 * 1000 as time, value, text, truth, kind, sequence::float8, element
       from holdfast.reading order by log, sequence, element, metric`,
  );
  return rows as Stored[];
}

export async function ledger(pool: Pool, logId: LogId = LOG_ID): Promise<string> {
  const { rows } = await pool.query('select settled::text from holdfast.gateway_log where log_id = $1', [
    logId,
  ]);
  return rows[0]?.settled ?? 'no such log';
}

export async function marks(
  pool: Pool,
): Promise<{ range: string; status: string; messages: number; reason: string }[]> {
  const { rows } = await pool.query(
    'select range::text, status, messages::int, reason from holdfast.ledger_mark m order by log, m.range, status',
  );
  return rows;
}

/** Per status the messages of the log, as `gateway_log` counts them; what is 0 is left out. */
export async function counts(pool: Pool, logId: LogId = LOG_ID): Promise<Record<string, number>> {
  const { rows } = await pool.query<Record<string, number>>(
    `select late::int, thinned::int, lost::int, quarantined::int, expired::int
       from holdfast.gateway_log where log_id = $1`,
    [logId],
  );
  return Object.fromEntries(Object.entries(rows[0] ?? {}).filter(([, messages]) => messages !== 0));
}

/** All of `ledger_minute`, minutes counted from the one that `NOW` begins. */
export async function minutes(pool: Pool): Promise<{ status: string; minute: number; messages: number }[]> {
  const { rows } = await pool.query(
    `select status, (extract(epoch from minute) / 60)::int - $1 as minute, messages::int
       from holdfast.ledger_minute order by status, log, minute`,
    [THIS_MINUTE],
  );
  return rows;
}

/** All of the view `thinned_reading`. */
export async function thinnedReadings(pool: Pool): Promise<Record<string, unknown>[]> {
  const { rows } = await pool.query(
    `select device, metric, extract(epoch from time)::float8 * 1000 as time, extract(epoch from interval)::int as seconds,
            minimum, maximum, mean, count::float8
       from holdfast.thinned_reading order by device, metric, time, interval`,
  );
  return rows;
}

/** The whole numbers of [from, to). */
export const range = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, index) => from + index);
