/**
 * What is exported counts as sent, so that a gateway which is nearly full cannot thin it together with newer messages: of such a
 * run history would take the stick's part, and the rest could only be declared lost (invariants A, B).
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import pino from 'pino';
import { countAsSent } from '../../edge-gateway/export/count-as-sent.ts';
import { bootId } from '../../edge-gateway/log/boot-id.ts';
import { type Compactor, compactHere, type Job } from '../../edge-gateway/log/compaction-job.ts';
import type { DiskBuffer } from '../../edge-gateway/log/disk-buffer.ts';
import { nodeFiles } from '../../edge-gateway/log/files.ts';
import { readSent } from '../../edge-gateway/log/sent-marks.ts';
import { commonMapping } from '../../edge-gateway/mapping/compile.ts';
import { startStatusServer } from '../../edge-gateway/status/server.ts';
import { decodeBatch } from '../../protocol/batch-codec.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import { fill, openCompacting, readRuns, THINNED } from '../edge-gateway/log/compacting.ts';
import { infoOf } from '../edge-gateway/log/support.ts';
import { exportFrom, type Keys, newKeys, openBuffer, opened, store, temporaryFolder } from './support.ts';

const small = { bytesMax: 50_000, segmentBytesMax: 10_000, recentBytesMax: 0, nearFull: 'thin' } as const;

async function places(t: TestContext) {
  const data = await temporaryFolder(t);
  return { data, log: join(data, 'log'), stick: await temporaryFolder(t), keys: await newKeys() };
}

/** The socket of a gateway with this buffer. */
function serve(data: string, markSent: DiskBuffer['markSent']) {
  return startStatusServer({
    dataDirectory: data,
    metricsPort: null,
    state: () => assert.fail('nobody asks'),
    markSent,
    logger: pino({ level: 'silent' }),
  });
}

const exportOf = (data: string, stick: string, keys: Keys) =>
  exportFrom(join(data, 'log'), stick, keys, { countAsSent: runs => countAsSent(data, runs) });

async function batchesOf(files: readonly { file: string }[], keys: Keys) {
  const batches = [];
  for (const { file } of files) {
    for (const { bytes } of (await opened(file, keys)).batches) {
      const decoded = decodeBatch(bytes);
      assert.ok(decoded.outcome === 'batch' && 'count' in decoded.batch);
      const { settlement, firstSequence, count } = decoded.batch;
      batches.push({ settlement, from: firstSequence, to: firstSequence + count });
    }
  }
  return batches;
}

test('beside a running gateway: what was exported is not thinned afterwards, also after a restart', async t => {
  const { data, log, stick, keys } = await places(t);
  let now = await openCompacting(log, small);
  const { current } = now.buffer;
  const server = await serve(data, now.buffer.markSent);
  await fill(now, 1, 1_500);
  const { nextSequence } = infoOf(now.buffer, current);
  const outcome = await exportOf(data, stick, keys);
  assert.equal(outcome.messages, nextSequence - 1);
  assert.ok((await readSent(nodeFiles, join(log, current))).covers(1, nextSequence), 'on the disk');
  await fill(now, 1_500, 8_000);
  assert.ok(now.buffer.stats().messagesThinned > 0);
  assert.ok(!infoOf(now.buffer, current).thinned.intersects(1, nextSequence));
  await server.close();
  await now.buffer.close();
  now = await openCompacting(log, small);
  await fill(now, 8_000, 14_000);
  assert.ok(!infoOf(now.buffer, current).thinned.intersects(1, nextSequence));
  await now.buffer.close();
});

test('where no gateway runs: the next one does not thin it', async t => {
  const { data, log, stick, keys } = await places(t);
  let now = await openCompacting(log, small);
  const { current } = now.buffer;
  await fill(now, 1, 1_500);
  await now.compacted();
  await now.buffer.close();
  await exportOf(data, stick, keys);
  now = await openCompacting(log, small);
  await fill(now, 1_500, 8_000);
  assert.ok(now.buffer.stats().messagesThinned > 0);
  assert.ok(infoOf(now.buffer, current).thinned.isEmpty);
  await now.buffer.close();
});

test('what is being thinned at this moment is exported thinned, as the gateway will send it', async t => {
  const { data, log, stick, keys } = await places(t);
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
  const now = await openCompacting(log, { ...small, compactor });
  const { buffer } = now;
  const asked = Promise.withResolvers<void>();
  const server = await serve(data, runs => {
    asked.resolve();
    return buffer.markSent(runs);
  });
  const filling = fill(now, 1, 12_000);
  const { target } = await thinning.promise;
  const exporting = exportOf(data, stick, keys);
  await asked.promise;
  // One that does not wait is done by then.
  await Promise.race([exporting, delay(2000)]);
  const thinned = now.logged(THINNED);
  held.resolve();
  await thinned;
  const exported = await batchesOf((await exporting).files, keys);
  const run = exported.find(({ from, to }) => from <= target.firstSequence && target.firstSequence < to);
  assert.equal(run?.settlement, 'thinned');
  const kept = (await readRuns(buffer, buffer.current)).find(({ range }) => range.from === run.from);
  assert.deepEqual({ settlement: kept?.batch.settlement, ...kept?.range }, run);
  await filling;
  await server.close();
  await buffer.close();
});

test('where it cannot be noted, nothing is written: a disk that refuses, a gateway without its socket', async t => {
  const { data, log, stick, keys } = await places(t);
  const buffer = await openBuffer(log, { bootId: bootId() });
  await store(buffer, 1, 11);
  await assert.rejects(exportOf(data, stick, keys), /not-marked.*in use by process/);
  const server = await serve(data, () => Promise.resolve(false));
  await assert.rejects(exportOf(data, stick, keys), /not-marked.*does not take the mark/);
  assert.deepEqual(await fs.readdir(stick), []);
  await server.close();
  await buffer.close();
  const outcome = await exportOf(data, stick, keys);
  assert.equal(outcome.messages, 10);
  const sent = await readSent(nodeFiles, join(log, buffer.current));
  assert.ok(sent.equals(RangeSet.of(1, 11)), `${sent}`);
});
