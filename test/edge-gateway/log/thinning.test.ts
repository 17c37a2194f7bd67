/** Thinning against a plain reckoning of the same rows, and against the twins that the cloud would fold from them. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { TwinState } from '../../../cloud/actors/twin.ts';
import { isThinnable, thin, thinningForecast } from '../../../edge-gateway/log/thinning.ts';
import {
  kinds,
  type ReadingsBatch,
  type ThinnedBatch,
  thinningIntervalsMs,
  type Value,
} from '../../../protocol/batch.ts';
import { decodeBatch, encodeBatch } from '../../../protocol/batch-codec.ts';
import { correctedAt, forEachRow } from '../../../protocol/batch-rows.ts';
import { batchBounds } from '../../../protocol/batch-rules.ts';
import { limits } from '../../../protocol/limits.ts';
import { standardFleet } from '../../bench/standard-fleet.ts';
import { foldBatch } from '../../cloud/twins.ts';
import { checkBatch } from '../../protocol/check-batch.ts';
import {
  batchOfMessages,
  messageOf,
  type SampleMessage,
  summariesOfEntries,
} from '../../protocol/sample-batches.ts';

type Thinnable = ReadingsBatch | ThinnedBatch;

const START_MS = 1_700_000_000_000;
const MINUTE_MS = 60_000;
const TEN_MINUTES_MS = 600_000;

/** One batch for each list of messages, with sequences that follow one another. */
function runOf(lists: readonly (readonly SampleMessage[])[]): ReadingsBatch[] {
  let firstSequence = 5000;
  return lists.map(messages => {
    const batch = { ...batchOfMessages(messages), firstSequence };
    firstSequence += batch.count;
    return batch;
  });
}

const readingsOf = (values: Record<string, Value>, ts?: number) => ({
  ts,
  values: new Map(Object.entries(values)),
});

const message = (
  device: string,
  receivedAt: number,
  values: Record<string, Value>,
  kind: SampleMessage['kind'] = 'telemetry',
): SampleMessage => ({ device, receivedAt, kind, elements: [readingsOf(values)] });

const numberValue = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: -5000, max: 5000 }).map(whole => whole / 100) },
  { weight: 1, arbitrary: fc.double() },
  { weight: 1, arbitrary: fc.constantFrom(Number.MAX_VALUE, -Number.MAX_VALUE, -0, 5e-324) },
);
const anyValue: fc.Arbitrary<Value> = fc.oneof(
  { weight: 5, arbitrary: numberValue },
  { weight: 2, arbitrary: fc.boolean() },
  { weight: 3, arbitrary: fc.constantFrom('on', 'off') },
);
/** The device's own time, against that of arrival: none, a little or far behind, equal to others', not to be believed. */
const distance = fc.oneof(
  { weight: 4, arbitrary: fc.constant(undefined) },
  { weight: 4, arbitrary: fc.integer({ min: -900_000, max: 60_000 }) },
  { weight: 1, arbitrary: fc.constantFrom(0, -60_000, 3_600_000, -START_MS, -1.5) },
);
const anyMessage = fc.record({
  device: fc.constantFrom('a', 'b-07', 'c'),
  kind: fc.oneof(
    { weight: 6, arbitrary: fc.constant('telemetry' as const) },
    { weight: 2, arbitrary: fc.constantFrom(...kinds) },
  ),
  stepMs: fc.oneof(fc.nat(40_000), fc.constant(0)),
  elements: fc.array(
    fc.record({
      distance,
      // No order of keys that the engine has its own mind about.
      values: fc.dictionary(fc.constantFrom('m', 'n', 'o', 'p'), anyValue, { noNullPrototype: true }),
    }),
    { maxLength: 3 },
  ),
});
/** @param backMs how far the gateway's clock may jump back between two messages */
const anyRunWith = (backMs: number): fc.Arbitrary<ReadingsBatch[]> =>
  fc
    .array(fc.array(fc.tuple(anyMessage, fc.nat(backMs)), { maxLength: 25 }), {
      minLength: 1,
      maxLength: 5,
    })
    .map(lists => {
      let clock = START_MS;
      return runOf(
        lists.map(list =>
          list.map(([{ device, kind, stepMs, elements }, back]): SampleMessage => {
            clock += stepMs - back;
            return {
              device,
              kind,
              receivedAt: clock,
              elements: elements.map(one =>
                readingsOf(one.values, one.distance === undefined ? undefined : clock + one.distance),
              ),
            };
          }),
        ),
      );
    });
