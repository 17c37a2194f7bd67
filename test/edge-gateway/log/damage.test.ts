/** Truncated and damaged files (invariants A and I): no frame is invented or changed, only hit ones are missing, and they are declared. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { FRAME_HEADER_BYTES } from '../../../edge-gateway/log/frame.ts';
import { SEGMENT_HEADER_BYTES } from '../../../edge-gateway/log/segment.ts';
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

const frameBytes = (id: number): number =>
  FRAME_HEADER_BYTES + Buffer.byteLength(message(id).topic) + message(id).payload.length;

/** A closed log of messages 1…count in one segment, and where each frame ends. */
async function closedLog(directory: string, count: number, options: { segmentBytesMax?: number } = {}) {
  const buffer = await open(directory, options);
  for (const id of range(1, count + 1)) await store(buffer, [message(id)]);
  await buffer.close();
  const logId = buffer.current;
  const paths = await segmentsOf(directory, logId);
  const ends = [SEGMENT_HEADER_BYTES];
  for (const id of range(1, count + 1)) ends.push(ends.at(-1)! + frameBytes(id));
  return { logId, path: paths[0]!, paths, content: await fs.readFile(paths[0]!), ends };
}

async function reread(directory: string, logId: LogId) {
  const buffer = await open(directory);
  const known = buffer.logs().some(log => log.logId === logId);
  const ids = known ? (await readAll(buffer, logId)).map(idOf) : [];
  const lost = known ? infoOf(buffer, logId).lost.toString() : '{}';
  await buffer.close();
  return { ids, lost };
}

test('a tail torn at any byte, or zeros from there on, keeps every whole frame and invents none', async t => {
  const directory = await temporaryFolder(t);
  const { logId, path, content, ends } = await closedLog(directory, 8);
  assert.equal(content.length, ends.at(-1));
  const checkpoint = join(directory, logId, 'settled.json');
  for (const length of range(ends[5]!, content.length)) {
    const whole = ends.filter(end => end <= length).length - 1;
    const zeroFilled = Buffer.alloc(content.length);
    content.copy(zeroFilled, 0, 0, length);
    for (const torn of [content.subarray(0, length), zeroFilled]) {
      await fs.rm(checkpoint, { force: true });
      await fs.writeFile(path, torn);
      // A frame whose cut bytes are zeros anyway is whole after all.
      const kept = torn.length === content.length && torn.equals(content) ? 8 : whole;
      assert.deepEqual(
        await reread(directory, logId),
        { ids: range(1, kept + 1), lost: '{}' },
        `at ${length}`,
      );
    }
  }
});

test('a log that was closed properly and is shorter now has lost frames, and says which', async t => {
  const directory = await temporaryFolder(t);
  const { logId, path, content, ends } = await closedLog(directory, 6);
  const checkpoint = await fs.readFile(join(directory, logId, 'settled.json'));
  for (const length of [0, SEGMENT_HEADER_BYTES, ends[3]! + 5, ends[5]!]) {
    await fs.writeFile(join(directory, logId, 'settled.json'), checkpoint);
    await fs.writeFile(path, content.subarray(0, length));
    const whole = Math.max(0, ends.filter(end => end <= length).length - 1);
    const expected = { ids: range(1, whole + 1), lost: `{[${whole + 1},7)}` };
    assert.deepEqual(await reread(directory, logId), expected);
    assert.deepEqual(await reread(directory, logId), expected, 'found again at the next start');
  }
});

test('a flipped bit anywhere in a segment loses exactly the frame it hit', async t => {
  const directory = await temporaryFolder(t);
  const { logId, path, content, ends } = await closedLog(directory, 3);
  for (const bit of range(0, content.length * 8)) {
    const flipped = Buffer.from(content);
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    await fs.writeFile(path, flipped);
    const hit = ends.findIndex(end => end > bit >> 3);
    const ids = range(1, 4).filter(id => id !== hit);
    const lost = hit === 0 ? '{}' : `{[${hit},${hit + 1})}`;
    assert.deepEqual(await reread(directory, logId), { ids, lost }, `bit ${bit}`);
  }
});

