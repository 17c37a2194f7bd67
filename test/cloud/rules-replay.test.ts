/**
 * One incident per cause, whatever is replayed: a gateway whose link was cut, folded as it came, against the same with a
 * crash in between, after which each twin begins from some stored state and the lanes are read again from a checkpoint. A
 * failing case prints its seed and the shrunk input.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { IncidentTransition } from '../../cloud/actors/incident.ts';
import type { Rule } from '../../cloud/actors/rule.ts';
import { advance, newSiteState, receiveBatch, type SiteState } from '../../cloud/actors/site.ts';
import type { TwinState } from '../../cloud/actors/twin.ts';
import { restoreTwin, storeTwin } from '../../cloud/twin-json.ts';
import { buildBatch } from '../../edge-gateway/batch-builder.ts';
import type { ReadingsBatch } from '../../protocol/batch.ts';
import type { Heartbeat } from '../../protocol/heartbeat.ts';
import { type LogId, logId } from '../../protocol/ids.ts';
import type { Lane } from '../../protocol/subjects.ts';
import { frame, LOG_ID, RECEIVED_AT } from '../edge-gateway/frames.ts';
import { book, SITE, tooHot } from './twins.ts';

const STEP_MS = 5000;
const scope = { site: null, device: null, deviceType: null, tag: null, severity: 'info' } as const;
const rules: Rule[] = [
  { ...tooHot, metric: 't' },
  { ...tooHot, id: 'long-hot', metric: 't', forMs: 12_000 },
  { ...scope, id: 'gone', kind: 'absence', metric: null, forMs: 12_000 },
  { ...scope, id: 't-gone', kind: 'absence', metric: 't', forMs: 22_000 },
  {
    ...scope,
    id: 'steep',
    kind: 'rate',
    metric: 't',
    direction: 'either',
    threshold: 15,
    perMs: 5000,
    hysteresis: 0,
    forMs: 0,
  },
  {
    ...scope,
    id: 'odd',
    kind: 'anomaly',
    metric: 't',
    deviations: 2,
    window: 20,
    warmup: 4,
    floor: 0,
    hysteresis: 0,
    forMs: 0,
  },
];
const all = book(...rules);

type Message =
  | { readonly lane: Lane; readonly batch: ReadingsBatch }
  | { readonly lane: 'live'; readonly heartbeat: Heartbeat };

interface Scene {
  readonly messages: readonly Message[];
  /** The first that says that the backlog is settled. */
  readonly settledAt: number;
}

const thresholds = book(...rules.filter(({ kind }) => kind === 'threshold'));

const at = (step: number): number => RECEIVED_AT + step * STEP_MS;

interface Cut {
  readonly cut: number;
  readonly down: number;
  readonly draining: number;
  readonly mix: number;
}

/** What comes out of a gateway whose link is down for `down` steps from `cut` on, and whose backlog takes `draining`. */
function sceneOf(values: readonly (number | null)[][], { cut, down, draining, mix }: Cut): Scene {
  const back = cut + down;
  const settled = back + draining;
  const live: { step: number; message: Message }[] = [];
  const backlog: Message[] = [];
  let sequence = 0;
  for (const [step, row] of values.entries()) {
    for (const [device, value] of row.entries()) {
      if (value === null) continue;
      sequence++;
      const payload = JSON.stringify({ t: value });
      const topic = `devices/d${device}/telemetry`;
      // Apart by some milliseconds, so that nothing arrives at the time of a heartbeat.
      const batch = buildBatch(LOG_ID, [
        frame(sequence, topic, payload, { receivedAt: at(step) + 100 + device }),
      ]);
      if (step >= cut && step < back) backlog.push({ lane: 'backfill', batch });
      else live.push({ step, message: { lane: 'live', batch } });
    }
    if (step >= cut && step < back) continue;
    const completeUntil = step >= back && step < settled ? at(cut) : at(step) + 1000;
    const heartbeat: Heartbeat = {
      settlement: 'heartbeat',
      logId: LOG_ID,
      at: at(step) + 1000,
      completeUntil,
      hearingSince: 0,
      coversSite: false,
    };
    live.push({ step, message: { lane: 'live', heartbeat } });
  }
  const messages: Message[] = live.filter(({ step }) => step < back).map(({ message }) => message);
  const during = live.filter(({ step }) => step >= back && step < settled).map(({ message }) => message);
  messages.push(...interleaved(during, backlog, mix));
  const after = live.filter(({ step }) => step >= Math.max(back, settled)).map(({ message }) => message);
  // The heartbeat of a step comes behind its readings.
  const first = after.findIndex(message => 'heartbeat' in message);
  return { messages: [...messages, ...after], settledAt: messages.length + Math.max(0, first) };
}

