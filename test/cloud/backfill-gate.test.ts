/** How a backlog leaves room for live readings. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { newBackfillGate } from '../../cloud/backfill-gate.ts';

test('one at a time, in order, and a failure is its own only', async () => {
  const gate = newBackfillGate();
  const steps: string[] = [];
  const work = (name: string) => async () => {
    steps.push(`${name} in`);
    await sleep(5);
    steps.push(`${name} out`);
    if (name === 'b') throw new Error('no');
    return name;
  };
  const results = await Promise.allSettled(['a', 'b', 'c'].map(name => gate.pass(work(name))));
  assert.deepEqual(steps, ['a in', 'a out', 'b in', 'b out', 'c in', 'c out']);
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  );
});

test('while live readings come in, each is followed by a pause as long as it took; without them there is none', async () => {
  const gate = newBackfillGate();
  const starts: number[] = [];
  const ends: number[] = [];
  const work = async () => {
    starts.push(performance.now());
    await sleep(40);
    ends.push(performance.now());
  };
  await Promise.all([gate.pass(work), gate.pass(work)]);
  const quiet = starts[1]! - ends[0]!;
  gate.noteLive();
  await Promise.all([gate.pass(work), gate.pass(work)]);
  const busy = starts[3]! - ends[2]!;
  assert.ok(busy >= 38, `a pause of ${busy} ms`);
  assert.ok(quiet < busy, `${quiet} ms without live readings, ${busy} ms with them`);
});