const anyRun = anyRunWith(0);
const anyInterval = fc.constantFrom(...thinningIntervalsMs);

interface Reading {
  readonly key: string;
  readonly at: number;
  readonly device: string;
  readonly metric: string;
  readonly value: Value;
  readonly kind: string;
}

/** Every reading by (sequence, element, metric), which is what makes a row of history. */
function readingsIn(batches: readonly ReadingsBatch[]): Map<string, Reading> {
  const readings = new Map<string, Reading>();
  for (const batch of batches) {
    const { rows } = batch;
    forEachRow(batch, ({ row, names, values }) => {
      const place = `${batch.firstSequence + rows.sequenceOffset[row]!}:${rows.element[row]}`;
      for (const [i, metric] of names.entries()) {
        readings.set(`${place} ${metric}`, {
          key: place,
          at: correctedAt(rows.at[row]!, rows.receivedAt[row]!),
          device: batch.devices[rows.device[row]!]!,
          metric,
          value: values[i]!,
          kind: kinds[rows.kind[row]!]!,
        });
      }
    });
  }
  return readings;
}

function must(thinned: ThinnedBatch | null): ThinnedBatch {
  assert.ok(thinned, 'it fits one batch');
  checkBatch(thinned);
  return thinned;
}

const isNear = (one: number, other: number, scale: number): boolean =>
  Math.abs(one / 2 - other / 2) <= 2e-9 * scale + 5e-324;

/** Summaries reckoned one by one from the readings that no kept row holds. */
function reckon(readings: Iterable<Reading>, intervalMs: number) {
  const values = new Map<string, number[]>();
  for (const { device, metric, at, value } of readings) {
    if (typeof value === 'string') continue;
    const key = `${device} ${metric} ${at - (at % intervalMs)}`;
    values.set(key, [...(values.get(key) ?? []), Number(value)]);
  }
  return values;
}

function assertSummaries({ summaries, intervalMs }: ThinnedBatch, gone: Iterable<Reading>): void {
  const due = reckon(gone, intervalMs);
  for (let i = 0; i < summaries.length; i++) {
    const device = summaries.devices[summaries.device[i]!]!;
    const key = `${device} ${summaries.metrics[summaries.metric[i]!]} ${summaries.from[i]}`;
    const values = due.get(key);
    assert.ok(values, `${key} has readings`);
    assert.equal(summaries.count[i], values.length);
    assert.ok(summaries.minimum[i] === Math.min(...values));
    assert.ok(summaries.maximum[i] === Math.max(...values));
    // Parts of the mean, because the sum of the largest numbers is infinite.
    const mean = values.reduce((sum, value) => sum + value / values.length, 0);
    const scale = Math.max(...values.map(Math.abs));
    assert.ok(isNear(summaries.mean[i]!, mean, scale), `${key}: ${summaries.mean[i]} is near ${mean}`);
    due.delete(key);
  }
  assert.deepEqual([...due.keys()], [], 'every reading is in a summary');
}

test('each number is in a kept row as it was, or in one summary with the right figures (B)', () => {
  fc.assert(
    fc.property(anyRunWith(100_000), anyInterval, (run, intervalMs) => {
      const thinned = must(thin(run, intervalMs));
      assert.equal(thinned.firstSequence, run[0]!.firstSequence);
      assert.equal(
        thinned.count,
        run.reduce((sum, { count }) => sum + count, 0),
      );
      const before = readingsIn(run);
      for (const [key, reading] of readingsIn([thinned.kept])) {
        assert.deepStrictEqual(reading, before.get(key));
        before.delete(key);
      }
      assertSummaries(thinned, before.values());
      const times = run.flatMap(({ rows }) => [...rows.receivedAt]);
      if (times.length > 0) {
        assert.equal(thinned.receivedFrom, Math.min(...times));
        assert.equal(thinned.receivedTo, Math.max(...times));
      }
      assert.deepStrictEqual(decodeBatch(encodeBatch(thinned)), { outcome: 'batch', batch: thinned });
    }),
    { numRuns: 400 },
  );
});

