/** What a confirmed backup of history has is given back before its time; what is not settled or is needed never is (A). */
import assert from 'node:assert/strict';
import * as fs from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import type { BufferOptions, DiskBuffer } from '../../../edge-gateway/log/disk-buffer.ts';
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
  store,
  temporaryFolder,
} from './support.ts';

const HOUR_MS = 3_600_000;
const compactor = {
  run: () => Promise.reject(new Error('there is nothing to compact')),
  close: async () => {},
};

async function filled(directory: string, options: Partial<BufferOptions>): Promise<DiskBuffer> {
  const buffer = await open(directory, options);
  for (const id of range(1, 61)) await store(buffer, [message(id)]);
  return buffer;
}

/** Filled by a gateway that ran before, and all of it in history. @returns its log */
async function settledBefore(directory: string, options: Partial<BufferOptions>): Promise<LogId> {
  const buffer = await filled(directory, options);
  buffer.settle(buffer.current, RangeSet.of(1, 61));
  await buffer.close();
  return buffer.current;
}

const keptIn = async (buffer: DiskBuffer, logId = buffer.current) => (await readAll(buffer, logId)).map(idOf);

test('settled segments stay for 72 hours, and go at once when a confirmed backup has all of them', async t => {
  const directory = await temporaryFolder(t);
  let now = 1_700_000_000_000;
  const options = { segmentBytesMax: 500, nowMs: () => now };
  const logId = await settledBefore(directory, options);

  now += 30 * HOUR_MS;
  t.mock.timers.enable({ apis: ['setInterval'] });
  const second = await open(directory, options);
  assert.deepEqual(await keptIn(second, logId), range(1, 61), 'settled for 30 hours');
  second.cover(logId, RangeSet.of(1, 31));
  t.mock.timers.tick(10_000);
  const left = await keptIn(second, logId);
  const gone = range(1, 61).filter(id => !left.includes(id));
  assert.ok(gone.length > 20 && gone.every(id => id < 31), `gone: ${gone}`);
  // A whole segment or nothing.
  assert.ok(infoOf(second, logId).lost.isEmpty);
  second.cover(logId, RangeSet.of(1, 61));
  t.mock.timers.tick(10_000);
  const last = await keptIn(second, logId);
  assert.ok(
    last.length > 0 && last.every(id => id > 50),
    `the last segment stays, so that the log is named: ${last}`,
  );
  await second.close();
  now += 73 * HOUR_MS;
  const third = await open(directory, options);
  await third.close();
  const fourth = await open(directory, options);
  assert.equal(fourth.logs().length, 1, 'a log with nothing left is gone');
  await fourth.close();
});

test('a history from before the backup: what was given back is declared lost, but not while the stream may have it', async t => {
  const directory = await temporaryFolder(t);
  let now = 1_700_000_000_000;
  const options = { segmentBytesMax: 500, nowMs: () => now };
  const logId = await settledBefore(directory, options);
  t.mock.timers.enable({ apis: ['setInterval'] });
  const buffer = await open(directory, options);
  buffer.cover(logId, RangeSet.of(1, 61));
  t.mock.timers.tick(10_000);
  const { firstSequence } = infoOf(buffer, logId);
  assert.ok(firstSequence > 50);

  buffer.settle(logId, RangeSet.of(1, 11), true);
  buffer.cover(logId, RangeSet.empty);
  assert.equal(infoOf(buffer, logId).missing.toString(), RangeSet.of(11, firstSequence).toString());
  now += 60_000;
  t.mock.timers.tick(10_000);
  assert.ok(infoOf(buffer, logId).lost.isEmpty, 'not yet');
  buffer.settle(logId, RangeSet.of(20, 31));
  now += 600_000;
  t.mock.timers.tick(10_000);
  const { lost, missing } = infoOf(buffer, logId);
  assert.equal(lost.toString(), RangeSet.of(11, firstSequence).subtract(20, 31).toString());
  assert.ok(missing.isEmpty);
  buffer.settle(logId, RangeSet.of(1, 61), true);
  assert.ok(infoOf(buffer, logId).lost.isEmpty, 'history has taken note');
  await buffer.close();
});

