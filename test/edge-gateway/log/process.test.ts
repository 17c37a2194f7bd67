/** Other processes: kill -9 in mid-stream, two on one folder, stale locks, clones and restored copies (invariants A, R). */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { randomFrom } from '../../../deploy/faults/random.ts';
import { openDiskBuffer } from '../../../edge-gateway/log/disk-buffer.ts';
import { LOCK_NAME } from '../../../edge-gateway/log/lock.ts';
import type { LogId } from '../../../protocol/ids.ts';
import { RangeSet } from '../../../protocol/range-set.ts';
import { readRuns } from './compacting.ts';
import { idOf, message, open, range, readAll, silent, store, temporaryFolder } from './support.ts';

const child = join(import.meta.dirname, 'writer-child.ts');
const compactingChild = join(import.meta.dirname, 'compacting-child.ts');

function startWriter(
  t: TestContext,
  directory: string,
  ...more: string[]
): { writer: ChildProcess; lines: AsyncIterableIterator<string> } {
  const writer = spawn(process.execPath, [child, directory, ...more], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => writer.kill('SIGKILL'));
  return { writer, lines: createInterface({ input: writer.stdout! })[Symbol.asyncIterator]() };
}

test('kill -9 in mid-stream, several times over: all that was durable is there, once, at one place', async t => {
  const directory = await temporaryFolder(t);
  const durable: number[] = [];
  let firstId = 1;
  for (const killAfter of [1, 150, 3_000]) {
    const { writer, lines } = startWriter(t, directory, 'Infinity', String(firstId));
    const before = durable.length;
    for await (const line of lines) {
      const [word, id] = line.split(' ');
      if (word !== 'durable') continue;
      durable.push(Number(id));
      if (durable.length === before + killAfter) writer.kill('SIGKILL');
    }
    firstId = durable.at(-1)! + 100_000;
  }
  const buffer = await open(directory);
  assert.equal(buffer.logs().length, 4);
  const found: number[] = [];
  for (const { logId, lost } of buffer.logs()) {
    assert.ok(lost.isEmpty);
    found.push(...(await readAll(buffer, logId, 500)).map(idOf));
  }
  assert.equal(new Set(found).size, found.length);
  const there = new Set(found);
  assert.deepEqual(
    durable.filter(id => !there.has(id)),
    [],
  );
  assert.deepEqual((await buffer.recentFrames(50)).map(idOf), found.slice(-50));
  await buffer.close();
});

