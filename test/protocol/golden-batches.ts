/**
 * The batches behind `golden/v1-*`, which between them use every coding of version 1. Run this file to write those that
 * do not exist yet; those that do are left alone.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import type { Batch, Value } from '../../protocol/batch.ts';
import { encodeBatch } from '../../protocol/batch-codec.ts';
import {
  batchOfMessages,
  SAMPLE_LOG_ID,
  type SampleMessage,
  type SampleSummary,
  thinnedAround,
} from './sample-batches.ts';

const START_MS = 1_700_000_000_000;
const entries = (values: Record<string, Value>) => new Map(Object.entries(values));

/** Whole numbers in 0 … 2^32 - 1, the same everywhere. */
function* pseudoRandom(): Generator<number, never, void> {
  for (let state = 1; ; ) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    yield state;
  }
}

function fleet(): SampleMessage[] {
  const random = pseudoRandom();
  const below = (bound: number): number => random.next().value % bound;
  return Array.from({ length: 200 }, (_, i) => {
    const late = START_MS + i * 20 + below(7);
    return {
      device: `dev-${String((i * 37) % 60).padStart(4, '0')}`,
      receivedAt: START_MS + Math.floor(i / 9),
      elements: [
        {
          ts: late,
          values: entries({
            temperature: (2000 + ((i * 37) % 60) * 7 + below(9)) / 100,
            uniform: below(1000) / 1000,
            rare: i % 67 === 0 ? below(100) : 5,
            counter: i * 3 + 1_000_000,
            zeroBelow: i === 100 ? -0 : below(50) / 10,
            computed: i % 20 === 0 ? 74.93588199999998 : 74.935882,
            float32: Math.fround(20 + below(1000) / 333),
            noise: below(2 ** 31) / 3 / 2 ** 31 + below(2 ** 31),
            on: below(4) === 0,
            state: ['idle', 'busy', 'ünïcode 🌡'][below(3)]!,
          }),
        },
      ],
    };
  });
}

function mixed(): SampleMessage[] {
  return [
    { device: 'a:b.c', kind: 'event', receivedAt: START_MS, elements: [] },
    {
      device: '007',
      kind: 'status',
      receivedAt: START_MS + 0.25,
      elements: [
        { values: entries({ mode: 'on', level: 5e-324 }) },
        { ts: START_MS - 86_400_000, values: entries({ mode: false, level: -1.7976931348623157e308 }) },
        { values: new Map() },
      ],
    },
    {
      device: 'x',
      kind: 'location',
      receivedAt: START_MS + 9,
      elements: [{ values: entries({ lat: 52.520008, lon: -13.404954 }) }],
    },
  ];
}

/** Metrics that share their cells, ones that do not, means that are decimals, and ones that are not. */
function summaries(): SampleSummary[] {
  const random = pseudoRandom();
  const below = (bound: number): number => random.next().value % bound;
  const from = 1_699_999_800_000;
  const entries = Array.from({ length: 60 }, (_, i) => {
    const cell = { device: `dev-${String(i % 20).padStart(4, '0')}`, from: from + (i % 3) * 600_000 };
    const low = 2000 + (i % 20) * 7 + below(9);
    const wave = below(2 ** 31) / 3;
    return [
      {
        ...cell,
        metric: 'temperature',
        minimum: low / 100,
        mean: low / 100 + 0.125,
        maximum: low / 100 + 0.25,
        count: 600,
      },
      { ...cell, metric: 'on', minimum: 0, mean: below(1000) / 1000, maximum: 1, count: 600 },
      { ...cell, metric: 'wave', minimum: -wave, mean: wave / 7, maximum: wave, count: 599 - below(3) },
    ];
  }).flat();
  const once = { device: 'a:b.c', minimum: -0, mean: -0, maximum: -0, count: 1 };
  return [
    ...entries,
    { ...once, metric: 'ünïcode 🌡', from: 0 },
    {
      ...once,
      metric: 'huge',
      from,
      minimum: -1.7976931348623157e308,
      mean: 5e-324,
      maximum: 1.5e308,
      count: 2 ** 32 - 1,
    },
  ];
}

export const goldenBatches: Readonly<Record<string, Batch>> = {
  'v1-fleet': batchOfMessages(fleet()),
  'v1-mixed': batchOfMessages(mixed(), [
    {
      sequenceOffset: 0,
      reason: 'not JSON: unexpected end',
      topic: 'devices/a/telemetry',
      receivedAt: START_MS,
      payloadBytes: 5000,
      payload: Uint8Array.of(123, 34, 0, 255),
    },
  ]),
  'v1-thinned': thinnedAround(batchOfMessages(mixed()), summaries(), {
    intervalMs: 600_000,
    receivedFrom: START_MS - 0.5,
    receivedTo: START_MS + 1_800_000,
    count: 2 ** 20,
  }),
  'v1-thinned-bare': thinnedAround(batchOfMessages([]), [], { intervalMs: 86_400_000, count: 2 ** 32 - 1 }),
  'v1-lost': {
    settlement: 'lost',
    logId: SAMPLE_LOG_ID,
    firstSequence: 2 ** 47 + 1,
    count: 123_456,
    reason: 'segment 17: checksum wrong at byte 4096',
  },
};

/** Exact: typed arrays as plain arrays, -0 kept. */
export const toJson = (batch: Batch): string =>
  `${JSON.stringify(
    batch,
    (_, value: unknown) => {
      if (ArrayBuffer.isView(value)) return Array.from(value as Float64Array);
      return Object.is(value, -0) ? '-0' : value;
    },
    1,
  )}\n`;

if (process.argv[1] === import.meta.filename) {
  const folder = new URL('golden/', import.meta.url);
  mkdirSync(folder, { recursive: true });
  const compressions = { 'v1-fleet': 'none', 'v1-mixed': 'deflate' } as const;
  for (const [name, batch] of Object.entries(goldenBatches)) {
    const file = new URL(`${name}.hex`, folder);
    if (existsSync(file)) continue;
    const compression = compressions[name as keyof typeof compressions] ?? 'zstd';
    const hex = encodeBatch(batch, { compression }).toString('hex');
    writeFileSync(file, hex.replace(/.{1,96}/g, '$&\n'));
    writeFileSync(new URL(`${name}.json`, folder), toJson(batch));
  }
}
