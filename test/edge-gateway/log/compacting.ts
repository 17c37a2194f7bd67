/** What the tests of compaction share: a buffer that compacts at once, telemetry, and reading whatever form it has. */
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { buildBatch } from '../../../edge-gateway/batch-builder.ts';
import { type Compactor, compactHere } from '../../../edge-gateway/log/compaction-job.ts';
import type { BufferOptions, DiskBuffer, Message } from '../../../edge-gateway/log/disk-buffer.ts';
import { type FileOperations, nodeFiles } from '../../../edge-gateway/log/files.ts';
import { commonMapping } from '../../../edge-gateway/mapping/compile.ts';
import type { ReadingsBatch, ThinnedBatch } from '../../../protocol/batch.ts';
import { decodeBatch } from '../../../protocol/batch-codec.ts';
import { forEachRow } from '../../../protocol/batch-rows.ts';
import type { LogId } from '../../../protocol/ids.ts';
import type { Range } from '../../../protocol/range-set.ts';
import { infoOf, open } from './support.ts';

export const SET_BACK = 'a segment could not be compacted: it stays as it is for now';
export const THINNED = 'the buffer is nearly full: the oldest telemetry was thinned';

export interface Compacting {
  readonly buffer: DiskBuffer;
  /** Resolves with the details when this is logged next. */
  logged(text: string): Promise<Record<string, unknown>>;
  /** Resolves when nothing is left to compact. */
  compacted(): Promise<void>;
}

export async function openCompacting(
  directory: string,
  options: Partial<BufferOptions> & {
    compactor?: Compactor;
    keepMessages?: number;
    nearFull?: 'thin' | 'push-back';
    waitMs?: number;
  } = {},
): Promise<Compacting> {
  const { compactor, keepMessages = 0, nearFull = 'push-back', waitMs = 0, ...more } = options;
  const files: FileOperations = more.files ?? nodeFiles;
  const events = new EventEmitter();
  const failures: unknown[] = [];
  events.on(SET_BACK, details => failures.push(details));
  const log = (details: object, text: string) => {
    events.emit(text, details);
    events.emit('any');
  };
  const buffer = await open(directory, {
    segmentBytesMax: 20_000,
    ...more,
    logger: { info: log, warn: log, error: log },
    compaction: {
      compactor: compactor ?? compactHere(files, commonMapping),
      keepMessages,
      nearFull,
      waitMs,
    },
  });
  return {
    buffer,
    logged: async text => (await once(events, text))[0] as Record<string, unknown>,
    async compacted() {
      for (;;) {
        assert.deepEqual(failures, []);
        if (buffer.stats().segmentsWaiting === 0) return;
        await once(events, 'any');
      }
    },
  };
}

/** @param second counts from a fixed time; decides the values too */
export function telemetry(device: number, second: number): Message {
  const ts = 1_700_000_000_000 + second * 1000;
  const payload = Buffer.from(
    `{"ts":${ts},"temperature":${20 + ((second * 7 + device) % 50) / 10},"state":"on"}`,
  );
  return publish(`devices/dev-${device}/telemetry`, payload, ts + 20);
}

export const event = (device: number, second: number): Message => {
  const ts = 1_700_000_000_000 + second * 1000;
  return publish(`devices/dev-${device}/events`, Buffer.from(`{"ts":${ts},"door":"open ${second}"}`), ts);
};

export const publish = (topic: string, payload: Uint8Array, receivedAt: number): Message => ({
  receivedAt,
  monotonicMs: receivedAt - 1_600_000_000_000,
  qos: 1,
  retain: false,
  duplicate: false,
  packetId: 1,
  topic,
  payload,
  payloadBytes: payload.length,
});

const AT_A_TIME = 100;