/** Both in their order; `mix` says how. */
function interleaved(a: readonly Message[], b: readonly Message[], mix: number): Message[] {
  const out: Message[] = [];
  let random = mix >>> 0;
  for (let i = 0, j = 0; i < a.length || j < b.length; ) {
    random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
    if (j >= b.length || (i < a.length && random % 3 === 0)) out.push(a[i++]!);
    else out.push(b[j++]!);
  }
  return out;
}

interface Run {
  readonly twins: Map<string, TwinState>;
  readonly told: IncidentTransition[];
  readonly state: SiteState;
}

const newRun = (twins = new Map<string, TwinState>()): Run => ({
  twins,
  told: [],
  state: newSiteState(SITE),
});

function fold(run: Run, message: Message, index = all): void {
  const { state, twins } = run;
  const outcome =
    'batch' in message
      ? receiveBatch(state, twins, { batch: message.batch, gateway: 'g1', lane: message.lane }, index)
      : advance(state, twins, 'g1', message.heartbeat, index);
  for (const [device, { after }] of outcome.changes) twins.set(device, after);
  run.told.push(...outcome.transitions);
}

const cuts: fc.Arbitrary<Cut> = fc.record({
  cut: fc.nat(30),
  down: fc.nat(12),
  draining: fc.nat(5),
  mix: fc.nat(),
});
/** Long enough that all is settled, and judged, at the end. */
const STEPS_AFTER = 20;
const STEPS_MAX = 30 + 12 + 5;
const values = fc
  .array(
    fc.tuple(
      ...Array.from({ length: 2 }, () => fc.constantFrom<number | null>(10, 20, 29, 35, 40, null, null)),
    ),
    { minLength: 8, maxLength: 40 },
  )
  .map(rows => {
    const padding = Math.max(rows.length, STEPS_MAX) + STEPS_AFTER - rows.length;
    return [...rows, ...Array.from({ length: padding }, () => [10, 10])];
  });

/** By id how it ended, which is what history keeps. */
const endings = (told: readonly IncidentTransition[]) =>
  new Map(
    told
      .toSorted((a, b) => Number(a.clearedAt !== null) - Number(b.clearedAt !== null))
      .map(({ id, clearedAt }) => [id, clearedAt]),
  );

const plain = (twins: ReadonlyMap<string, TwinState>) =>
  new Map(
    [...twins].sort().map(([device, twin]) => [device, JSON.parse(storeTwin({ ...twin, version: 0 }, 0))]),
  );

test('a crash, and whatever is replayed after it, gives the same incidents and the same twins', () => {
  const seen = { opened: 0, late: 0 };
  fc.assert(
    fc.property(
      values,
      cuts,
      fc.nat(),
      fc.nat(),
      fc.array(fc.nat(), { minLength: 2, maxLength: 2 }),
      (rows, cut, c, p, ahead) => {
        const { messages, settledAt } = sceneOf(rows, cut);
        const clean = newRun();
        for (const message of messages) fold(clean, message);
        for (const { late } of clean.told) seen[late ? 'late' : 'opened']++;

        const crash = c % (messages.length + 1);
        // A heartbeat that says the backlog is settled comes after history has settled it.
        const least = crash > settledAt ? settledAt : 0;
        const checkpoint = least + (p % (crash - least + 1));
        const first = newRun();
        const stored = new Map<string, string>();
        for (let done = 0; done <= crash; done++) {
          for (const [device, twin] of first.twins) {
            const behind = crash - checkpoint;
            const upTo = checkpoint + (behind === 0 ? 0 : ahead[Number(device.slice(1))]! % (behind + 1));
            if (done <= upTo) stored.set(device, storeTwin(twin, 1));
          }
          if (done < crash) fold(first, messages[done]!);
        }
        const twins = [...stored].map(
          ([device, json]) => [device, restoreTwin(SITE, device, json)!] as const,
        );
        const second = newRun(new Map(twins));
        for (const message of messages.slice(checkpoint)) fold(second, message);

        assert.deepEqual(endings([...first.told, ...second.told]), endings(clean.told));
        assert.deepEqual(plain(second.twins), plain(clean.twins));
      },
    ),
    { numRuns: 300 },
  );
  assert.ok(seen.opened > 200 && seen.late > 20, JSON.stringify(seen));
});

