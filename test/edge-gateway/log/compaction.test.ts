/** Segments that become blocks: nothing changes but the form (invariants A, B, I), whatever goes wrong meanwhile (H). */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { compactHere } from '../../../edge-gateway/log/compaction-job.ts';
import { startCompactor } from '../../../edge-gateway/log/compactor.ts';
import type { Message } from '../../../edge-gateway/log/disk-buffer.ts';
import { nodeFiles } from '../../../edge-gateway/log/files.ts';
import { commonMapping } from '../../../edge-gateway/mapping/compile.ts';
import { NO_MAPPING } from '../../../edge-gateway/mapping/mapping-file.ts';
import type { LogId } from '../../../protocol/ids.ts';
import { RangeSet } from '../../../protocol/range-set.ts';
import {
  contentOf,
  openCompacting,
  publish,
  readRuns,
  SET_BACK,
  sequencesOf,
  telemetry,
} from './compacting.ts';
import { filesWith, systemError } from './faulty-files.ts';
import { infoOf, makeTemporaryFolder, open, range, store, temporaryFolder } from './support.ts';

const filesOf = (directory: string, logId: LogId): Promise<string[]> => fs.readdir(join(directory, logId));

async function bytesOnDisk(directory: string): Promise<number> {
  let bytes = 0;
  for (const logId of await fs.readdir(directory)) {
    if (logId.length !== 32) continue;
    for (const name of await filesOf(directory, logId as LogId)) {
      if (/\.(segment|blocks|thinned-\d)$/.test(name))
        bytes += (await fs.stat(join(directory, logId, name))).size;
    }
  }
  return bytes;
}

const topic = fc.oneof(
  { weight: 6, arbitrary: fc.nat(4).map(device => `devices/dev-${device}/telemetry`) },
  {
    weight: 1,
    arbitrary: fc.constantFrom('devices/a/events', 'devices/b/status', 'sensors/t/x', 'no/such/topic', ''),
  },
);
const payload = fc.oneof(
  {
    weight: 5,
    arbitrary: fc
      .record({ t: fc.double({ noNaN: true, noDefaultInfinity: true }), on: fc.boolean(), s: fc.string() })
      .map(value => JSON.stringify(value)),
  },
  {
    weight: 3,
    arbitrary: fc
      .integer({ min: -500, max: 500 })
      .map(value => `{"temperature":${value / 10},"ts":${1.7e12 + value}}`),
  },
  {
    weight: 1,
    arbitrary: fc.array(fc.integer(), { maxLength: 5 }).map(list => JSON.stringify(list.map(v => ({ v })))),
  },
  { weight: 1, arbitrary: fc.constantFrom('', '-0', '1e999', '{', 'on', '[]', '{"a":-0}') },
);
const anyMessage: fc.Arbitrary<Message> = fc
  .record({ topic, payload, receivedAt: fc.integer({ min: 1.6e12, max: 1.8e12 }), retain: fc.boolean() })
  .map(one => ({ ...publish(one.topic, Buffer.from(one.payload), one.receivedAt), retain: one.retain }));

test('for any messages, what is read from blocks is what is read from frames', async () => {
  const messages = fc.array(anyMessage, { minLength: 1, maxLength: 120 });
  const property = fc.asyncProperty(
    messages,
    fc.constantFrom(300, 2_000, 9_000),
    async (some, segmentBytesMax) => {
      const directory = await makeTemporaryFolder();
      try {
        const plain = await open(directory, { segmentBytesMax });
        for (let i = 0; i < some.length; i += 10) await store(plain, some.slice(i, i + 10));
        const frames = contentOf(await readRuns(plain, plain.current));
        await plain.close();
        const { buffer, compacted } = await openCompacting(directory, { segmentBytesMax });
        await compacted();
        const runs = await readRuns(buffer, plain.current);
        assert.deepEqual(contentOf(runs), frames);
        assert.deepEqual(await sequencesOf(buffer, plain.current), range(1, some.length + 1));
        assert.equal(buffer.stats().compactionFailures, 0);
        assert.ok(infoOf(buffer, plain.current).lost.isEmpty);
        await buffer.close();
      } finally {
        await fs.rm(directory, { recursive: true });
      }
    },
  );
  await fc.assert(property, { numRuns: 60 });
});

