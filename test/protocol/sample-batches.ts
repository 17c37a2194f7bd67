/** Batches made of messages, the way a gateway would: for the tests of the codec and for measuring it. */
import fc from 'fast-check';
import type {
  Batch,
  Kind,
  MetricColumn,
  ReadingsBatch,
  SetAside,
  Summaries,
  ThinnedBatch,
  Value,
} from '../../protocol/batch.ts';
import { kinds, RowFlag, thinningIntervalsMs } from '../../protocol/batch.ts';
import { type LogId, logId } from '../../protocol/ids.ts';

export const SAMPLE_LOG_ID = logId('0193f5a0c1e25b6d7e8f90a1b2c3d4e5');

export interface SampleElement {
  /** The device's own timestamp, if it gave one. */
  readonly ts?: number | undefined;
  /** By metric name. */
  readonly values: ReadonlyMap<string, Value>;
}

export interface SampleMessage {
  readonly device: string;
  readonly kind?: Kind;
  readonly receivedAt: number;
  readonly elements: readonly SampleElement[];
}

/** A message with one element, as the standard fleet sends it. */
export function messageOf(device: string, receivedAt: number, payload: string): SampleMessage {
  const { ts, ...values } = JSON.parse(payload) as Record<string, number>;
  return { device, receivedAt, elements: [{ ts, values: new Map(Object.entries(values)) }] };
}

/** One sequence per message, one row per element; dictionaries in the order of first appearance. */
export function batchOfMessages(
  messages: readonly SampleMessage[],
  setAside: readonly SetAside[] = [],
): ReadingsBatch {
  const devices = new Map<string, number>();
  const columns = new Map<
    string,
    { name: string; type: MetricColumn['type']; values: Value[]; index: number }
  >();
  const shapes = new Map<string, { index: number; members: number[] }>();
  const rows: number[][] = [];
  const indexIn = (map: Map<string, number>, key: string): number => {
    if (!map.has(key)) map.set(key, map.size);
    return map.get(key)!;
  };
  for (const [sequenceOffset, message] of messages.entries()) {
    const { device, receivedAt, kind = 'telemetry' } = message;
    for (const [element, { ts, values }] of message.elements.entries()) {
      const members: number[] = [];
      for (const [name, value] of values) {
        const type = typeof value as MetricColumn['type'];
        const key = `${type} ${name}`;
        const column = columns.get(key) ?? { name, type, values: [], index: columns.size };
        columns.set(key, column);
        column.values.push(value);
        members.push(column.index);
      }
      const shape = shapes.get(members.join()) ?? { index: shapes.size, members };
      shapes.set(members.join(), shape);
      rows.push([
        sequenceOffset,
        element,
        kinds.indexOf(kind),
        ts === undefined ? 0 : RowFlag.ownTimestamp,
        indexIn(devices, device),
        shape.index,
        ts ?? receivedAt,
        receivedAt,
      ]);
    }
  }
  const column = (index: number): number[] => rows.map(row => row[index]!);
  return {
    settlement: 'raw',
    logId: SAMPLE_LOG_ID,
    firstSequence: 1_000_000,
    count: Math.max(1, messages.length),
    devices: [...devices.keys()],
    metrics: [...columns.values()].map(columnOf),
    shapes: [...shapes.values()].map(({ members }) => members),
    rows: {
      length: rows.length,
      sequenceOffset: Uint32Array.from(column(0)),
      element: Uint16Array.from(column(1)),
      kind: Uint8Array.from(column(2)),
      flags: Uint8Array.from(column(3)),
      device: Uint32Array.from(column(4)),
      shape: Uint32Array.from(column(5)),
      at: Float64Array.from(column(6)),
      receivedAt: Float64Array.from(column(7)),
    },
    setAside,
  };
}

export interface SampleSummary {
  readonly device: string;
  readonly metric: string;
  readonly from: number;
  readonly minimum: number;
  readonly maximum: number;
  readonly mean: number;
  readonly count: number;
}

/** In the order the rules ask for: by metric, device (both as they first appear) and start of the interval. */
export function summariesOfEntries(entries: readonly SampleSummary[]): Summaries {
  const devices = [...new Set(entries.map(({ device }) => device))];
  const metrics = [...new Set(entries.map(({ metric }) => metric))];
  const sorted = entries
    .map(entry => ({
      ...entry,
      device: devices.indexOf(entry.device),
      metric: metrics.indexOf(entry.metric),
    }))
    .sort((a, b) => a.metric - b.metric || a.device - b.device || a.from - b.from);
  const column = (name: keyof SampleSummary): number[] => sorted.map(entry => entry[name]);
  return {
    length: sorted.length,
    devices,
    metrics,
    device: Uint32Array.from(column('device')),
    metric: Uint32Array.from(column('metric')),
    from: Float64Array.from(column('from')),
    minimum: Float64Array.from(column('minimum')),
    maximum: Float64Array.from(column('maximum')),
    mean: Float64Array.from(column('mean')),
    count: Uint32Array.from(column('count')),
  };
}