test('kill -9 while segments are compacted and thinned: all that was durable is there, in one form', async t => {
  const directory = await temporaryFolder(t);
  const durable = new Map<LogId, number>();
  const seed = Math.floor(Math.random() * 2 ** 32);
  t.diagnostic(`seed ${seed}`);
  const random = randomFrom(seed);
  for (let times = 0; times < 6; times++) {
    const writer = spawn(process.execPath, [compactingChild, directory], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.after(() => writer.kill('SIGKILL'));
    let left = Math.floor(random() * 4_000);
    let logId: LogId | undefined;
    // The first run fills the buffer until it is thinned.
    let counting = times > 0;
    for await (const line of createInterface({ input: writer.stdout })) {
      const [word, value] = line.split(' ');
      if (word === 'open') logId = value as LogId;
      else if (word === 'thinned') counting = true;
      else if (counting && left-- === 0) writer.kill('SIGKILL');
      if (word === 'durable') durable.set(logId!, Number(value));
    }
    assert.ok(counting, 'it was thinning');
  }
  const buffer = await open(directory, { bytesMax: 60_000 });
  for (const [logId, last] of durable) {
    const runs = await readRuns(buffer, logId);
    assert.ok(RangeSet.from(runs.map(run => run.range)).covers(1, last + 1), `${last} of ${logId}`);
    for (const [index, run] of runs.entries()) {
      if (index > 0) assert.equal(run.range.from, runs[index - 1]!.range.to, 'each sequence in one form');
    }
    assert.ok(buffer.logs().find(log => log.logId === logId)!.lost.isEmpty);
  }
  const names = (
    await Promise.all([...durable.keys()].map(logId => fs.readdir(join(directory, logId))))
  ).flat();
  assert.deepEqual(
    names.filter(name => name.endsWith('.new')),
    [],
  );
  await buffer.close();
});

test('a second process on the folder is refused with the reason; after kill -9 of the first it is not', async t => {
  const directory = await temporaryFolder(t);
  const first = startWriter(t, directory, '5');
  assert.match((await first.lines.next()).value, /^open /);
  const refused = await openDiskBuffer({ directory, bytesMax: 1e6, bootId: 'boot', logger: silent });
  assert.equal(refused.outcome, 'unusable');
  assert.match((refused as { reason: string }).reason, new RegExp(`in use by process ${first.writer.pid}`));
  const second = startWriter(t, directory);
  assert.match((await second.lines.next()).value, /^unusable .* in use by process/);
  await once(second.writer, 'exit');
  first.writer.kill('SIGKILL');
  await once(first.writer, 'exit');
  await (await open(directory)).close();
});

test('a lock of another boot, of a recycled process id, or torn, does not block', async t => {
  const directory = await temporaryFolder(t);
  const held = await open(directory);
  const path = join(directory, LOCK_NAME);
  const lock = await fs.readFile(path, 'utf8');
  await held.close();
  await assert.rejects(fs.access(path), 'closing gives the lock back');
  const stale = [{ machineBoot: 'an earlier one' }, { processStart: '1' }, { pid: 2 ** 22 - 1 }].map(change =>
    JSON.stringify({ ...JSON.parse(lock), ...change }),
  );
  for (const content of [...stale, lock.slice(0, 20), '']) {
    await fs.writeFile(path, content);
    await (await open(directory)).close();
  }
  await fs.writeFile(path, lock);
  const outcome = await openDiskBuffer({ directory, bytesMax: 1e6, bootId: 'boot', logger: silent });
  assert.equal(outcome.outcome, 'unusable', 'but the lock of this very process does');
});

test('a clone of the folder, taken while it is in use, opens beside it; no log id is ever used twice', async t => {
  const directory = await temporaryFolder(t);
  const clone = join(await temporaryFolder(t), 'clone');
  const original = await open(directory);
  await store(
    original,
    range(1, 20).map(id => message(id)),
  );
  await fs.cp(directory, clone, { recursive: true });
  const copies = [];
  for (let times = 0; times < 3; times++) {
    const copy = await open(clone);
    await store(copy, [message(100 + times)]);
    assert.deepEqual((await readAll(copy, original.current)).map(idOf), range(1, 20));
    copies.push(copy.current);
    await copy.close();
  }
  await store(
    original,
    range(20, 30).map(id => message(id)),
  );
  assert.deepEqual((await readAll(original, original.current)).map(idOf), range(1, 30));
  await original.close();
  // The copy from before comes back in place of what is there.
  await fs.rm(directory, { recursive: true });
  await fs.cp(clone, directory, { recursive: true });
  const restored = await open(directory);
  const logIds = [original.current, ...copies, restored.current];
  assert.equal(new Set(logIds).size, logIds.length);
  assert.deepEqual(
    restored.logs().map(log => log.logId),
    logIds,
  );
  await restored.close();
});

test('a copy made file by file, of different moments, declares nothing lost that the original may have (A)', async t => {
  const directory = await temporaryFolder(t);
  const clone = join(await temporaryFolder(t), 'clone');
  const original = await open(directory);
  await store(
    original,
    range(1, 20).map(id => message(id)),
  );
  await fs.cp(directory, clone, { recursive: true });
  await store(
    original,
    range(20, 30).map(id => message(id)),
  );
  await original.close();
  const checkpoint = join(original.current, 'settled.json');
  await fs.cp(join(directory, checkpoint), join(clone, checkpoint));
  const copy = await open(clone);
  const [log] = copy.logs();
  assert.equal(log!.lost.toString(), RangeSet.empty.toString());
  assert.equal(log!.nextSequence, 20);
  assert.deepEqual((await readAll(copy, original.current)).map(idOf), range(1, 20));
  await copy.close();
});