test('a tenth of the room, and the same messages, over restarts', async t => {
  const directory = await temporaryFolder(t);
  const first = await openCompacting(directory);
  const some = range(0, 2_000).map(id => telemetry(id % 20, Math.floor(id / 20)));
  for (let i = 0; i < some.length; i += 100) await store(first.buffer, some.slice(i, i + 100));
  await first.compacted();
  const { buffer } = first;
  assert.ok(buffer.stats().segmentsCompacted > 5);
  const content = contentOf(await readRuns(buffer, buffer.current));
  assert.equal(buffer.stats().messagesUnsettled, 2_000);
  await buffer.close();
  for (let times = 0; times < 2; times++) {
    const again = await openCompacting(directory);
    await again.compacted();
    const runs = await readRuns(again.buffer, buffer.current);
    assert.ok(
      runs.every(({ form }) => form === 'block'),
      'the last segment too, now that it is sealed',
    );
    assert.deepEqual(contentOf(runs), content);
    assert.ok(again.buffer.stats().bytes < 40_000, `${again.buffer.stats().bytes} bytes`);
    assert.equal(again.buffer.stats().bytes, await bytesOnDisk(directory));
    assert.equal(again.buffer.stats().messagesUnsettled, 2_000);
    await again.buffer.close();
  }
});

test('the newest messages stay frames, and are found at the next start', async t => {
  const directory = await temporaryFolder(t);
  const { buffer, compacted } = await openCompacting(directory, {
    keepMessages: 400,
    segmentBytesMax: 5_000,
  });
  for (const second of range(0, 40))
    await store(
      buffer,
      range(0, 25).map(device => telemetry(device, second)),
    );
  await compacted();
  assert.ok(buffer.stats().segmentsCompacted > 3);
  await buffer.close();
  const again = await openCompacting(directory, { keepMessages: 400, segmentBytesMax: 5_000 });
  await again.compacted();
  const newest = await again.buffer.recentFrames(400);
  assert.deepEqual(
    newest.map(frame => frame.sequence),
    range(601, 1001),
  );
  await again.buffer.close();
});

test('what history settles soon is never compacted', async t => {
  const directory = await temporaryFolder(t);
  const { buffer } = await openCompacting(directory, { waitMs: 3_600_000 });
  for (const second of range(0, 40))
    await store(
      buffer,
      range(0, 25).map(device => telemetry(device, second)),
    );
  assert.ok(buffer.stats().segmentsWaiting > 3);
  buffer.settle(buffer.current, RangeSet.of(1, 1001));
  assert.equal(buffer.stats().segmentsWaiting, 0);
  assert.equal(buffer.stats().segmentsCompacted, 0);
  await buffer.close();
});

test('what was settled before its segment was sealed waits for nothing, though another is in work', async t => {
  const directory = await temporaryFolder(t);
  const begun = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const compactor = compactHere(nodeFiles, commonMapping);
  const held: typeof compactor = {
    ...compactor,
    async run(job) {
      begun.resolve();
      await gate.promise;
      return compactor.run(job);
    },
  };
  const { buffer } = await openCompacting(directory, { compactor: held, segmentBytesMax: 2_500 });
  let stored = 0;
  const storeOne = () => store(buffer, [telemetry(0, stored++)]);
  while (buffer.stats().segments < 2) await storeOne();
  await begun.promise;
  const secondSegment = stored;
  while (buffer.stats().segments < 3) {
    buffer.settle(buffer.current, RangeSet.of(secondSegment, stored + 1));
    await storeOne();
  }
  assert.equal(buffer.stats().segmentsWaiting, 1, 'the one in work');
  gate.resolve();
  await buffer.close();
});

