/**
 * What of a buffer is exported: beside a running gateway, after a kill, from a card in another machine, onto sticks that
 * are too small or pulled out. Nothing of the buffer is changed by it.
 */
import assert from 'node:assert/strict';
import { renameSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { runJob } from '../../edge-gateway/log/compaction-job.ts';
import { nodeFiles } from '../../edge-gateway/log/files.ts';
import { openReadOnly } from '../../edge-gateway/log/read-only.ts';
import { commonMapping } from '../../edge-gateway/mapping/compile.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import {
  exportFrom,
  newKeys,
  numbersIn,
  openBuffer,
  range,
  readOnly,
  store,
  temporaryFolder,
} from './support.ts';

const KIB = 1024;
const filesOf = (outcome: { files: readonly { file: string }[] }) => outcome.files.map(({ file }) => file);

/** Path, size, content and time of change of everything below. */
async function photograph(folder: string): Promise<string[]> {
  const entries = await fs.readdir(folder, { recursive: true, withFileTypes: true });
  return Promise.all(
    entries
      .map(entry => join(entry.parentPath, entry.name))
      .sort()
      .map(async path => {
        const { mtimeMs, ctimeMs, size } = await fs.stat(path);
        return `${path} ${size} ${mtimeMs} ${ctimeMs}`;
      }),
  );
}

test('beside a running gateway: all that was acknowledged is exported, and nothing in the folder is touched (A)', async t => {
  const [folder, stick, keys] = [await temporaryFolder(t), await temporaryFolder(t), await newKeys()];
  const buffer = await openBuffer(folder, { segmentBytesMax: 32 * KIB });
  await store(buffer, 1, 1501);
  const before = await photograph(folder);
  const outcome = await exportFrom(folder, stick, keys);
  assert.deepEqual(await photograph(folder), before);
  assert.equal(outcome.outcome, 'exported');
  assert.equal(outcome.messages, 1500);
  assert.deepEqual(await numbersIn(filesOf(outcome), keys), range(1, 1501));
  await store(buffer, 1501, 1503);
  await buffer.close();
});

test('a gateway that goes on appending while it is exported: an unbroken run from the first message on (A)', async t => {
  const [folder, stick, keys] = [await temporaryFolder(t), await temporaryFolder(t), await newKeys()];
  const buffer = await openBuffer(folder, { segmentBytesMax: 16 * KIB });
  await store(buffer, 1, 1001);
  let appended = 1001;
  let stop = false;
  const appending = (async () => {
    while (!stop) {
      await store(buffer, appended, appended + 50);
      appended += 50;
    }
  })();
  for (let round = 0; round < 5; round++) {
    const outcome = await exportFrom(folder, stick, keys);
    const numbers = await numbersIn(filesOf(outcome), keys);
    assert.ok(numbers.length >= 1000);
    assert.deepEqual(numbers, range(1, numbers.length + 1));
  }
  stop = true;
  await appending;
  await buffer.close();
});

test('what history has settled is left out, unless all is asked for', async t => {
  const [folder, stick, keys] = [await temporaryFolder(t), await temporaryFolder(t), await newKeys()];
  const buffer = await openBuffer(folder);
  await store(buffer, 1, 1001);
  buffer.settle(
    buffer.current,
    RangeSet.from([
      { from: 1, to: 301 },
      { from: 500, to: 601 },
    ]),
  );
  await buffer.close();
  const unsettled = await exportFrom(folder, stick, keys);
  assert.deepEqual(await numbersIn(filesOf(unsettled), keys), [...range(301, 500), ...range(601, 1001)]);
  const all = await exportFrom(folder, stick, keys, { all: true });
  assert.deepEqual(await numbersIn(filesOf(all), keys), range(1, 1001));
});

test('a folder with a torn tail, without its lock and checkpoint, as from a pulled card: all whole frames (A, I)', async t => {
  const [folder, card, stick] = [
    await temporaryFolder(t),
    await temporaryFolder(t),
    await temporaryFolder(t),
  ];
  const keys = await newKeys();
  const buffer = await openBuffer(folder, { segmentBytesMax: 32 * KIB });
  await store(buffer, 1, 1001);
  const log = join(card, buffer.current);
  await fs.cp(join(folder, buffer.current), log, { recursive: true });
  await buffer.close();
  const tail = (await fs.readdir(log)).sort().findLast(name => name.endsWith('.segment'))!;
  const { size } = await fs.stat(join(log, tail));
  await fs.truncate(join(log, tail), size - 7);
  await fs.chmod(log, 0o500);
  const source = await readOnly(card);
  const outcome = await exportFrom(card, stick, keys, { buffer: source });
  assert.deepEqual(await numbersIn(filesOf(outcome), keys), range(1, 1000));
  assert.equal(await source.unreadable(), 0);
  await fs.chmod(log, 0o700);
});