test('events, status and texts that change are kept, all others but the newest are not', () => {
  fc.assert(
    fc.property(anyRun, anyInterval, (run, intervalMs) => {
      const thinned = must(thin(run, intervalMs));
      const kept = new Set([...readingsIn([thinned.kept]).values()].map(({ key }) => key));
      const due = new Set<string>();
      const text = new Map<string, string>();
      const newest = new Map<string, Reading>();
      for (const reading of readingsIn(run).values()) {
        const { device, metric, value, kind, key, at } = reading;
        const slot = `${device} ${metric}`;
        if (kind === 'event' || kind === 'status') due.add(key);
        if (typeof value === 'number' && !Number.isFinite(value)) due.add(key);
        if (typeof value === 'string') {
          if (text.get(slot) !== value) due.add(key);
          text.set(slot, value);
        }
        const before = newest.get(slot);
        if (!before || at >= before.at) newest.set(slot, reading);
      }
      for (const { key } of newest.values()) due.add(key);
      assert.deepEqual([...kept].sort(), [...due].sort());
    }),
    { numRuns: 400 },
  );
});

/** What is the same in two twins, whatever came between: all but versions. A row without a reading leaves an empty twin. */
const twinsOf = (twins: ReadonlyMap<string, TwinState>) =>
  [...twins.values()]
    .filter(({ metrics }) => metrics.size > 0)
    .map(({ device, metrics, seenAt }) => ({
      device,
      seenAt,
      metrics: [...metrics].sort(([a], [b]) => (a < b ? -1 : 1)),
    }))
    .sort((a, b) => (a.device < b.device ? -1 : 1));

function fold(batches: readonly ReadingsBatch[], start: ReadonlyMap<string, TwinState>) {
  const twins = new Map(start);
  for (const batch of batches) {
    const { changes } = foldBatch('site', twins, batch, []);
    for (const [device, { after }] of changes) twins.set(device, after);
  }
  return twins;
}

const withoutSeen = (twins: ReturnType<typeof twinsOf>) => twins.map(twin => ({ ...twin, seenAt: 0 }));

test('a twin folded from the kept rows is the twin folded from all rows (C)', () => {
  fc.assert(
    fc.property(anyRun, anyRun, anyInterval, (run, other, intervalMs) => {
      const thinned = must(thin(run, intervalMs));
      const again = must(thin([thinned], intervalMs));
      const elsewhere = other.map(batch => ({
        ...batch,
        logId: 'f'.repeat(32) as ReadingsBatch['logId'],
      }));
      // Onto nothing, and onto what another log has brought before.
      for (const start of [new Map(), fold(elsewhere, new Map())]) {
        const twins = twinsOf(fold(run, start));
        assert.deepStrictEqual(twinsOf(fold([thinned.kept], start)), twins);
        assert.deepStrictEqual(twinsOf(fold([again.kept], start)), twins);
      }
    }),
    { numRuns: 300 },
  );
});

test('so it is when the clock of the gateway jumps, but for when the device was last heard', () => {
  fc.assert(
    fc.property(anyRunWith(400_000), anyInterval, (run, intervalMs) => {
      const { kept } = must(thin(run, intervalMs));
      assert.deepStrictEqual(
        withoutSeen(twinsOf(fold([kept], new Map()))),
        withoutSeen(twinsOf(fold(run, new Map()))),
      );
    }),
    { numRuns: 300 },
  );
});