test('settled in part and in whole, given back, reopened, in any order: the bound holds, nothing unsettled goes', async () => {
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ append: fc.integer({ min: 1, max: 60 }) }) },
    { weight: 3, arbitrary: fc.record({ settle: fc.nat(4), from: fc.nat(150), count: fc.nat(150) }) },
    { weight: 1, arbitrary: fc.constant('reopen' as const) },
    { weight: 1, arbitrary: fc.constant('compact' as const) },
  );
  const property = fc.asyncProperty(fc.array(step, { minLength: 8, maxLength: 40 }), async steps => {
    const directory = await makeTemporaryFolder();
    const options = { bytesMax: 30_000, segmentBytesMax: 2_500, recentBytesMax: 0 };
    let now = await openCompacting(directory, options);
    const unsettled = new Map<LogId, Set<number>>();
    const stored = new Map<LogId, number>();
    let second = 0;
    try {
      for (const one of steps) {
        const { buffer } = now;
        if (one === 'reopen') {
          await buffer.close();
          now = await openCompacting(directory, options);
        } else if (one === 'compact') {
          await now.compacted();
        } else if ('append' in one) {
          const waiting: Promise<void>[] = [];
          for (let count = 0; count < one.append; count++) {
            const done = Promise.withResolvers<void>();
            if (buffer.append(telemetry(second % 7, second++), done.resolve) === 'full') break;
            waiting.push(done.promise);
            const sequence = (stored.get(buffer.current) ?? 0) + 1;
            stored.set(buffer.current, sequence);
            unsettled.set(buffer.current, (unsettled.get(buffer.current) ?? new Set()).add(sequence));
          }
          await Promise.all(waiting);
        } else {
          const logs = buffer.logs();
          const { logId } = logs[one.settle % logs.length]!;
          buffer.settle(logId, RangeSet.of(one.from, one.from + one.count));
          for (const sequence of range(one.from, one.from + one.count))
            unsettled.get(logId)?.delete(sequence);
        }
        const { bytes } = now.buffer.stats();
        assert.ok(bytes <= options.bytesMax, `${bytes} bytes`);
      }
      await now.compacted();
      let left = 0;
      for (const [logId, expected] of unsettled) {
        left += expected.size;
        if (expected.size === 0) continue;
        const found = new Set(await sequencesOf(now.buffer, logId));
        assert.deepEqual(
          [...expected].filter(sequence => !found.has(sequence)),
          [],
        );
        assert.ok(infoOf(now.buffer, logId).lost.isEmpty);
      }
      assert.equal(now.buffer.stats().messagesUnsettled, left);
    } finally {
      await now.buffer.close();
      await fs.rm(directory, { recursive: true });
    }
  });
  await fc.assert(property, { numRuns: 40 });
});

/** A closed log in one file of blocks of 100 messages or fewer. */
async function closedBlocks(directory: string, count: number) {
  const { buffer } = await openCompacting(directory, { segmentBytesMax: 2_500 });
  for (const id of range(0, count)) await store(buffer, [telemetry(id % 3, id)]);
  await buffer.close();
  const again = await openCompacting(directory);
  await again.compacted();
  const runs = await readRuns(again.buffer, buffer.current);
  await again.buffer.close();
  const names = (await filesOf(directory, buffer.current)).filter(name => name.endsWith('.blocks')).sort();
  return { logId: buffer.current, runs, paths: names.map(name => join(directory, buffer.current, name)) };
}

test('a flipped bit anywhere costs the block it hit and no other, and is declared', async t => {
  const directory = await temporaryFolder(t);
  const { logId, runs, paths } = await closedBlocks(directory, 60);
  assert.ok(paths.length >= 3 && runs.length === paths.length);
  const [path] = paths;
  const content = await fs.readFile(path!);
  for (const bit of range(0, content.length * 8).filter(number => number % 7 === 0)) {
    const flipped = Buffer.from(content);
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    await fs.writeFile(path!, flipped);
    const buffer = await open(directory);
    const found = await readRuns(buffer, logId);
    const hit = bit >> 3 >= 144;
    assert.deepEqual(contentOf(found), contentOf(hit ? runs.slice(1) : runs), `bit ${bit}`);
    const lost = hit ? RangeSet.of(1, runs[0]!.range.to) : RangeSet.empty;
    assert.ok(infoOf(buffer, logId).lost.equals(lost));
    await buffer.close();
  }
});