test('a flipped bit in the checkpoint never settles anything', async t => {
  const directory = await temporaryFolder(t);
  const buffer = await open(directory);
  await store(
    buffer,
    range(1, 6).map(id => message(id)),
  );
  const settled = RangeSet.of(1, 3);
  buffer.settle(buffer.current, settled);
  await buffer.close();
  const path = join(directory, buffer.current, 'settled.json');
  const content = await fs.readFile(path);
  for (const byte of range(0, content.length)) {
    const flipped = Buffer.from(content);
    flipped[byte]! ^= 1 << (byte % 8);
    await fs.writeFile(path, flipped);
    const again = await open(directory);
    const info = infoOf(again, buffer.current);
    assert.ok(info.settled.isEmpty || info.settled.equals(settled), info.settled.toString());
    assert.deepEqual((await readAll(again, buffer.current)).map(idOf), range(1, 6));
    await again.close();
  }
});

test('damage over many frames, blocks and segments is stepped over, each lost range named', async t => {
  const directory = await temporaryFolder(t);
  const count = 400;
  const { logId, paths } = await closedLog(directory, count, { segmentBytesMax: 4_000 });
  assert.ok(paths.length > 5);
  const firstOf = (path: string) => Number(/(\d{16})-/.exec(path)![1]);
  const noise = await fs.readFile(paths[1]!);
  await fs.writeFile(paths[1]!, noise.fill(0xa5, 1000, 1500));
  await fs.writeFile(paths[2]!, Buffer.alloc(4000));
  await fs.truncate(paths[3]!, 1000);
  await fs.rm(paths[4]!);
  // Somebody else's frames under the right name are none of this log's.
  const other = await closedLog(await temporaryFolder(t), count, { segmentBytesMax: 4_000 });
  await fs.copyFile(other.paths[0]!, paths[0]!);
  await fs.rm(join(directory, logId, 'settled.json'));

  // A header that names another log is no damage but a mix-up: nothing is touched.
  const kept = await open(directory);
  assert.ok(!kept.logs().some(log => log.logId === logId));
  await kept.close();

  await fs.writeFile(paths[0]!, (await fs.readFile(paths[0]!)).fill(0, 0, SEGMENT_HEADER_BYTES));
  const buffer = await open(directory);
  const ids = (await readAll(buffer, logId)).map(idOf);
  const { lost } = infoOf(buffer, logId);
  const expected = RangeSet.from(
    range(1, count + 1)
      .filter(id => !ids.includes(id))
      .map(id => ({ from: id, to: id + 1 })),
  );
  assert.equal(lost.toString(), expected.toString());
  assert.ok(lost.covers(1, firstOf(paths[1]!)), 'the foreign segment');
  assert.ok(lost.covers(firstOf(paths[2]!), firstOf(paths[3]!)), 'the blank segment');
  assert.ok(lost.covers(firstOf(paths[4]!), firstOf(paths[5]!)), 'the missing segment');
  assert.ok(ids.includes(firstOf(paths[1]!)) && ids.includes(firstOf(paths[2]!) - 1), 'around the noise');
  assert.deepEqual(
    ids.filter(id => id >= firstOf(paths[5]!)),
    range(firstOf(paths[5]!), count + 1),
  );
  assert.equal(buffer.stats().messagesLost, lost.size);

  buffer.settle(logId, lost);
  assert.ok(infoOf(buffer, logId).lost.isEmpty, 'what is settled needs no declaring');
  await readAll(buffer, logId);
  assert.ok(infoOf(buffer, logId).lost.isEmpty, 'nor when it is found again');
  await buffer.close();
});

test('a payload that holds frames of other logs is not taken for them', async t => {
  const directory = await temporaryFolder(t);
  const { content } = await closedLog(await temporaryFolder(t), 9);
  const buffer = await open(directory);
  const bait = { ...message(1), payload: content, payloadBytes: content.length };
  for (const one of [message(1), bait, message(3)]) await store(buffer, [one]);
  await buffer.close();
  const [path] = await segmentsOf(directory, buffer.current);
  const bytes = await fs.readFile(path!);
  bytes[SEGMENT_HEADER_BYTES + frameBytes(1)]! ^= 1;
  await fs.writeFile(path!, bytes);
  assert.deepEqual(await reread(directory, buffer.current), { ids: [1, 3], lost: '{[2,3)}' });
});
