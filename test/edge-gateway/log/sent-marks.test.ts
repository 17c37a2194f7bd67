/** What was read for sending is known after a restart, or all counts as sent (invariant B). */
import assert from 'node:assert/strict';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { nodeFiles } from '../../../edge-gateway/log/files.ts';
import { readSent, SENT_NAME } from '../../../edge-gateway/log/sent-marks.ts';
import { filesWith, systemError } from './faulty-files.ts';
import { message, open, range, readFrames, store, temporaryFolder } from './support.ts';

const all = { messagesMax: 2, bytesMax: 1e6 };

test('a file is marked before what is read of it is given, whole; the newest messages looked at are not', async t => {
  const directory = await temporaryFolder(t);
  const buffer = await open(directory, { segmentBytesMax: 1_000 });
  for (const id of range(1, 41)) await store(buffer, [message(id)]);
  const folder = join(directory, buffer.current);
  await buffer.recentFrames(40);
  assert.equal((await readSent(nodeFiles, folder)).toString(), '{}');
  await readFrames(buffer, buffer.current, 12, all);
  const sent = await readSent(nodeFiles, folder);
  assert.ok(sent.contains(12) && !sent.contains(1) && !sent.contains(40), `${sent}`);
  assert.ok(sent.size >= 5);
  await readFrames(buffer, buffer.current, 40, all);
  assert.ok((await readSent(nodeFiles, folder)).contains(40), 'of memory too');
  await buffer.close();
});

test('a damaged mark means that all may be sent; an unfinished one changes nothing', async t => {
  const directory = await temporaryFolder(t);
  const buffer = await open(directory);
  await store(buffer, [message(1)]);
  await readFrames(buffer, buffer.current, 1, all);
  await buffer.close();
  const folder = join(directory, buffer.current);
  const path = join(folder, SENT_NAME);
  const content = await fs.readFile(path);
  for (const byte of range(0, content.length - 1)) {
    const flipped = Buffer.from(content);
    flipped[byte]! ^= 1 << (byte % 8);
    await fs.writeFile(path, flipped);
    const sent = await readSent(nodeFiles, folder);
    assert.ok(sent.covers(1, 1_000_000) || sent.toString() === '{[1,2)}', `byte ${byte}: ${sent}`);
  }
  await fs.writeFile(path, content);
  await fs.writeFile(`${path}.new`, content.subarray(0, 3));
  assert.equal((await readSent(nodeFiles, folder)).toString(), '{[1,2)}');
  const again = await open(directory);
  assert.deepEqual(
    (await fs.readdir(folder)).filter(name => name.endsWith('.new')),
    [],
  );
  await again.close();
});

test('a disk that refuses the mark does not hold up the draining; the next mark carries it along', async t => {
  const directory = await temporaryFolder(t);
  let refusing = true;
  const files = filesWith({
    create(path) {
      if (refusing && path.includes(SENT_NAME)) throw systemError('ENOSPC');
    },
  });
  const buffer = await open(directory, { files, segmentBytesMax: 500 });
  for (const id of range(1, 21)) await store(buffer, [message(id)]);
  const folder = join(directory, buffer.current);
  assert.equal((await readFrames(buffer, buffer.current, 1, all)).length, 2);
  assert.equal((await readSent(nodeFiles, folder)).toString(), '{}');
  refusing = false;
  await readFrames(buffer, buffer.current, 19, all);
  const sent = await readSent(nodeFiles, folder);
  assert.ok(sent.contains(1) && sent.contains(20), `${sent}`);
  await buffer.close();
});
