/**
 * A copy of the folder, made file by file while it was in use: what it lacks the original may have. It declares none of that
 * lost, at no start (invariant A), and gives the rest.
 */
import assert from 'node:assert/strict';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { LogId } from '../../../protocol/ids.ts';
import { RangeSet } from '../../../protocol/range-set.ts';
import {
  idOf,
  infoOf,
  message,
  open,
  range,
  readAll,
  segmentsOf,
  store,
  temporaryFolder,
} from './support.ts';

/** A log of messages 1…39, closed in the original; `damage` makes the clone what a copy in motion may become. */
async function cloned(
  t: TestContext,
  damage: (clone: string, logId: LogId) => Promise<void>,
  segmentBytesMax = 1_000,
) {
  const directory = await temporaryFolder(t);
  const clone = join(await temporaryFolder(t), 'clone');
  const original = await open(directory, { segmentBytesMax });
  for (const id of range(1, 40)) await store(original, [message(id)]);
  await original.close();
  await fs.cp(directory, clone, { recursive: true });
  await damage(clone, original.current);
  return { directory, clone, logId: original.current };
}

/** Opens it several times: each start reads what the one before has noted. */
async function expectMissing(clone: string, logId: LogId, missing: RangeSet): Promise<void> {
  const readable = range(1, 40).filter(id => !missing.contains(id));
  for (const start of [1, 2, 3]) {
    const copy = await open(clone);
    assert.deepEqual((await readAll(copy, logId)).map(idOf), readable, `start ${start}`);
    const info = infoOf(copy, logId);
    assert.equal(info.lost.toString(), '{}', `start ${start}`);
    assert.equal(info.missing.toString(), missing.toString(), `start ${start}`);
    await copy.close();
  }
}

test('a hole in a tail that has not ended is left to the original', async t => {
  const { clone, logId } = await cloned(
    t,
    async (folder, log) => {
      const [path] = await segmentsOf(folder, log);
      const bytes = await fs.readFile(path!);
      // A piece that was not written yet when it was copied; and the checkpoint is that of a longer file.
      await fs.writeFile(path!, Buffer.concat([bytes.fill(0, 600, 700), Buffer.alloc(1)]));
    },
    1_000_000,
  );
  const copy = await open(clone);
  const { lost, missing } = infoOf(copy, logId);
  assert.equal(lost.toString(), '{}');
  assert.ok(!missing.isEmpty && missing.ranges.length === 1, `${missing}`);
  await copy.close();
  await expectMissing(clone, logId, missing);
});

test('a segment that became blocks between listing and copying is left to the original', async t => {
  let missing = RangeSet.empty;
  const { clone, logId } = await cloned(t, async (folder, log) => {
    const paths = await segmentsOf(folder, log);
    assert.ok(paths.length > 2);
    const firstOf = (path: string) => Number(/(\d{16})-/.exec(path)![1]);
    missing = RangeSet.of(firstOf(paths[1]!), firstOf(paths[2]!));
    await fs.rm(paths[1]!);
  });
  await expectMissing(clone, logId, missing);
});

test('where its checkpoint is gone, the mark on all of it says that it is a copy', async t => {
  let missing = RangeSet.empty;
  const { clone, logId } = await cloned(t, async (folder, log) => {
    const paths = await segmentsOf(folder, log);
    missing = RangeSet.of(1, Number(/(\d{16})-/.exec(paths[1]!)![1]));
    await fs.rm(paths[0]!);
  });
  await (await open(clone)).close();
  await fs.rm(join(clone, logId, 'settled.json'));
  await expectMissing(clone, logId, missing);
});

test('the same in the original is damage, and declared', async t => {
  const { directory, logId } = await cloned(t, () => Promise.resolve());
  const [, path] = await segmentsOf(directory, logId);
  await fs.rm(path!);
  const original = await open(directory);
  await readAll(original, logId);
  const { lost, missing } = infoOf(original, logId);
  assert.ok(!lost.isEmpty && missing.isEmpty);
  await original.close();
});

test('once history has what can be read, or the original has sent the rest, the copy gives its space back', async t => {
  let missing = RangeSet.empty;
  const { clone, logId } = await cloned(t, async (folder, log) => {
    const [path] = await segmentsOf(folder, log);
    missing = RangeSet.of(2, 3);
    const bytes = await fs.readFile(path!);
    const at = bytes.indexOf('000000000002');
    await fs.writeFile(path!, bytes.fill(0xff, at, at + 4));
  });
  const copy = await open(clone);
  await readAll(copy, logId);
  assert.ok(infoOf(copy, logId).missing.equals(missing));
  const whole = copy.stats();
  assert.equal(whole.messagesUnsettled, 38);
  copy.settle(logId, RangeSet.of(1, 40).difference(missing));
  assert.equal(copy.stats().messagesUnsettled, 0);
  await copy.close();
  await fs.cp(clone, `${clone}-2`, { recursive: true });
  for (const settled of [RangeSet.empty, missing]) {
    const folder = settled.isEmpty ? clone : `${clone}-2`;
    const again = await open(folder, { keepSettledMs: 0 });
    await readAll(again, logId);
    again.settle(logId, settled);
    await again.close();
    const last = await open(folder, { keepSettledMs: 0, nowMs: () => Date.now() + 1000 });
    await last.close();
    await assert.rejects(fs.access(join(folder, logId)), { code: 'ENOENT' });
  }
});
