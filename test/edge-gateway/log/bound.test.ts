/** The size bound (invariant F) and space given back only for what is settled (invariant A). */
import assert from 'node:assert/strict';
import * as fs from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { planReclaim } from '../../../edge-gateway/log/reclaim.ts';
import type { LogId } from '../../../protocol/ids.ts';
import { RangeSet } from '../../../protocol/range-set.ts';
import {
  idOf,
  infoOf,
  makeTemporaryFolder,
  message,
  open,
  range,
  readAll,
  readFrames,
  store,
  temporaryFolder,
} from './support.ts';

test('reclaim takes settled segments, oldest first, as many as are needed, and old or covered ones in any case', () => {
  const segments = [
    { name: 'a', bytes: 10, settledAtMs: 900, covered: false },
    { name: 'b', bytes: 10, settledAtMs: null, covered: true },
    { name: 'c', bytes: 10, settledAtMs: 950, covered: false },
    { name: 'd', bytes: 10, settledAtMs: 100, covered: false },
    { name: 'e', bytes: 10, settledAtMs: 990, covered: false },
    { name: 'f', bytes: 10, settledAtMs: 995, covered: true },
  ];
  const plan = (bytesToFree: number, keepSettledMs: number) =>
    planReclaim(segments, { bytesToFree, nowMs: 1000, keepSettledMs })
      .map(({ name }) => name)
      .join('');
  assert.equal(plan(0, 10_000), 'f');
  assert.equal(plan(1, 10_000), 'af');
  assert.equal(plan(11, 10_000), 'acf');
  assert.equal(plan(1000, 10_000), 'acdef', 'b is not settled, whatever a backup has (A)');
  assert.equal(plan(0, 500), 'df');
  assert.equal(plan(1, 500), 'adf');
});

test('at the bound nothing is stored; settling gives space and says so', async t => {
  const directory = await temporaryFolder(t);
  const bytesMax = 20_000;
  const buffer = await open(directory, { bytesMax, segmentBytesMax: 2_000 });
  let stored = 0;
  for (;;) {
    const outcome = await new Promise<string>(resolve => {
      const answer = buffer.append(message(stored + 1, 100), () => resolve('durable'));
      if (answer === 'full') resolve(answer);
    });
    if (outcome === 'full') break;
    stored++;
  }
  assert.ok(buffer.stats().bytes <= bytesMax && buffer.stats().bytes > bytesMax - 1_000);
  assert.equal(buffer.stats().full, true);
  let spaces = 0;
  buffer.onSpace(() => spaces++);
  buffer.settle(buffer.current, RangeSet.of(2, stored + 1));
  assert.equal(
    buffer.append(message(9_999), () => undefined),
    'accepted',
    'all but the first segment went',
  );
  assert.equal(spaces, 1);
  assert.ok(infoOf(buffer, buffer.current).firstSequence === 1, 'the first message is not settled');
  assert.equal(idOf((await readFrames(buffer, buffer.current, 1, { messagesMax: 1, bytesMax: 1 }))[0]!), 1);
  await buffer.close();
});

test('a buffer whose only segment is in work and settled does not stay full', async t => {
  const directory = await temporaryFolder(t);
  const buffer = await open(directory, { bytesMax: 3_000, segmentBytesMax: 1_000_000 });
  let stored = 0;
  while (buffer.append(message(stored + 1, 100), () => undefined) === 'accepted') stored++;
  const space = new Promise<void>(resolve => buffer.onSpace(resolve));
  const settle = () => buffer.settle(buffer.current, RangeSet.of(1, stored + 1));
  buffer.onDurable(settle);
  settle();
  await space;
  await store(buffer, [message(stored + 1)]);
  await buffer.close();
});