test('thinned in parts, then together and coarser, it is the same as thinned at once', () => {
  fc.assert(
    fc.property(anyRun, fc.nat(4), fc.nat(3), fc.nat(3), (run, cut, one, other) => {
      const [fine, coarse] = [
        thinningIntervalsMs[Math.min(one, other)]!,
        thinningIntervalsMs[Math.max(one, other)]!,
      ];
      const atOnce = must(thin(run, coarse));
      const parts: Thinnable[] = run.slice(cut);
      if (cut > 0) parts.unshift(must(thin(run.slice(0, cut), fine)));
      const twice = must(thin([must(thin(parts, fine))], coarse));
      const { summaries, ...rest } = twice;
      const { summaries: summariesAtOnce, ...restAtOnce } = atOnce;
      assert.deepStrictEqual(rest, restAtOnce);
      const entries = entriesOf(summaries);
      const entriesAtOnce = entriesOf(summariesAtOnce);
      assert.equal(entries.length, entriesAtOnce.length);
      for (const [i, { mean, ...figures }] of entries.entries()) {
        const { mean: meanAtOnce, ...figuresAtOnce } = entriesAtOnce[i]!;
        assert.deepEqual(figures, figuresAtOnce);
        const scale = Math.max(Math.abs(figures.minimum), Math.abs(figures.maximum));
        assert.ok(isNear(mean, meanAtOnce, scale), `${mean} is near ${meanAtOnce}`);
      }
    }),
    { numRuns: 400 },
  );
});

/** In an order of their own: which metric comes first depends on which row was summarised first. */
function entriesOf({ length, devices, metrics, ...columns }: ThinnedBatch['summaries']) {
  return Array.from({ length }, (_, i) => ({
    key: `${devices[columns.device[i]!]} ${metrics[columns.metric[i]!]} ${columns.from[i]}`,
    minimum: columns.minimum[i]!,
    maximum: columns.maximum[i]!,
    count: columns.count[i]!,
    mean: columns.mean[i]!,
  })).sort((one, other) => (one.key < other.key ? -1 : 1));
}

test('a day of one device by hand', () => {
  const at = 1_700_006_400_000;
  const run = runOf([
    [
      message('a', at, { t: 1, on: true, mode: 'auto' }),
      message('a', at + 10_000, { t: 4, on: false, mode: 'auto' }),
      message('a', at + 20_000, { alarm: 'door' }, 'event'),
      message('a', at + 59_999, { t: 2, on: true, mode: 'auto' }),
    ],
    [
      message('a', at + 60_000, { t: 9, on: true, mode: 'auto' }),
      message('a', at + 70_000, { t: 3, on: true, mode: 'off' }),
      message('a', at + 80_000, { lat: 1 }, 'location'),
      message('a', at + 81_000, { t: 5, on: true, mode: 'off' }),
    ],
  ]);
  const { summaries, kept } = must(thin(run, MINUTE_MS));
  assert.deepEqual([...kept.rows.sequenceOffset], [0, 2, 5, 6, 7]);
  assert.deepEqual(
    summaries,
    summariesOfEntries([
      { device: 'a', metric: 't', from: at, minimum: 2, maximum: 4, mean: 3, count: 2 },
      { device: 'a', metric: 't', from: at + 60_000, minimum: 9, maximum: 9, mean: 9, count: 1 },
      { device: 'a', metric: 'on', from: at, minimum: 0, maximum: 1, mean: 0.5, count: 2 },
      { device: 'a', metric: 'on', from: at + 60_000, minimum: 1, maximum: 1, mean: 1, count: 1 },
    ]),
  );
});

test('a mean stays within its extremes, though it has nine digits and they have more', () => {
  const values = [1.234567890126, 1.234567890127, 0];
  const { summaries } = must(thin(runOf([values.map(t => message('a', START_MS, { t }))]), MINUTE_MS));
  assert.deepEqual([...summaries.mean], [1.234567890126]);
});

test('messages set aside stay, at their sequence', () => {
  const aside = {
    sequenceOffset: 1,
    reason: 'not JSON',
    topic: 'x',
    receivedAt: START_MS - 5000,
    payloadBytes: 9,
    payload: Uint8Array.of(1, 2),
  };
  const [first, second] = runOf([
    [message('a', START_MS, { t: 1 }), message('a', START_MS + 1, { t: 2 })],
    [message('a', START_MS + 2, { t: 3 }), message('a', START_MS + 3, { t: 4 })],
  ]);
  const thinned = must(thin([first!, { ...second!, setAside: [aside] }], MINUTE_MS));
  assert.deepEqual(thinned.kept.setAside, [{ ...aside, sequenceOffset: 3 }]);
  assert.equal(thinned.receivedFrom, START_MS - 5000);
});