test('damage is left out and counted, never declared lost by the export (A, I)', async t => {
  const [folder, stick, keys] = [await temporaryFolder(t), await temporaryFolder(t), await newKeys()];
  const buffer = await openBuffer(folder);
  await store(buffer, 1, 1001);
  const log = join(folder, buffer.current);
  await buffer.close();
  const [segment] = (await fs.readdir(log)).filter(name => name.endsWith('.segment'));
  const handle = await fs.open(join(log, segment!), 'r+');
  await handle.write(Buffer.alloc(1000, 0xff), 0, 1000, 30_000);
  await handle.close();
  const source = await readOnly(folder);
  const outcome = await exportFrom(folder, stick, keys, { buffer: source });
  const numbers = new Set(await numbersIn(filesOf(outcome), keys));
  const absent = range(1, 1001).filter(n => !numbers.has(n));
  assert.ok(absent.length > 0 && absent.length < 50);
  assert.equal(await source.unreadable(), absent.length);
  assert.equal(outcome.messages, 1000 - absent.length);
});

test('segments that are given back while they are read were settled: the export goes on without them', async t => {
  const [folder, stick, keys] = [await temporaryFolder(t), await temporaryFolder(t), await newKeys()];
  const buffer = await openBuffer(folder, { segmentBytesMax: 16 * KIB, keepSettledMs: 0 });
  await store(buffer, 1, 2001);
  const source = await readOnly(folder);
  const settled = RangeSet.of(1, 1501);
  buffer.settle(buffer.current, settled);
  await buffer.close();
  // The next start finds them settled for longer than they are kept.
  await (await openBuffer(folder, { keepSettledMs: 0, nowMs: () => Date.now() + 1000 })).close();
  const outcome = await exportFrom(folder, stick, keys, { buffer: source });
  const numbers = new Set(await numbersIn(filesOf(outcome), keys));
  assert.ok(numbers.size < 1000, `${numbers.size} of 2000 were exported: nothing was given back`);
  for (const n of range(1501, 2001)) assert.ok(numbers.has(n), `${n} was not settled`);
  assert.equal(await source.unreadable(), 0);
});

test('segments that become blocks while they are read: the export goes on with the blocks (A)', async t => {
  const [folder, stick, keys] = [await temporaryFolder(t), await temporaryFolder(t), await newKeys()];
  const buffer = await openBuffer(folder, { segmentBytesMax: 16 * KIB });
  await store(buffer, 1, 3001);
  await buffer.close();
  const source = await readOnly(folder);
  const compacting = await openBuffer(folder, {
    compaction: {
      compactor: { run: job => runJob(nodeFiles, commonMapping, job), close: () => Promise.resolve() },
      keepMessages: 0,
      nearFull: 'push-back',
      waitMs: 0,
    },
  });
  const log = join(folder, source.logs[0]!.logId);
  // A commit makes it look what may be compacted.
  await store(compacting, 3001, 3002);
  while ((await fs.readdir(log)).some(name => name.endsWith('.segment'))) {
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  const outcome = await exportFrom(folder, stick, keys, { buffer: source });
  assert.deepEqual(await numbersIn(filesOf(outcome), keys), range(1, 3001));
  assert.equal(await source.unreadable(), 0);
  await compacting.close();
});

test('several logs, in files of bounded size: oldest first, each file opened by itself (F)', async t => {
  const [folder, stick, keys] = [await temporaryFolder(t), await temporaryFolder(t), await newKeys()];
  for (const from of [1, 1001, 2001]) {
    const buffer = await openBuffer(folder);
    await store(buffer, from, from + 1000, 200);
    await buffer.close();
  }
  const contentBytesMax = 2 * KIB;
  const outcome = await exportFrom(folder, stick, keys, { contentBytesMax });
  assert.ok(outcome.files.length >= 3, `${outcome.files.length} files`);
  assert.deepEqual(await numbersIn(filesOf(outcome), keys), range(1, 3001));
  assert.deepEqual(
    (await fs.readdir(stick)).sort().map(name => join(stick, name)),
    filesOf(outcome),
  );
});

test('a stick that is gone in the middle: the files before are whole, and another stick takes the rest', async t => {
  const [folder, second, keys] = [await temporaryFolder(t), await temporaryFolder(t), await newKeys()];
  const first = join(await temporaryFolder(t), 'stick');
  await fs.mkdir(first);
  const buffer = await openBuffer(folder);
  await store(buffer, 1, 12_001, 40);
  await buffer.close();
  const pulled = join(await temporaryFolder(t), 'pulled');
  const stopped = await exportFrom(folder, first, keys, {
    contentBytesMax: 10 * KIB,
    onFile: ({ file }) => file.includes('.0002.') && renameSync(first, pulled),
  });
  assert.ok(stopped.outcome === 'stopped');
  assert.equal(stopped.files.length, 2);
  const onFirst = (await fs.readdir(pulled)).sort().map(name => join(pulled, name));
  assert.equal(onFirst.length, 2);
  const rest = await exportFrom(folder, second, keys, { from: stopped.goOnFrom });
  assert.equal(rest.outcome, 'exported');
  assert.deepEqual(await numbersIn([...onFirst, ...filesOf(rest)], keys), range(1, 12_001));
});

test('a buffer that is not there, and one that holds nothing', async t => {
  const [folder, stick, keys] = [await temporaryFolder(t), await temporaryFolder(t), await newKeys()];
  assert.equal((await openReadOnly(join(folder, 'nowhere'))).outcome, 'unusable');
  const outcome = await exportFrom(folder, stick, keys);
  assert.deepEqual({ outcome: outcome.outcome, files: outcome.files }, { outcome: 'exported', files: [] });
});
