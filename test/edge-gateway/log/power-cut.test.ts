/** Invariant A against power cuts: whatever the log had called durable is there afterwards. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { randomFrom } from '../../../deploy/faults/random.ts';
import { compactHere } from '../../../edge-gateway/log/compaction-job.ts';
import { commonMapping } from '../../../edge-gateway/mapping/compile.ts';
import { sequencesOf, telemetry } from './compacting.ts';
import { forgetfulFiles } from './faulty-files.ts';
import { idOf, makeTemporaryFolder, message, open, readAll } from './support.ts';

interface Disk {
  readonly lies?: 'fdatasync' | 'folder sync';
  /** Segments become blocks as soon as they are sealed. */
  readonly compacts?: boolean;
}

/**
 * Runs a writer into a power cut at one of its file operations.
 * @returns ids (which are sequences) that were durable and are not there
 */
async function missingAfterCut(seed: number, { lies, compacts }: Disk = {}): Promise<number[]> {
  const random = randomFrom(seed);
  const before = await makeTemporaryFolder();
  const after = await makeTemporaryFolder();
  const cutAt = 2 + Math.floor(random() * (compacts ? 400 : 60));
  let operations = 0;
  let durable: number[] = [];
  let writer: Promise<void> = Promise.resolve();
  const writeImage = await new Promise<() => Promise<void>>((resolve, reject) => {
    const acknowledged: number[] = [];
    let isCut = false;
    const files = forgetfulFiles(before, {
      ...(lies ? { lies } : {}),
      beforeOperation() {
        if (++operations !== cutAt) return;
        isCut = true;
        durable = [...acknowledged];
        resolve(files.powerCut(after, random));
      },
    });
    async function write(): Promise<void> {
      const compactor = compactHere(files, commonMapping);
      const compaction = { compactor, keepMessages: 0, nearFull: 'push-back', waitMs: 0 } as const;
      const buffer = await open(before, {
        files,
        segmentBytesMax: 1_500,
        ...(compacts && { compaction }),
      });
      let id = 0;
      await new Promise<void>(done => {
        function more(): void {
          if (isCut) done();
          else
            for (let count = 1 + Math.floor(random() * 9); count > 0; count--) {
              const mine = ++id;
              const one = compacts ? telemetry(mine % 3, mine) : message(mine, Math.floor(random() * 300));
              buffer.append(one, () => acknowledged.push(mine));
            }
        }
        buffer.onDurable(more);
        more();
      });
      await buffer.close();
    }
    writer = write();
    writer.catch(reject);
  });
  await writer;
  await writeImage();
  // The device is on again, with what the disk had.
  const buffer = await open(after);
  const found = new Set<number>();
  for (const { logId, lost } of buffer.logs()) {
    if (compacts) for (const sequence of await sequencesOf(buffer, logId)) found.add(sequence);
    else for (const frame of await readAll(buffer, logId)) found.add(idOf(frame));
    assert.ok(lost.isEmpty || lies, `nothing durable is lost, but ${lost}`);
  }
  await buffer.close();
  await fs.rm(before, { recursive: true });
  await fs.rm(after, { recursive: true });
  return durable.filter(id => !found.has(id));
}

test('after a power cut at any moment, every message that was called durable is there', async () => {
  const property = fc.asyncProperty(fc.integer(), async seed => {
    assert.deepEqual(await missingAfterCut(seed), []);
  });
  await fc.assert(property, { numRuns: 150 });
});

test('the same while segments become blocks', async () => {
  const property = fc.asyncProperty(fc.integer(), async seed => {
    assert.deepEqual(await missingAfterCut(seed, { compacts: true }), []);
  });
  await fc.assert(property, { numRuns: 40 });
});

for (const lies of ['fdatasync', 'folder sync'] as const) {
  test(`a disk whose ${lies} does nothing is found out by the same check`, async () => {
    let missing = 0;
    for (let seed = 1; seed <= 40; seed++) missing += (await missingAfterCut(seed, { lies })).length;
    assert.ok(missing > 0);
    let fromBlocks = 0;
    for (let seed = 1; seed <= 15; seed++)
      fromBlocks += (await missingAfterCut(seed, { lies, compacts: true })).length;
    assert.ok(fromBlocks > 0);
  });
}
