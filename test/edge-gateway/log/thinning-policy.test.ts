/** A buffer nearly full of what waits: what gives way, and what never does (invariants A, B, F). */
import assert from 'node:assert/strict';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Compactor, compactHere, type Job } from '../../../edge-gateway/log/compaction-job.ts';
import { nodeFiles } from '../../../edge-gateway/log/files.ts';
import { planThinning } from '../../../edge-gateway/log/thinning-plan.ts';
import { commonMapping } from '../../../edge-gateway/mapping/compile.ts';
import { forEachRow } from '../../../protocol/batch-rows.ts';
import { RangeSet } from '../../../protocol/range-set.ts';
import {
  contentOf,
  event,
  fill,
  messageOf,
  openCompacting,
  type ReadRun,
  readRuns,
  sequencesOf,
  THINNED,
} from './compacting.ts';
import { infoOf, range, temporaryFolder } from './support.ts';

const BYTES_MAX = 50_000;
const options = {
  bytesMax: BYTES_MAX,
  segmentBytesMax: 10_000,
  recentBytesMax: 0,
  nearFull: 'thin',
} as const;

/** Readings of a metric by what is left of them, and the events. */
function tally(runs: readonly ReadRun[]): { readings: number; summarised: number; events: number } {
  const found = { readings: 0, summarised: 0, events: 0 };
  for (const { batch } of runs) {
    if (batch.settlement === 'thinned') {
      const { summaries } = batch;
      for (let i = 0; i < summaries.length; i++) {
        if (summaries.metrics[summaries.metric[i]!] === 'temperature')
          found.summarised += summaries.count[i]!;
      }
    }
    forEachRow(batch.settlement === 'thinned' ? batch.kept : batch, ({ names }) => {
      if (names.includes('temperature')) found.readings++;
      if (names.includes('event.door')) found.events++;
    });
  }
  return found;
}

test('far more than fits: events as they were, every reading in a row or in one summary, the oldest coarsest', async t => {
  const directory = await temporaryFolder(t);
  const now = await openCompacting(directory, options);
  const { buffer } = now;
  const count = 20_000;
  assert.equal(await fill(now, 1, count + 1), count + 1);
  assert.ok(buffer.stats().bytes <= BYTES_MAX);
  const { thinned, lost } = infoOf(buffer, buffer.current);
  assert.ok(lost.isEmpty);
  assert.ok(thinned.contains(1), `${thinned}`);
  assert.equal(buffer.stats().messagesThinned, thinned.size);
  const runs = await readRuns(buffer, buffer.current);
  assert.equal(RangeSet.from(runs.map(run => run.range)).toString(), `{[1,${count + 1})}`);
  const found = tally(runs);
  assert.equal(found.events, count / 50);
  assert.equal(found.readings + found.summarised, count - count / 50);
  assert.ok(found.summarised > count / 4, `${found.summarised} summarised`);
  const intervals = runs.flatMap(({ batch }) => (batch.settlement === 'thinned' ? [batch.intervalMs] : []));
  assert.deepEqual(
    intervals,
    intervals.toSorted((a, b) => b - a),
  );
  await buffer.close();
  const again = await openCompacting(directory, options);
  assert.deepEqual(tally(await readRuns(again.buffer, buffer.current)), found);
  assert.equal(again.buffer.stats().messagesThinned, thinned.size);
  await again.buffer.close();
});

test('what was read for sending is never thinned, also after a restart', async t => {
  const directory = await temporaryFolder(t);
  let now = await openCompacting(directory, options);
  const { current } = now.buffer;
  await fill(now, 1, 1_500);
  await now.compacted();
  const sent = (await readRuns(now.buffer, current)).slice(0, 4);
  const sentTo = sent.at(-1)!.range.to;
  const isSent = ({ range: { to } }: ReadRun) => to <= sentTo;
  await now.buffer.close();
  now = await openCompacting(directory, options);
  await fill(now, 1_500, 12_000);
  const runs = await readRuns(now.buffer, current);
  assert.deepEqual(contentOf(runs.filter(isSent)), contentOf(sent));
  assert.ok(infoOf(now.buffer, current).thinned.isEmpty, 'all of that log was read');
  assert.ok(now.buffer.stats().messagesThinned > 0);
  await now.buffer.close();
});

