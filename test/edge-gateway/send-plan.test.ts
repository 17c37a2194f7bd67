/** The send plan against a model that keeps one entry per sequence and never joins anything. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  acknowledged,
  failed,
  newSendPlan,
  type Position,
  passed,
  type SendPlan,
  settle,
  take,
  waiting,
} from '../../edge-gateway/send-plan.ts';
import { type Range, RangeSet } from '../../protocol/range-set.ts';

const END = 30;
const waits = (plan: SendPlan): string => waiting(plan, 1, END).toString();

test('taken, acknowledged, settled: done', () => {
  let plan = take(newSendPlan(), { from: 1, to: 10 }, 's1');
  assert.equal(waits(plan), '{[10,30)}');
  plan = acknowledged(plan, { from: 1, to: 10 }, 7);
  assert.equal(waits(plan), '{[10,30)}');
  plan = passed(settle(plan, RangeSet.of(1, 10)), { created: 's1', sequence: 7 });
  assert.equal(waits(plan), '{[10,30)}');
  assert.deepEqual(plan.sent, []);
});

test('what history settled before the start is not sent', () => {
  assert.equal(waits(newSendPlan(RangeSet.of(1, 20))), '{[20,30)}');
});

test('what failed waits again', () => {
  const plan = failed(take(newSendPlan(), { from: 1, to: 10 }, 's1'), { from: 1, to: 10 });
  assert.equal(waits(plan), '{[1,30)}');
});

test('unsettled is no reason to send again while history has not come that far', () => {
  let plan = acknowledged(take(newSendPlan(), { from: 1, to: 10 }, 's1'), { from: 1, to: 10 }, 7);
  plan = passed(plan, { created: 's1', sequence: 6 });
  assert.equal(waits(plan), '{[10,30)}');
  plan = passed(plan, { created: 's1', sequence: 7 });
  assert.equal(waits(plan), '{[1,30)}');
});

test('what history passed and settled in part: the rest is sent again', () => {
  let plan = acknowledged(take(newSendPlan(), { from: 1, to: 10 }, 's1'), { from: 1, to: 10 }, 7);
  plan = passed(settle(plan, RangeSet.of(3, 6)), { created: 's1', sequence: 7 });
  assert.equal(waits(plan), '{[1,3),[6,30)}');
});

test('another stream: what the lost one held is sent again, what is in flight is not', () => {
  let plan = acknowledged(take(newSendPlan(), { from: 1, to: 10 }, 's1'), { from: 1, to: 10 }, 7);
  plan = take(plan, { from: 10, to: 20 }, 's1');
  plan = passed(plan, { created: 's2', sequence: 0 });
  assert.equal(waits(plan), '{[1,10),[20,30)}');
});

test('neighbours in the stream become one entry, also when acknowledged in the other order', () => {
  let plan = newSendPlan();
  for (let from = 1; from < 21; from += 5) plan = take(plan, { from, to: from + 5 }, 's1');
  for (const from of [16, 6, 11, 1]) plan = acknowledged(plan, { from, to: from + 5 }, 100 + from);
  assert.deepEqual(plan.sent, [{ from: 1, to: 21, lane: 'live', bytes: 0, created: 's1', sequence: 116 }]);
  // Joined, they wait for the last of them: sent again later than needed, never too early.
  assert.equal(waits(passed(plan, { created: 's1', sequence: 101 })), '{[21,30)}');
  assert.equal(waits(passed(plan, { created: 's1', sequence: 116 })), '{[1,30)}');
});

test('a long wait for history stays cheap (F)', () => {
  let plan = newSendPlan();
  for (let from = 1; from < 10_000; from++) {
    plan = acknowledged(take(plan, { from, to: from + 1 }, 's1'), { from, to: from + 1 }, from);
  }
  assert.equal(plan.sent.length, 1);
});

/** One sequence, as the model sees it. */
type Fate =
  | { readonly at: 'waiting' }
  | { readonly at: 'flying'; readonly created: string }
  | { readonly at: 'stream'; readonly created: string; readonly sequence: number };