test('without a backup 72 hours are the bound', async t => {
  const directory = await temporaryFolder(t);
  let now = 1_700_000_000_000;
  const options = { segmentBytesMax: 500, nowMs: () => now };
  const logId = await settledBefore(directory, options);
  now += 71 * HOUR_MS;
  const second = await open(directory, options);
  assert.deepEqual(await keptIn(second, logId), range(1, 61));
  await second.close();
  now += 2 * HOUR_MS;
  const third = await open(directory, options);
  // The last segment was sealed by the first restart, and settled as a whole since then.
  const kept = await keptIn(third, logId);
  assert.ok(
    kept.every(id => id > 50),
    `${kept}`,
  );
  await third.close();
});

test('the newest messages stay as frames, for recognising re-deliveries, whatever is covered', async t => {
  const directory = await temporaryFolder(t);
  const compaction = { compactor, keepMessages: 20, nearFull: 'push-back' } as const;
  const options = { segmentBytesMax: 500, compaction };
  const logId = await settledBefore(directory, options);
  t.mock.timers.enable({ apis: ['setInterval'] });
  const second = await open(directory, options);
  second.cover(logId, RangeSet.of(1, 61));
  t.mock.timers.tick(10_000);
  const recent = (await second.recentFrames(20)).map(idOf);
  assert.deepEqual(recent, range(41, 61));
  assert.ok((await keptIn(second, logId)).length < 30, 'and not many more');
  await second.close();
});

test('what is covered is not remembered over a restart, and another word takes its place', async t => {
  const directory = await temporaryFolder(t);
  const options = { segmentBytesMax: 500 };
  const first = await filled(directory, options);
  const logId = first.current;
  first.settle(logId, RangeSet.of(1, 61));
  first.cover(logId, RangeSet.of(1, 61));
  first.cover(logId, RangeSet.empty);
  await first.close();
  const second = await open(directory, options);
  assert.deepEqual(await keptIn(second, logId), range(1, 61));
  await second.close();
});

test('in any order of settling, covering and going back nothing unsettled goes, and what is kept reads as it was', async t => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const set = fc
    .array(fc.record({ from: fc.integer({ min: 1, max: 61 }), count: fc.integer({ min: 1, max: 60 }) }), {
      maxLength: 3,
    })
    .map(runs => RangeSet.from(runs.map(({ from, count }) => ({ from, to: Math.min(61, from + count) }))));
  const step = fc.oneof(
    fc.record({ settle: set, whole: fc.boolean() }),
    fc.record({ cover: set }),
    fc.constant('reopen' as const),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 12 }), async steps => {
      const directory = await makeTemporaryFolder();
      const options = { segmentBytesMax: 500 };
      let buffer = await filled(directory, options);
      const logId = buffer.current;
      let settled = RangeSet.empty;
      // What history has had at any time may be gone: it was given back then.
      let ever = RangeSet.empty;
      try {
        for (const one of steps) {
          if (one === 'reopen') {
            await buffer.close();
            buffer = await open(directory, options);
          } else if ('cover' in one) buffer.cover(logId, one.cover);
          else {
            settled = one.whole ? one.settle : settled.union(one.settle);
            ever = ever.union(settled);
            buffer.settle(logId, one.settle, one.whole);
          }
          t.mock.timers.tick(10_000);
        }
        if (!buffer.logs().some(log => log.logId === logId)) assert.ok(ever.covers(1, 61));
        else {
          const kept = await keptIn(buffer, logId);
          for (const id of range(1, 61)) assert.ok(kept.includes(id) || ever.contains(id), `${id} is gone`);
        }
      } finally {
        await buffer.close();
        await fs.rm(directory, { recursive: true });
      }
    }),
    { numRuns: 40 },
  );
});