test('damage in frames is declared when they are compacted, and the rest goes on', async t => {
  const directory = await temporaryFolder(t);
  const plain = await open(directory);
  for (const id of range(0, 100)) await store(plain, [telemetry(id % 3, id)]);
  await plain.close();
  const name = (await filesOf(directory, plain.current)).find(one => one.endsWith('.segment'))!;
  const path = join(directory, plain.current, name);
  const content = await fs.readFile(path);
  content.fill(0xa5, 3_000, 3_300);
  await fs.writeFile(path, content);
  const first = await openCompacting(directory);
  await first.compacted();
  const { lost } = infoOf(first.buffer, plain.current);
  assert.ok(lost.size >= 3 && lost.size <= 6, `${lost}`);
  const sequences = range(1, 101).filter(sequence => !lost.contains(sequence));
  assert.deepEqual(await sequencesOf(first.buffer, plain.current), sequences);
  await first.buffer.close();
  const again = await open(directory);
  assert.deepEqual(await sequencesOf(again, plain.current), sequences);
  assert.equal(infoOf(again, plain.current).lost.toString(), lost.toString(), 'found again by the hole');
  await again.close();
});

test('an end at any point leaves either form or both, and unfinished files that are swept away', async t => {
  const directory = await temporaryFolder(t);
  const plain = await open(directory, { segmentBytesMax: 2_500 });
  for (const id of range(0, 60)) await store(plain, [telemetry(id % 3, id)]);
  await plain.close();
  const folder = join(directory, plain.current);
  const segments = new Map<string, Buffer>();
  for (const name of await fs.readdir(folder)) segments.set(name, await fs.readFile(join(folder, name)));
  const { buffer, compacted } = await openCompacting(directory);
  await compacted();
  const content = contentOf(await readRuns(buffer, plain.current));
  await buffer.close();
  const blocks = (await fs.readdir(folder)).filter(name => name.endsWith('.blocks')).sort();
  const [, second] = blocks;
  const whole = await fs.readFile(join(folder, second!));
  await fs.writeFile(
    join(folder, second!.replace('.blocks', '.segment')),
    segments.get(second!.replace('.blocks', '.segment'))!,
  );
  await fs.writeFile(join(folder, `${second!}.new`), whole.subarray(0, 300));
  await fs.writeFile(join(folder, 'settled.json.new'), 'torn');
  const again = await open(directory);
  assert.deepEqual(contentOf(await readRuns(again, plain.current)), content);
  assert.equal(again.stats().bytes, await bytesOnDisk(directory));
  await again.close();
  const left = (await fs.readdir(folder)).filter(name => /\.(segment|blocks|new)$/.test(name)).sort();
  assert.deepEqual(left, blocks);
});

for (const [what, code, files] of [
  ['full', 'ENOSPC', (fail: (path: string) => void) => filesWith({ write: fail })],
  ['read-only', 'EROFS', (fail: (path: string) => void) => filesWith({ create: fail })],
  ['not syncing', 'EIO', (fail: (path: string) => void) => filesWith({ datasync: fail })],
] as const) {
  test(`a disk that is ${what} when segments are compacted: they stay as they are, nothing is lost`, async t => {
    const directory = await temporaryFolder(t);
    const plain = await open(directory, { segmentBytesMax: 2_500 });
    for (const id of range(0, 60)) await store(plain, [telemetry(id % 3, id)]);
    await plain.close();
    const faulty = files(path => {
      if (path.includes('.blocks')) throw systemError(code);
    });
    const now = await openCompacting(directory, { files: faulty });
    assert.equal((await now.logged(SET_BACK)).code, code);
    assert.equal(now.buffer.stats().compactionFailures, 1);
    assert.equal(now.buffer.stats().bytes, await bytesOnDisk(directory));
    assert.deepEqual(await sequencesOf(now.buffer, plain.current), range(1, 61));
    await store(now.buffer, [telemetry(1, 100)]);
    await now.buffer.close();
    assert.ok(!(await filesOf(directory, plain.current)).some(name => name.includes('.blocks')));
    const later = await openCompacting(directory);
    await later.compacted();
    assert.deepEqual(await sequencesOf(later.buffer, plain.current), range(1, 61));
    await later.buffer.close();
  });
}

