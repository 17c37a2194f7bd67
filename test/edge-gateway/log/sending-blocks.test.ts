/** The uplink's plan over a buffer of blocks and frames: all arrives, whatever part of a block is settled, and it ends. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import pino from 'pino';
import { newBatchReader } from '../../../edge-gateway/batch-reader.ts';
import { commonMapping } from '../../../edge-gateway/mapping/compile.ts';
import {
  acknowledged,
  failed,
  newSendPlan,
  passed,
  resettle,
  settle,
  take,
  waiting,
} from '../../../edge-gateway/send-plan.ts';
import { decodeBatch } from '../../../protocol/batch-codec.ts';
import { type Range, RangeSet } from '../../../protocol/range-set.ts';
import { openCompacting, telemetry } from './compacting.ts';
import { infoOf, makeTemporaryFolder, open, range, store } from './support.ts';

const COUNT = 300;
const one = fc.record({ from: fc.integer({ min: 1, max: COUNT }), count: fc.integer({ min: 1, max: 120 }) });
const set = fc
  .array(one, { maxLength: 4 })
  .map(some =>
    RangeSet.from(some.map(({ from, count }) => ({ from, to: Math.min(from + count, COUNT + 1) }))),
  );
const fate = fc.constantFrom('settled', 'settled', 'refused', 'settled in part', 'passed over');

test('every sequence is settled in the end, with as many batches as there are blocks and failures', async () => {
  const property = fc.asyncProperty(
    set,
    set,
    fc.array(fate, { maxLength: 40 }),
    async (before, lost, fates) => {
      const directory = await makeTemporaryFolder();
      const plain = await open(directory, { segmentBytesMax: 4_000 });
      for (let id = 0; id < COUNT; id += 20) {
        await store(
          plain,
          range(id, id + 20).map(each => telemetry(each % 5, each)),
        );
      }
      await plain.close();
      // The last segments stay frames.
      const { buffer, compacted } = await openCompacting(directory, { keepMessages: 90 });
      await compacted();
      try {
        const logId = plain.current;
        const readBatch = newBatchReader({
          buffer,
          mapping: commonMapping,
          logger: pino({ level: 'silent' }),
        });
        const arrived = new Set(before.ranges.flatMap(({ from, to }) => range(from, to)));
        let plan = settle(newSendPlan(), before);
        let place = 0;
        const told = before;
        buffer.settle(logId, told);
        let sends = 0;
        for (; ; sends++) {
          const next = waiting(plan, 1, infoOf(buffer, logId).nextSequence).ranges[0];
          if (!next) break;
          assert.ok(sends < 2 * COUNT, 'it ends');
          const batch = await readBatch(logId, next, 50);
          assert.ok(batch);
          const { from, to }: Range = batch.range;
          assert.ok(from < next.to && next.from < to, 'something of what was asked for is in it');
          const decoded = decodeBatch(batch.bytes);
          assert.ok(decoded.outcome === 'batch' && decoded.batch.firstSequence === from);
          plan = take(plan, batch.range, 's', 'backfill', batch.bytes.length);
          const what = fates[sends] ?? 'settled';
          if (what === 'refused') {
            plan = failed(plan, batch.range);
            continue;
          }
          plan = acknowledged(plan, batch.range, ++place);
          const settledTo = what === 'settled' ? to : what === 'passed over' ? from : (from + to) >> 1;
          for (const sequence of range(from, settledTo)) arrived.add(sequence);
          plan = passed(
            settle(plan, RangeSet.of(from, settledTo)),
            { created: 's', sequence: place },
            'backfill',
          );
          buffer.settle(logId, RangeSet.of(from, settledTo));
          // History comes back as it was some time ago, once.
          if (sends === 12) {
            const left = RangeSet.from([...arrived].map(each => ({ from: each, to: each + 1 }))).difference(
              lost,
            );
            plan = resettle(plan, left);
            arrived.clear();
            for (const { from: a, to: b } of left.ranges) for (const each of range(a, b)) arrived.add(each);
          }
        }
        assert.equal(arrived.size, COUNT);
      } finally {
        await buffer.close();
        await fs.rm(directory, { recursive: true });
      }
    },
  );
  await fc.assert(property, { numRuns: 60 });
});