/** A thinned batch around any kept rows, which it stretches to `count` messages. */
export function thinnedAround(
  kept: ReadingsBatch,
  entries: readonly SampleSummary[],
  { intervalMs = 60_000, receivedFrom = 0, receivedTo = 0, count = kept.count } = {},
): ThinnedBatch {
  const { logId: log, firstSequence } = kept;
  return {
    settlement: 'thinned',
    logId: log,
    firstSequence,
    count,
    intervalMs,
    receivedFrom,
    receivedTo,
    summaries: summariesOfEntries(entries),
    kept: { ...kept, count },
  };
}

function columnOf({ name, type, values }: { name: string; type: MetricColumn['type']; values: Value[] }) {
  if (type === 'number') return { name, type, values: Float64Array.from(values as number[]) };
  if (type === 'string') return { name, type, values: values as string[] };
  return { name, type, values: Uint8Array.from(values, value => (value ? 1 : 0)) };
}

/** Any float64, every bit pattern as likely. (NaN only as JavaScript keeps it.) */
export const anyFloat64: fc.Arbitrary<number> = fc
  .tuple(fc.nat(0xffffffff), fc.nat(0xffffffff))
  .map(([high, low]) => {
    const view = new DataView(new ArrayBuffer(8));
    view.setUint32(0, high);
    view.setUint32(4, low);
    return view.getFloat64(0);
  });

const wellFormed = (maxLength: number): fc.Arbitrary<string> =>
  fc.string({ unit: 'binary', maxLength }).map(text => text.toWellFormed());

const numberValue = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.tuple(fc.integer({ min: -1e6, max: 1e6 }), fc.nat(6)).map(([m, s]) => m / 10 ** s),
  },
  { weight: 2, arbitrary: fc.double() },
  { weight: 2, arbitrary: anyFloat64 },
  {
    weight: 1,
    arbitrary: fc.constantFrom(-0, 0, 5e-324, -5e-324, 2 ** 53, -(2 ** 53), 0.1 + 0.2, 1e308, -1e-308),
  },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 2 ** 52 }) },
);
const value: fc.Arbitrary<Value> = fc.oneof(
  { weight: 4, arbitrary: numberValue },
  { weight: 1, arbitrary: wellFormed(12) },
  { weight: 1, arbitrary: fc.boolean() },
);

const deviceName = fc.oneof(
  fc.constantFrom('dev-0007', 'dev-0008', 'dev-7', 'dev-12', '9', '009', 'a:b.c', 'x', '1234567890123456789'),
  fc.stringMatching(/^[A-Za-z0-9_.:-]{1,20}$/),
);
const time = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1_700_000_000_000, max: 1_700_000_100_000 }) },
  { weight: 1, arbitrary: fc.double({ min: 0, max: 2e12, noNaN: true }) },
  { weight: 1, arbitrary: fc.double({ noNaN: true, noDefaultInfinity: true }) },
);
const metricName = fc.oneof(
  fc.constantFrom('temperature', 'state', '__proto__', 'constructor', '', 'ünïcode', '\u0000'),
  wellFormed(8),
);

const message: fc.Arbitrary<SampleMessage> = fc.record({
  device: deviceName,
  kind: fc.constantFrom(...kinds),
  receivedAt: time,
  elements: fc.array(
    fc.record({
      ts: fc.option(time, { nil: undefined }),
      values: fc.array(fc.tuple(metricName, value), { maxLength: 5 }).map(entries => new Map(entries)),
    }),
    { maxLength: 3 },
  ),
});

/** Columns as they really are: some hundred messages of a few devices, each metric with one character of its own. */
const steadyMessages: fc.Arbitrary<SampleMessage[]> = fc
  .record({
    deviceCount: fc.integer({ min: 1, max: 20 }),
    messageCount: fc.integer({ min: 1, max: 200 }),
    intervalMs: fc.integer({ min: 0, max: 60_000 }),
    metrics: fc.uniqueArray(
      fc.record({
        name: metricName,
        values: fc.array(value, { minLength: 1, maxLength: 6 }),
        drift: numberValue,
      }),
      { selector: metric => metric.name, maxLength: 4 },
    ),
  })
  .map(({ deviceCount, messageCount, intervalMs, metrics }) =>
    Array.from({ length: messageCount }, (_, i) => ({
      device: `dev-${String((i * 7) % deviceCount).padStart(3, '0')}`,
      receivedAt: 1_700_000_000_000 + i * intervalMs,
      elements: [
        {
          values: new Map(
            metrics.map(({ name, values, drift }) => {
              const one = values[i % values.length]!;
              return [name, typeof one === 'number' ? one + i * drift : one] as const;
            }),
          ),
        },
      ],
    })),
  );