type Step =
  | { readonly type: 'take'; readonly length: number }
  | { readonly type: 'ack' | 'fail'; readonly which: number }
  | { readonly type: 'settle'; readonly from: number; readonly length: number; readonly passed: number }
  | { readonly type: 'recreate' }
  | { readonly type: 'catchUp' };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ type: fc.constant('take' as const), length: fc.integer({ min: 1, max: 6 }) }),
  },
  { weight: 5, arbitrary: fc.record({ type: fc.constant('ack' as const), which: fc.nat(5) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('fail' as const), which: fc.nat(5) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('settle' as const),
      from: fc.integer({ min: 1, max: END - 1 }),
      length: fc.nat(6),
      passed: fc.nat(3),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ type: 'recreate' as const }) },
  { weight: 1, arbitrary: fc.constant({ type: 'catchUp' as const }) },
);

test('nothing is forgotten, nothing is sent again while it may still be waiting in the stream (A)', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), steps => {
      let plan = newSendPlan();
      let settled = RangeSet.empty;
      const fates = new Map<number, Fate>();
      for (let sequence = 1; sequence < END; sequence++) fates.set(sequence, { at: 'waiting' });
      let flying: (Range & { created: string })[] = [];
      let stream = { created: 's0', last: 0 };
      let position: Position = { created: 's0', sequence: 0 };

      const put = (range: Range, fate: Fate) => {
        for (let sequence = range.from; sequence < range.to; sequence++) fates.set(sequence, fate);
      };
      const tell = (ranges: RangeSet, to: Position) => {
        position = to;
        settled = settled.union(ranges);
        plan = passed(settle(plan, ranges), position);
      };

      for (const one of steps) {
        if (one.type === 'take') {
          const first = waiting(plan, 1, END).ranges[0];
          if (!first) continue;
          const range = { from: first.from, to: Math.min(first.to, first.from + one.length) };
          for (let sequence = range.from; sequence < range.to; sequence++) {
            const fate = fates.get(sequence)!;
            assert.ok(!settled.contains(sequence), `${sequence} is settled and is sent`);
            assert.notEqual(fate.at, 'flying', `${sequence} is in flight and is sent`);
            if (fate.at === 'stream') {
              const mayComeYet = fate.created === position.created && fate.sequence > position.sequence;
              assert.ok(!mayComeYet, `${sequence} may be waiting in the stream and is sent`);
            }
          }
          plan = take(plan, range, stream.created);
          put(range, { at: 'flying', created: stream.created });
          flying.push({ ...range, created: stream.created });
        } else if (one.type === 'ack' || one.type === 'fail') {
          const range = flying[one.which % Math.max(1, flying.length)];
          if (!range) continue;
          flying = flying.filter(other => other !== range);
          // A stream that went away acknowledges nothing any more.
          if (one.type === 'ack' && range.created === stream.created) {
            plan = acknowledged(plan, range, ++stream.last);
            put(range, { at: 'stream', created: stream.created, sequence: stream.last });
          } else {
            plan = failed(plan, range);
            put(range, { at: 'waiting' });
          }
        } else if (one.type === 'settle') {
          const sequence =
            position.created === stream.created ? Math.min(stream.last, position.sequence + one.passed) : 0;
          tell(RangeSet.of(one.from, Math.min(END, one.from + one.length)), {
            created: stream.created,
            sequence,
          });
        } else if (one.type === 'recreate') {
          stream = { created: `s${Number(stream.created.slice(1)) + 1}`, last: 0 };
        } else {
          // History has come to the end: whatever is neither settled nor in flight must be sent.
          tell(RangeSet.empty, { created: stream.created, sequence: stream.last });
          const left = waiting(plan, 1, END);
          for (const [sequence, fate] of fates) {
            const must = !settled.contains(sequence) && fate.at !== 'flying';
            assert.equal(left.contains(sequence), must, `${sequence} after catching up`);
          }
        }

        // Everything is somewhere.
        const left = waiting(plan, 1, END);
        const sent = RangeSet.from(plan.sent);
        for (let sequence = 1; sequence < END; sequence++) {
          const places = [left, sent, settled].filter(set => set.contains(sequence)).length;
          assert.ok(places >= 1, `${sequence} is forgotten`);
          assert.ok(!(left.contains(sequence) && (sent.contains(sequence) || settled.contains(sequence))));
          if (fates.get(sequence)!.at === 'flying' && !settled.contains(sequence)) {
            assert.ok(sent.contains(sequence), `${sequence} is in flight and not remembered`);
          }
        }
      }
    }),
    { numRuns: 2000 },
  );
});