test('a mapping that throws leaves its segment as it is, and no other', async t => {
  const directory = await temporaryFolder(t);
  const plain = await open(directory, { segmentBytesMax: 2_500 });
  for (const id of range(0, 60)) await store(plain, [telemetry(id % 3, id)]);
  await plain.close();
  const compactor = compactHere(nodeFiles, message => {
    if (message.receivedAt === telemetry(0, 59).receivedAt) throw new Error('a mistake of ours');
    return commonMapping(message);
  });
  const now = await openCompacting(directory, { compactor });
  assert.match((await now.logged(SET_BACK)).reason as string, /a mistake of ours/);
  assert.deepEqual(await sequencesOf(now.buffer, plain.current), range(1, 61));
  await now.buffer.close();
});

test('segments of which blocks are no smaller stay as they are', async t => {
  const directory = await temporaryFolder(t);
  const plain = await open(directory, { segmentBytesMax: 2_500 });
  for (const id of range(0, 40)) await store(plain, [publish('x/y', randomBytes(200), 1.7e12 + id)]);
  await plain.close();
  const before = await bytesOnDisk(directory);
  const now = await openCompacting(directory, { segmentBytesMax: 2_500 });
  await now.compacted();
  assert.equal(now.buffer.stats().segmentsCompacted, 0);
  assert.equal(now.buffer.stats().compactionFailures, 0);
  assert.equal(await bytesOnDisk(directory), before);
  assert.deepEqual(await sequencesOf(now.buffer, plain.current), range(1, 41));
  await now.buffer.close();
});

test('a wall clock that jumps back and forth changes nothing', async t => {
  const directory = await temporaryFolder(t);
  const logIds: LogId[] = [];
  for (const nowMs of [1.7e12, 0, 1.9e12, 1.6e12]) {
    const { buffer, compacted } = await openCompacting(directory, {
      nowMs: () => nowMs,
      segmentBytesMax: 2_500,
    });
    logIds.push(buffer.current);
    for (const id of range(0, 40)) {
      const receivedAt = nowMs + (id % 2 === 0 ? -1 : 1) * id * 86_400_000;
      await store(buffer, [{ ...telemetry(id % 3, id), receivedAt }]);
    }
    await compacted();
    await buffer.close();
  }
  const { buffer, compacted } = await openCompacting(directory);
  await compacted();
  assert.deepEqual(
    buffer.logs().map(log => log.logId),
    [...logIds, buffer.current],
  );
  for (const [index, logId] of logIds.entries()) {
    const runs = await readRuns(buffer, logId);
    const arrivals = runs.flatMap(({ batch }) =>
      batch.settlement === 'raw' ? [...batch.rows.receivedAt] : [],
    );
    assert.equal(arrivals[1], [1.7e12, 0, 1.9e12, 1.6e12][index]! + 86_400_000);
    assert.deepEqual(await sequencesOf(buffer, logId), range(1, 41));
  }
  await buffer.close();
});

