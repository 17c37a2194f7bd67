/** The buffer against a model: whatever is appended, settled, reopened in any order, what is read is what was stored. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
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
} from './support.ts';

type Step =
  | { do: 'append'; count: number; payloadLength: number }
  | { do: 'read'; log: number; from: number; to: number; messagesMax: number; bytesMax: number }
  | { do: 'settle'; log: number; from: number; count: number }
  | { do: 'reopen' };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('append' as const),
      count: fc.integer({ min: 1, max: 60 }),
      payloadLength: fc.constantFrom(0, 30, 300, 3000),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('read' as const),
      log: fc.nat(5),
      from: fc.nat(150),
      to: fc.nat(250),
      messagesMax: fc.integer({ min: 1, max: 80 }),
      bytesMax: fc.constantFrom(1, 500, 20_000),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('settle' as const),
      log: fc.nat(5),
      from: fc.nat(100),
      count: fc.nat(60),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('reopen' as const) }) },
);

test('append, read, settle and reopen against a model', async () => {
  const property = fc.asyncProperty(
    fc.array(step, { minLength: 5, maxLength: 30 }),
    fc.constantFrom(600, 5_000, 100_000),
    fc.constantFrom(0, 4_000, 1_000_000),
    async (steps, segmentBytesMax, recentBytesMax) => {
      const directory = await makeTemporaryFolder();
      const options = { segmentBytesMax, recentBytesMax };
      let buffer = await open(directory, options);
      /** Ids by log; sequence n is at index n - 1. */
      const stored = new Map<LogId, { id: number; bytes: number }[]>([[buffer.current, []]]);
      const settled = new Map<LogId, RangeSet>();
      let nextId = 1;
      try {
        for (const one of steps) {
          const ids = [...stored.keys()];
          if (one.do === 'append') {
            const batch = range(nextId, nextId + one.count).map(id => message(id, one.payloadLength));
            nextId += one.count;
            await store(buffer, batch);
            for (const each of batch) {
              const entry = { id: each.receivedAt - 1_700_000_000_000, bytes: each.payload.length };
              stored.get(buffer.current)!.push(entry);
            }
          } else if (one.do === 'read') {
            const logId = ids[one.log % ids.length]!;
            const { from, to, messagesMax, bytesMax } = one;
            const frames = await readFrames(buffer, logId, from, { toSequence: to, messagesMax, bytesMax });
            const expected: number[] = [];
            let bytes = 0;
            for (const [index, entry] of stored.get(logId)!.entries()) {
              if (index + 1 < from || index + 1 >= to || expected.length === messagesMax) continue;
              if (expected.length > 0 && bytes + entry.bytes > bytesMax) break;
              bytes += entry.bytes;
              expected.push(entry.id);
            }
            assert.deepEqual(frames.map(idOf), expected);
          } else if (one.do === 'settle') {
            const logId = ids[one.log % ids.length]!;
            const set = RangeSet.of(one.from, one.from + one.count);
            const known = set.subtract(stored.get(logId)!.length + 1, Number.MAX_SAFE_INTEGER);
            buffer.settle(logId, set);
            settled.set(logId, (settled.get(logId) ?? RangeSet.empty).union(known));
          } else {
            await buffer.close();
            if (stored.get(buffer.current)!.length === 0) stored.delete(buffer.current);
            buffer = await open(directory, options);
            assert.ok(!stored.has(buffer.current), 'every opening has its own log');
            stored.set(buffer.current, []);
          }
        }
        assert.deepEqual(
          buffer.logs().map(log => log.logId),
          [...stored.keys()],
        );
        for (const [logId, entries] of stored) {
          const info = infoOf(buffer, logId);
          assert.equal(info.nextSequence, entries.length + 1);
          assert.ok(info.lost.isEmpty);
          assert.ok(info.settled.equals(settled.get(logId) ?? RangeSet.empty));
          const frames = await readAll(buffer, logId);
          assert.deepEqual(
            frames.map(frame => [frame.sequence, idOf(frame)]),
            entries.map(({ id }, index) => [index + 1, id]),
          );
        }
        const newest = await buffer.recentFrames(40);
        assert.deepEqual(newest.map(idOf), range(Math.max(1, nextId - 40), nextId));
      } finally {
        await buffer.close();
        await fs.rm(directory, { recursive: true });
      }
    },
  );
  await fc.assert(property, { numRuns: 60, verbose: 1 });
});