test('times that no interval has, and numbers that are not finite, are kept as they are', () => {
  const times = [-1, -1e300, 2 ** 43, 1e300];
  const messages = [
    ...times.map(receivedAt => message('a', receivedAt, { t: 1 })),
    message('a', START_MS, { t: Number.NaN }),
    message('a', START_MS, { t: 5 }),
    message('a', 0, { t: 6 }),
    message('a', 2 ** 43 - 1, { t: 7 }),
  ];
  const { kept, summaries } = must(thin(runOf([messages]), MINUTE_MS));
  assert.deepEqual([...kept.rows.receivedAt], [...times, START_MS]);
  assert.deepEqual([...summaries.minimum], [6, 5, 7]);
});

test('runs with a gap, of two logs, without an interval or thinned coarser are refused as bugs', () => {
  const [first, second, third] = runOf([
    [message('a', START_MS, { t: 1 })],
    [message('a', START_MS, { t: 2 })],
    [message('a', START_MS, { t: 3 })],
  ]);
  const coarse = must(thin([first!], TEN_MINUTES_MS));
  const otherLog = { ...second!, logId: 'f'.repeat(32) as ReadingsBatch['logId'] };
  const bad: [RegExp, Thinnable[], number][] = [
    [/no batches/, [], MINUTE_MS],
    [/gap/, [first!, third!], MINUTE_MS],
    [/gap/, [second!, first!], MINUTE_MS],
    [/gap/, [first!, otherLog], MINUTE_MS],
    [/interval of/, [first!], 30_000],
    [/coarser/, [coarse, second!], MINUTE_MS],
  ];
  for (const [reason, batches, intervalMs] of bad) {
    assert.throws(() => thin(batches, intervalMs), { name: 'RangeError', message: reason });
    assert.throws(() => thinningForecast(batches, intervalMs), { name: 'RangeError', message: reason });
  }
});

test('what does not fit one batch is null, and fits in fewer parts (F)', () => {
  const events = (from: number) =>
    Array.from({ length: 4096 }, (_, i) => message('a', START_MS + from + i, { e: i }, 'event'));
  const tooManyRows = runOf([0, 1, 2, 3, 4].map(part => events(part * 4096)));
  assert.equal(thin(tooManyRows, MINUTE_MS), null);
  must(thin(tooManyRows.slice(0, 4), MINUTE_MS));
  const text = 'x'.repeat(limits.stringValueBytesMax - 20);
  const noise = (i: number): string => `${text.slice(0, 3000)}${Math.sin(i)}${Math.cos(i * i)}`;
  const words = (seed: number) =>
    Array.from({ length: 700 }, (_, i) => {
      const random = Array.from({ length: 60 }, (_, k) => Math.sin(seed * 1e6 + i * 61 + k)).join('');
      return message('a', START_MS + i, { log: `${noise(i).slice(0, 100)}${random}` });
    });
  const tooManyBytes = runOf([words(1), words(2), words(3), words(4)]);
  assert.equal(thin(tooManyBytes, MINUTE_MS), null);
  must(thin(tooManyBytes.slice(0, 1), MINUTE_MS));
  // 90,000 cells of one reading each, but for the newest.
  const tooManyCells = runOf(
    Array.from({ length: 90 }, (_, part) =>
      Array.from({ length: 1000 }, (_, i) =>
        message('a', START_MS + (part * 1000 + i) * MINUTE_MS, { t: i }),
      ),
    ),
  );
  assert.equal(thin(tooManyCells, MINUTE_MS), null);
  assert.equal(thinningForecast(tooManyCells, MINUTE_MS), null);
  must(thin(tooManyCells, TEN_MINUTES_MS));
});