test('settled segments go after their time, over restarts, and are not called lost', async t => {
  const directory = await temporaryFolder(t);
  let now = 1_700_000_000_000;
  const options = { segmentBytesMax: 500, nowMs: () => now, keepSettledMs: 1_000 };
  const first = await open(directory, options);
  for (const id of range(1, 30)) await store(first, [message(id)]);
  first.settle(first.current, RangeSet.of(8, 20));
  await first.close();
  now += 500;
  const second = await open(directory, options);
  assert.deepEqual((await readAll(second, first.current)).map(idOf), range(1, 30), 'not yet');
  await second.close();
  now += 600;
  const third = await open(directory, options);
  await third.close();
  const fourth = await open(directory, options);
  const ids = (await readAll(fourth, first.current)).map(idOf);
  const gone = range(1, 30).filter(id => !ids.includes(id));
  assert.ok(gone.length > 0 && gone.every(id => id >= 8 && id < 20), `${gone}`);
  assert.ok(infoOf(fourth, first.current).lost.isEmpty);
  fourth.settle(first.current, RangeSet.of(1, 30));
  await fourth.close();
  now += 1_100;
  await (await open(directory, options)).close();
  const last = await open(directory, options);
  assert.deepEqual(
    last.logs().map(log => log.logId),
    [last.current],
    'a log with nothing left is gone',
  );
  await last.close();
});

test('within any sequence of appends, settlements and restarts the bound holds and nothing unsettled goes', async () => {
  const step = fc.oneof(
    fc.record({ append: fc.integer({ min: 1, max: 40 }), payloadLength: fc.constantFrom(12, 200) }),
    fc.record({ settle: fc.nat(5), from: fc.nat(80), count: fc.nat(80) }),
    fc.constant('reopen' as const),
  );
  const property = fc.asyncProperty(fc.array(step, { minLength: 8, maxLength: 40 }), async steps => {
    const directory = await makeTemporaryFolder();
    const options = { bytesMax: 12_000, segmentBytesMax: 1_500, recentBytesMax: 0 };
    let buffer = await open(directory, options);
    const unsettled = new Map<LogId, Map<number, number>>();
    const next = new Map<LogId, number>();
    let id = 0;
    try {
      for (const one of steps) {
        if (one === 'reopen') {
          await buffer.close();
          buffer = await open(directory, options);
        } else if ('append' in one) {
          const waiting: Promise<void>[] = [];
          for (let count = 0; count < one.append; count++) {
            const mine = ++id;
            let done: () => void = () => undefined;
            const durable = new Promise<void>(resolve => {
              done = resolve;
            });
            if (buffer.append(message(mine, one.payloadLength), done) === 'full') break;
            waiting.push(durable);
            const sequence = next.get(buffer.current) ?? 1;
            next.set(buffer.current, sequence + 1);
            const mineToKeep = unsettled.get(buffer.current) ?? new Map<number, number>();
            unsettled.set(buffer.current, mineToKeep.set(sequence, mine));
          }
          await Promise.all(waiting);
        } else {
          const logs = buffer.logs();
          const { logId } = logs[one.settle % logs.length]!;
          buffer.settle(logId, RangeSet.of(one.from, one.from + one.count));
          for (const sequence of range(one.from, one.from + one.count))
            unsettled.get(logId)?.delete(sequence);
        }
        assert.ok(buffer.stats().bytes <= options.bytesMax, `${buffer.stats().bytes} bytes`);
      }
      for (const [logId, expected] of unsettled) {
        if (expected.size === 0) continue;
        const found = new Map((await readAll(buffer, logId)).map(frame => [frame.sequence, idOf(frame)]));
        for (const [sequence, mine] of expected) assert.equal(found.get(sequence), mine);
        assert.ok(infoOf(buffer, logId).lost.isEmpty);
      }
      // With all settled, a full buffer opens up again.
      const full = buffer.stats().full;
      const space = new Promise<void>(resolve => buffer.onSpace(resolve));
      for (const { logId, nextSequence } of buffer.logs()) buffer.settle(logId, RangeSet.of(1, nextSequence));
      if (full) await space;
      await store(buffer, [message(++id)]);
    } finally {
      await buffer.close();
      await fs.rm(directory, { recursive: true });
    }
  });
  await fc.assert(property, { numRuns: 60 });
});