test('reading while files change under it: every sequence comes, in order', async t => {
  const directory = await temporaryFolder(t);
  const plain = await open(directory, { segmentBytesMax: 2_500 });
  for (let i = 0; i < 600; i += 10)
    await store(
      plain,
      range(i, i + 10).map(id => telemetry(id % 3, id)),
    );
  await plain.close();
  const { buffer, compacted } = await openCompacting(directory);
  const all = compacted();
  for (let times = 0; times < 5; times++) {
    const runs = await readRuns(buffer, plain.current, 17);
    assert.deepEqual(RangeSet.from(runs.map(({ range: of }) => of)).toString(), '{[1,601)}');
    for (const [index, run] of runs.entries()) {
      if (index > 0 && run.form === 'frames') assert.equal(run.range.from, runs[index - 1]!.range.to);
    }
  }
  await all;
  assert.ok(infoOf(buffer, plain.current).lost.isEmpty);
  await buffer.close();
});

test('the thread compacts; one that dies is replaced, and what it was at stays as it is', async t => {
  const directory = await temporaryFolder(t);
  const plain = await open(directory, { segmentBytesMax: 10_000 });
  for (let i = 0; i < 600; i += 10)
    await store(
      plain,
      range(i, i + 10).map(id => telemetry(id % 3, id)),
    );
  await plain.close();
  for (const script of [
    'process.exit(3)',
    'throw new Error("dead")',
    'const a = []; for (;;) a.push({ a: [1] })',
  ]) {
    const compactor = startCompactor(NO_MAPPING, new URL(`data:text/javascript,${script}`));
    const dying = await openCompacting(directory, { compactor });
    assert.match((await dying.logged(SET_BACK)).reason as string, /the thread that compacts/);
    await store(dying.buffer, [telemetry(1, 1)]);
    await dying.buffer.close();
  }
  const { buffer, compacted } = await openCompacting(directory, { compactor: startCompactor(NO_MAPPING) });
  await compacted();
  assert.ok(buffer.stats().segmentsCompacted >= 6);
  assert.deepEqual(await sequencesOf(buffer, plain.current), range(1, 601));
  await buffer.close();
});

test('a file that has its name, but not on the disk yet: what it was made of stays until it is (A)', async t => {
  const directory = await temporaryFolder(t);
  const plain = await open(directory, { segmentBytesMax: 1_000_000 });
  await store(
    plain,
    range(0, 60).map(id => telemetry(id % 3, id)),
  );
  await plain.close();
  const done: string[] = [];
  const files = {
    ...nodeFiles,
    async rename(from: string, to: string) {
      await nodeFiles.rename(from, to);
      if (to.endsWith('.blocks')) done.push('named');
    },
    async syncFolder(path: string) {
      if (done.at(-1) === 'named') {
        done.push('not synced');
        throw systemError('EIO');
      }
      await nodeFiles.syncFolder(path);
      if (done.length > 0) done.push('synced');
    },
    async remove(path: string) {
      await nodeFiles.remove(path);
      if (done.length > 0 && path.endsWith('.segment')) done.push('source removed');
    },
  };
  const { buffer, compacted } = await openCompacting(directory, { files });
  await compacted();
  assert.deepEqual(await sequencesOf(buffer, plain.current), range(1, 61));
  await buffer.close();
  assert.deepEqual(done.slice(0, 4), ['named', 'not synced', 'synced', 'source removed']);
});

test('a thread that died after its file was whole: the file counts at once', async t => {
  const directory = await temporaryFolder(t);
  const plain = await open(directory, { segmentBytesMax: 1_000_000 });
  for (let i = 0; i < 60; i += 10)
    await store(
      plain,
      range(i, i + 10).map(id => telemetry(id % 3, id)),
    );
  await plain.close();
  const real = compactHere(nodeFiles, commonMapping);
  const compactor = {
    ...real,
    async run(job: Parameters<typeof real.run>[0]) {
      await real.run(job);
      return { outcome: 'failed', reason: 'died', code: '' } as const;
    },
  };
  const { buffer, compacted } = await openCompacting(directory, { compactor });
  await compacted();
  assert.equal(buffer.stats().compactionFailures, 0);
  const runs = await readRuns(buffer, plain.current);
  assert.deepEqual(
    runs.map(({ form }) => form),
    ['block'],
  );
  await buffer.close();
});