test('counts that grow beyond what an entry holds are null', () => {
  const [first, second] = runOf([[message('a', START_MS, { t: 1 })], [message('a', START_MS, { t: 2 })]]);
  const full = (batch: ReadingsBatch): ThinnedBatch => {
    const entry = {
      device: 'a',
      metric: 't',
      from: 0,
      minimum: 1,
      maximum: 2,
      mean: 1.5,
      count: 2 ** 32 - 2,
    };
    return { ...must(thin([batch], MINUTE_MS)), summaries: summariesOfEntries([entry]) };
  };
  assert.equal(thin([full(first!), full(second!)], MINUTE_MS), null);
  must(thin([full(first!)], MINUTE_MS));
  const long = (batch: ReadingsBatch, count: number): ThinnedBatch => {
    const thinned = must(thin([batch], MINUTE_MS));
    return { ...thinned, count, kept: { ...thinned.kept, count } };
  };
  const half = 2 ** 31;
  const next = { ...second!, firstSequence: first!.firstSequence + half };
  assert.equal(thin([long(first!, half), long(next, half)], MINUTE_MS), null);
  assert.equal(must(thin([long(first!, half), long(next, half - 1)], MINUTE_MS)).count, batchBounds.lostMax);
});

test('an empty run thins to nothing, and its time to the others’', () => {
  const [empty, full] = runOf([[], [message('a', START_MS, { t: 1 })]]);
  const nothing = must(thin([empty!], MINUTE_MS));
  assert.deepEqual([nothing.receivedFrom, nothing.receivedTo, nothing.summaries.length], [0, 0, 0]);
  const both = must(thin([nothing, full!], MINUTE_MS));
  assert.deepEqual([both.receivedFrom, both.receivedTo], [START_MS, START_MS]);
});

test('the forecast is what thinning does, and events or rare readings are not thinnable', () => {
  fc.assert(
    fc.property(anyRun, anyInterval, (run, intervalMs) => {
      const thinned = must(thin(run, intervalMs));
      const before = { readings: readingsIn(run).size, summaries: 0 };
      const after = { readings: readingsIn([thinned.kept]).size, summaries: thinned.summaries.length };
      assert.deepEqual(thinningForecast(run, intervalMs), { before, after });
      assert.deepEqual(thinningForecast([thinned], intervalMs), { before: after, after });
    }),
    { numRuns: 100 },
  );
  const every = (ms: number, kind: SampleMessage['kind'] = 'telemetry') =>
    runOf([Array.from({ length: 100 }, (_, i) => message('a', START_MS + i * ms, { t: i }, kind))]);
  assert.equal(isThinnable(every(1000), MINUTE_MS), true);
  assert.equal(isThinnable(every(1000, 'location'), MINUTE_MS), true);
  assert.equal(isThinnable(every(1000, 'event'), MINUTE_MS), false);
  assert.equal(isThinnable(every(1000, 'status'), MINUTE_MS), false);
  assert.equal(isThinnable(every(60_000), MINUTE_MS), false);
  assert.equal(isThinnable(every(20_000), MINUTE_MS), false);
  assert.equal(isThinnable(every(60_000), TEN_MINUTES_MS), true);
  assert.equal(isThinnable([must(thin(every(1000), MINUTE_MS))], MINUTE_MS), false);
  assert.equal(isThinnable(runOf([[]]), MINUTE_MS), false);
});

test('the standard fleet thins to a fraction of its bytes', t => {
  const fleet = standardFleet();
  const next = (): SampleMessage => {
    for (;;) {
      const { site, device, ts, payload } = fleet.next().value;
      if (site === 0) return messageOf(device, ts + 5, payload);
    }
  };
  const blocks = runOf(Array.from({ length: 15 }, () => Array.from({ length: 2048 }, next)));
  const raw = blocks.reduce((sum, block) => sum + encodeBatch(block).length, 0);
  const thinned = encodeBatch(must(thin(blocks, MINUTE_MS))).length;
  t.diagnostic(`${15 * 2048} messages: ${raw} bytes, thinned to minutes ${thinned}`);
  assert.ok(thinned * 2.5 < raw, `${thinned} bytes of ${raw}`);
});