test('a backlog on its way changes nothing of what is paged meanwhile, whatever the order', () => {
  fc.assert(
    fc.property(values, cuts, (rows, cut) => {
      const { messages, settledAt } = sceneOf(rows, cut);
      const head = messages.slice(0, settledAt);
      const [withBacklog, liveOnly] = [newRun(), newRun()];
      for (const message of head) fold(withBacklog, message, thresholds);
      for (const message of head) if (message.lane === 'live') fold(liveOnly, message, thresholds);
      assert.deepEqual(
        withBacklog.told.filter(({ late }) => !late),
        liveOnly.told.filter(({ late }) => !late),
      );
    }),
    { numRuns: 300 },
  );
});

test('what the backlog leaves behind has its true times', () => {
  let late = 0;
  fc.assert(
    fc.property(values, cuts, (rows, cut) => {
      const [asItCame, inOrder] = [newRun(), newRun()];
      for (const message of sceneOf(rows, cut).messages) fold(asItCame, message, thresholds);
      for (const message of sceneOf(rows, { ...cut, down: 0, draining: 0 }).messages) {
        fold(inOrder, message, thresholds);
      }
      const truth = endings(inOrder.told);
      for (const { id, clearedAt } of asItCame.told.filter(one => one.late)) {
        late++;
        assert.equal(clearedAt, truth.get(id), id);
      }
    }),
    { numRuns: 300 },
  );
  assert.ok(late > 20, `${late}`);
});

test('what a gateway had before its restart comes when the devices have long gone on', () => {
  const run = newRun();
  const AFTER_RESTART = logId('f'.repeat(32));
  const receive = (lane: Lane, log: LogId, sequence: number, step: number, value: number) => {
    const payload = JSON.stringify({ t: value });
    const batch = buildBatch(log, [
      frame(sequence, 'devices/d0/telemetry', payload, { receivedAt: at(step) }),
    ]);
    fold(run, { lane, batch }, thresholds);
  };
  const heartbeat = (step: number, completeUntil: number) =>
    fold(run, {
      lane: 'live',
      heartbeat: {
        settlement: 'heartbeat',
        logId: AFTER_RESTART,
        at: at(step),
        completeUntil,
        hearingSince: 0,
        coversSite: true,
      },
    });
  receive('live', LOG_ID, 1, 0, 10);
  for (const [index, value] of [10, 10, 40, 10, 10].entries())
    receive('live', AFTER_RESTART, index + 1, index + 3, value);
  receive('backfill', LOG_ID, 2, 1, 40);
  heartbeat(9, at(8));
  const found = [...endings(run.told.filter(({ rule }) => rule === 'too-hot'))].map(([id, clearedAt]) => [
    id.split(':').at(-1),
    ((clearedAt ?? 0) - RECEIVED_AT) / STEP_MS,
  ]);
  assert.deepEqual(found, [
    ['3.0', 6],
    ['2.0', 3],
  ]);
});

test('with more ups and downs than a twin remembers', () => {
  const lateOf = (live: readonly number[], backlog: readonly number[]): number[] => {
    const run = newRun();
    const receive = (lane: Lane, step: number, value: number) => {
      const options = { receivedAt: at(step) };
      const payload = JSON.stringify({ t: value });
      const batch = buildBatch(LOG_ID, [frame(step + 1, 'devices/d0/telemetry', payload, options)]);
      fold(run, { lane, batch }, thresholds);
    };
    for (const [i, value] of live.entries()) receive('live', backlog.length + i, value);
    for (const [step, value] of backlog.entries()) receive('backfill', step, value);
    const seen = new Set(run.told.filter(({ late }) => !late).map(({ id }) => id));
    return run.told
      .filter(({ id, rule, late }) => late && rule === 'too-hot' && !seen.has(id))
      .map(({ openedAt }) => (openedAt - RECEIVED_AT) / STEP_MS);
  };
  const flapping = (steps: number) => Array.from({ length: steps }, (_, step) => (step % 2 === 0 ? 10 : 40));

  // In the backlog: each is left behind, but for those that are still remembered.
  const found = lateOf(flapping(6), [...flapping(100), 10]);
  assert.deepEqual(
    found,
    found.map((_, i) => 2 * i + 1),
  );
  assert.ok(found.length > 30, `${found.length}`);
  // In what is live: there may be no room for what comes late, but it is never told in pieces.
  for (let steps = 2; steps < 80; steps++) {
    const late = lateOf(flapping(steps), [10, 10, 40, 40, 40, 40, 40, 40, 10, 10]);
    assert.ok(late.length <= 1, `${late} beside ${steps}`);
  }
});