const setAsideMessage = (count: number): fc.Arbitrary<SetAside> =>
  fc
    .record({
      sequenceOffset: fc.nat(count - 1),
      reason: wellFormed(40),
      topic: wellFormed(40),
      receivedAt: time.map(at => at + 0),
      more: fc.nat(1_000_000),
      payload: fc.uint8Array({ maxLength: 64 }),
    })
    .map(({ more, ...rest }) => ({ ...rest, payloadBytes: rest.payload.length + more }));

const anyLogId = fc
  .uint8Array({ minLength: 16, maxLength: 16 })
  .map(bytes => Buffer.from(bytes).toString('hex') as LogId);

const readingsBatch: fc.Arbitrary<ReadingsBatch> = fc
  .tuple(fc.oneof(fc.array(message, { maxLength: 40 }), steadyMessages), anyLogId, fc.nat(2 ** 31 - 1))
  .chain(([messages, id, firstSequence]) =>
    fc
      .array(setAsideMessage(Math.max(1, messages.length)), { maxLength: 3 })
      .map(setAside => ({ ...batchOfMessages(messages, setAside), logId: id, firstSequence })),
  );
const lostBatch: fc.Arbitrary<Batch> = fc
  .record({
    logId: anyLogId,
    firstSequence: fc.integer({ min: 0, max: 2 ** 48 - 1 }),
    count: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
    reason: wellFormed(60),
  })
  .map(fields => ({ settlement: 'lost', ...fields }));

const finiteNumber = numberValue.map(number => (Number.isFinite(number) ? number : 0));
const extremesAndMean = fc.oneof(
  fc.tuple(finiteNumber, finiteNumber, finiteNumber).map(values => values.sort((a, b) => a - b)),
  // As thinning leaves them: decimals near one another, a mean of nine digits.
  fc
    .tuple(fc.integer({ min: -1e5, max: 1e5 }), fc.nat(500), fc.double({ min: 0, max: 1, noNaN: true }))
    .map(([low, span, share]) => {
      const mean = Number(((low + span * share) / 100).toPrecision(9));
      return [low / 100, Math.min((low + span) / 100, Math.max(low / 100, mean)), (low + span) / 100];
    }),
);
const summary = (intervalMs: number): fc.Arbitrary<SampleSummary> =>
  fc
    .record({
      device: deviceName,
      metric: metricName,
      interval: fc.oneof(
        fc.integer({ min: 0, max: 5 }).map(step => Math.floor(1_700_000_000_000 / intervalMs) + step),
        fc.nat(Math.floor((2 ** 43 - 1) / intervalMs)),
      ),
      numbers: extremesAndMean,
      count: fc.oneof(fc.integer({ min: 2, max: 600 }), fc.integer({ min: 2, max: 2 ** 32 - 1 })),
    })
    .map(({ device, metric, interval, numbers: [minimum, mean, maximum], count }) => ({
      device,
      metric,
      from: interval * intervalMs,
      minimum: minimum!,
      maximum: maximum!,
      mean: mean!,
      count: minimum === maximum ? 1 : count,
    }));

export const thinnedBatch: fc.Arbitrary<ThinnedBatch> = fc
  .tuple(readingsBatch, fc.constantFrom(...thinningIntervalsMs), fc.nat(2 ** 32 - 5000), time, time)
  .chain(([kept, intervalMs, more, oneTime, otherTime]) =>
    fc
      .uniqueArray(summary(intervalMs), {
        selector: ({ device, metric, from }) => `${device} ${from} ${metric}`,
        maxLength: 40,
      })
      .map(entries => {
        const [receivedFrom, receivedTo] = oneTime < otherTime ? [oneTime, otherTime] : [otherTime, oneTime];
        return thinnedAround(kept, entries, {
          intervalMs,
          receivedFrom,
          receivedTo,
          count: kept.count + more,
        });
      }),
  );

export const anyBatch: fc.Arbitrary<Batch> = fc.oneof(
  { weight: 9, arbitrary: readingsBatch },
  { weight: 6, arbitrary: thinnedBatch },
  { weight: 1, arbitrary: lostBatch },
);