test('in a copy of the folder the original may have sent all: it is never thinned there, also after a restart (B)', async t => {
  const directory = await temporaryFolder(t);
  const clone = join(await temporaryFolder(t), 'clone');
  let now = await openCompacting(directory, options);
  const { current } = now.buffer;
  await fill(now, 1, 1_500);
  await now.compacted();
  await now.buffer.close();
  await fs.cp(directory, clone, { recursive: true });
  now = await openCompacting(clone, options);
  await now.buffer.close();
  for (const [folder, isCopy] of [
    [clone, true],
    [directory, false],
  ] as const) {
    now = await openCompacting(folder, options);
    await fill(now, 1_500, 8_000);
    assert.ok(now.buffer.stats().messagesThinned > 0);
    assert.equal(infoOf(now.buffer, current).thinned.isEmpty, isCopy);
    await now.buffer.close();
  }
});

test('what is in part settled is never thinned', async t => {
  const directory = await temporaryFolder(t);
  const now = await openCompacting(directory, options);
  const { buffer } = now;
  await fill(now, 1, 1_000);
  buffer.settle(buffer.current, RangeSet.of(5, 6));
  await fill(now, 1_000, 12_000);
  const { thinned } = infoOf(buffer, buffer.current);
  assert.ok(!thinned.isEmpty && !thinned.contains(1));
  assert.ok((await readRuns(buffer, buffer.current))[0]!.batch.settlement === 'raw');
  await buffer.close();
});

test('events alone, or push-back asked for: the intake is refused, as a full buffer does, and all is kept', async t => {
  for (const [nearFull, make] of [
    ['thin', (id: number) => event(id % 5, id)],
    ['push-back', messageOf],
  ] as const) {
    const now = await openCompacting(await temporaryFolder(t), { ...options, nearFull });
    const { buffer } = now;
    const stored = (await fill(now, 1, 1_000_000, make, 300)) - 1;
    assert.equal(buffer.stats().full, true);
    assert.equal(buffer.stats().messagesThinned, 0);
    assert.deepEqual(await sequencesOf(buffer, buffer.current), range(1, stored + 1));
    const space = new Promise<void>(resolve => buffer.onSpace(resolve));
    buffer.settle(buffer.current, RangeSet.of(1, stored));
    await space;
    await buffer.close();
  }
});

test('a file that is being thinned is not read for sending until it is done; then it is read thinned', async t => {
  const directory = await temporaryFolder(t);
  const real = compactHere(nodeFiles, commonMapping);
  const held = Promise.withResolvers<void>();
  const thinning = Promise.withResolvers<Job>();
  const compactor: Compactor = {
    ...real,
    async run(job) {
      if (job.work === 'thin') {
        thinning.resolve(job);
        await held.promise;
      }
      return real.run(job);
    },
  };
  const now = await openCompacting(directory, { ...options, compactor });
  const { buffer } = now;
  const filling = fill(now, 1, 12_000);
  const { target } = await thinning.promise;
  const read = () => buffer.read(buffer.current, target.firstSequence, { messagesMax: 10, bytesMax: 1e6 });
  assert.deepEqual(await read(), { form: 'frames', frames: [] });
  const thinned = now.logged(THINNED);
  held.resolve();
  await thinned;
  const run = (await readRuns(buffer, buffer.current)).find(one => one.range.from === target.firstSequence);
  assert.equal(run!.batch.settlement, 'thinned');
  await filling;
  await buffer.close();
});

test('the plan: neighbours of one log and level, the oldest of the level that takes most room', () => {
  const candidate = fc.record({
    log: fc.nat(2),
    bytes: fc.integer({ min: 1, max: 400_000 }),
    level: fc.nat(3),
  });
  fc.assert(
    fc.property(fc.array(candidate, { maxLength: 30 }), fc.array(fc.boolean()), (some, holes) => {
      let next = 1;
      const candidates = some
        .toSorted((a, b) => a.log - b.log)
        .map((one, index) => {
          const firstSequence = next + (holes[index] ? 5 : 0);
          next = firstSequence + 100_000;
          return { ...one, firstSequence, nextSequence: next };
        });
      const run = planThinning(candidates, 800_000);
      assert.equal(run.length > 0, candidates.length > 0);
      if (run.length === 0) return;
      const room = (level: number) =>
        candidates.filter(one => one.level === level).reduce((sum, { bytes }) => sum + bytes, 0);
      const { level } = run[0]!;
      for (const other of range(0, 4)) assert.ok(room(other) <= room(level));
      assert.equal(
        run[0],
        candidates.find(one => one.level === level),
      );
      for (const [index, one] of run.entries()) {
        assert.ok(one.level === level && one.log === run[0]!.log);
        if (index > 0) assert.equal(one.firstSequence, run[index - 1]!.nextSequence);
      }
      const bytes = run.reduce((sum, one) => sum + one.bytes, 0);
      assert.ok(run.length === 1 || bytes <= 800_000);
      assert.ok(level > 0 || run.length <= 2, 'what is decoded as a whole is bounded');
    }),
  );
});