/** Stores messages `from`, `from` + 1, … below `to`. @returns the first that the buffer had no room for, or `to` */
export async function fill(
  { buffer }: Compacting,
  from: number,
  to: number,
  make: (id: number) => Message = messageOf,
  patienceMs = 4_000,
): Promise<number> {
  let waiting: Promise<void>[] = [];
  for (let id = from; id < to; ) {
    const durable = Promise.withResolvers<void>();
    if (buffer.append(make(id), durable.resolve) === 'accepted') {
      waiting.push(durable.promise);
      id++;
    } else {
      const space = Promise.withResolvers<boolean>();
      const forget = buffer.onSpace(() => space.resolve(true));
      const timer = setTimeout(() => space.resolve(false), patienceMs);
      const gained = await space.promise;
      clearTimeout(timer);
      forget();
      if (!gained) {
        await Promise.all(waiting);
        return id;
      }
    }
    if (waiting.length < AT_A_TIME) continue;
    await Promise.all(waiting);
    waiting = [];
  }
  await Promise.all(waiting);
  return to;
}

export const messageOf = (id: number): Message =>
  id % 50 === 0 ? event(id % 7, id) : telemetry(id % 5, Math.floor(id / 5));

export interface ReadRun {
  readonly form: 'frames' | 'block';
  readonly range: Range;
  readonly batch: ReadingsBatch | ThinnedBatch;
}

/** All that is readable of a log, as the uplink would send it. */
export async function readRuns(buffer: DiskBuffer, logId: LogId, messagesMax = 4096): Promise<ReadRun[]> {
  const runs: ReadRun[] = [];
  for (let next = 1; ; next = runs.at(-1)!.range.to) {
    const run = await buffer.read(logId, next, { messagesMax, bytesMax: 512 * 1024 });
    let batch: ReadRun['batch'];
    if (run.form === 'block') {
      const decoded = decodeBatch(run.batch);
      assert.ok(decoded.outcome === 'batch' && decoded.batch.settlement !== 'lost', JSON.stringify(decoded));
      batch = decoded.batch;
      assert.equal(batch.logId, logId);
    } else {
      if (run.frames.length === 0) return runs;
      const hole = run.frames.findIndex((frame, index) => frame.sequence !== run.frames[0]!.sequence + index);
      batch = buildBatch(logId, hole < 0 ? run.frames : run.frames.slice(0, hole));
    }
    const range = { from: batch.firstSequence, to: batch.firstSequence + batch.count };
    if (run.form === 'block') assert.deepEqual(run.range, range);
    assert.ok(range.to > next, 'reading goes on');
    runs.push({ form: run.form, range, batch });
  }
}

/** Every element and every message set aside, one line each, in order. */
export function contentOf(runs: readonly ReadRun[]): string[] {
  const lines: string[] = [];
  for (const { batch } of runs) {
    assert.equal(batch.settlement, 'raw');
    lines.push(...rowsOf(batch as ReadingsBatch));
  }
  return lines;
}

export function rowsOf(batch: ReadingsBatch): string[] {
  const lines: [number, string][] = [];
  const { rows } = batch;
  forEachRow(batch, ({ row, names, values }) => {
    const sequence = batch.firstSequence + rows.sequenceOffset[row]!;
    const device = batch.devices[rows.device[row]!];
    const plain = [
      rows.element[row],
      rows.kind[row],
      rows.flags[row],
      device,
      rows.at[row],
      rows.receivedAt[row],
    ];
    const shown = values.map(value => (Object.is(value, -0) ? '-0' : value));
    lines.push([sequence, JSON.stringify([sequence, ...plain, names, shown])]);
  });
  for (const { sequenceOffset, payload, ...aside } of batch.setAside) {
    const sequence = batch.firstSequence + sequenceOffset;
    lines.push([sequence, JSON.stringify([sequence, aside, Buffer.from(payload).toString('hex')])]);
  }
  return lines.sort((a, b) => a[0] - b[0]).map(([, line]) => line);
}

/** Sequences of the log that can be read. */
export async function sequencesOf(buffer: DiskBuffer, logId: LogId): Promise<number[]> {
  const { nextSequence } = infoOf(buffer, logId);
  const ranges = (await readRuns(buffer, logId)).map(({ range }) => range);
  const found: number[] = [];
  for (let sequence = 1; sequence < nextSequence; sequence++) {
    if (ranges.some(({ from, to }) => from <= sequence && sequence < to)) found.push(sequence);
  }
  return found;
}
