/** A disk that refuses: nothing is called durable that is not, nothing accepted is lost (invariants A, F, I). */
import assert from 'node:assert/strict';
import * as fs from 'node:fs/promises';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { openDiskBuffer } from '../../../edge-gateway/log/disk-buffer.ts';
import { type FileOperations, nodeFiles } from '../../../edge-gateway/log/files.ts';
import type { LogId } from '../../../protocol/ids.ts';
import { RangeSet } from '../../../protocol/range-set.ts';
import { filesWith, systemError } from './faulty-files.ts';
import {
  idOf,
  infoOf,
  message,
  open,
  range,
  readAll,
  segmentsOf,
  silent,
  store,
  temporaryFolder,
} from './support.ts';

test('after a failed fdatasync the segment is never written or synced again, and the group comes in the next', async t => {
  const directory = await temporaryFolder(t);
  const syncs: string[] = [];
  const writes: string[] = [];
  let failing = false;
  let durable = 0;
  let durableAtError = -1;
  const files = filesWith({
    write: path => void writes.push(basename(path)),
    datasync(path) {
      syncs.push(basename(path));
      if (!failing) return;
      failing = false;
      durableAtError = durable;
      throw systemError('EIO');
    },
  });
  const buffer = await open(directory, { files });
  await store(
    buffer,
    range(1, 4).map(id => message(id)),
  );
  failing = true;
  const order: number[] = [];
  durable = 3;
  await Promise.all(
    range(4, 9).map(
      id =>
        new Promise<void>(resolve => {
          buffer.append(message(id), () => {
            durable++;
            order.push(id);
            resolve();
          });
        }),
    ),
  );
  assert.equal(durableAtError, 3, 'no callback before the group was durable');
  assert.deepEqual(order, range(4, 9));
  const [abandoned, fresh] = (await segmentsOf(directory, buffer.current)).map(path => basename(path));
  assert.equal(Number(fresh!.slice(0, 16)), 4);
  assert.deepEqual(syncs, [abandoned, abandoned, fresh]);
  assert.equal(writes.lastIndexOf(abandoned!) < writes.indexOf(fresh!), true);
  assert.equal(buffer.stats().writeErrors, 1);
  assert.deepEqual((await readAll(buffer, buffer.current)).map(idOf), range(1, 9));
  await buffer.close();
  const again = await open(directory, { recentBytesMax: 0 });
  assert.deepEqual((await readAll(again, buffer.current)).map(idOf), range(1, 9));
  assert.ok(infoOf(again, buffer.current).lost.isEmpty);
  await again.close();
});

test('the disk is full by somebody else: appends are refused, what was accepted is held and stored later', async t => {
  const directory = await temporaryFolder(t);
  let full = false;
  let refusals = 0;
  let tellRefused: () => void = () => undefined;
  const refuse = () => {
    if (!full) return;
    if (++refusals === 2) tellRefused();
    throw systemError('ENOSPC');
  };
  const buffer = await open(directory, { files: filesWith({ write: refuse, create: refuse }) });
  await store(
    buffer,
    range(1, 4).map(id => message(id)),
  );
  full = true;
  const durable: number[] = [];
  const refused = new Promise<void>(resolve => {
    tellRefused = resolve;
  });
  for (const id of range(4, 7))
    assert.equal(
      buffer.append(message(id), () => durable.push(id)),
      'accepted',
    );
  await refused;
  // The writer backs off within this turn of the loop.
  await new Promise(resolve => setImmediate(resolve));
  assert.equal(
    buffer.append(message(7), () => assert.fail('was refused')),
    'full',
  );
  assert.equal(buffer.stats().full, true);
  assert.deepEqual(durable, []);
  const space = new Promise<void>(resolve => buffer.onSpace(resolve));
  full = false;
  await space;
  assert.deepEqual(durable, range(4, 7));
  assert.equal(buffer.stats().full, false);
  await store(buffer, [message(8)]);
  assert.deepEqual((await readAll(buffer, buffer.current)).map(idOf), [1, 2, 3, 4, 5, 6, 8]);
  await buffer.close();
});

test('settled segments are given back when the disk is full by somebody else', async t => {
  const directory = await temporaryFolder(t);
  let full = false;
  let removed = 0;
  const files = filesWith({
    write() {
      if (full) throw systemError('ENOSPC');
    },
    remove(path) {
      if (path.includes('0000000000000001-')) {
        removed++;
        full = false;
      }
    },
  });
  const buffer = await open(directory, { files, segmentBytesMax: 300 });
  for (const id of range(1, 9)) await store(buffer, [message(id)]);
  buffer.settle(buffer.current, RangeSet.of(1, 9));
  full = true;
  await store(buffer, [message(9)]);
  assert.equal(removed, 1);
  await buffer.close();
});

test('closing while the disk refuses ends, and says nothing was durable', async t => {
  const directory = await temporaryFolder(t);
  const files = filesWith({
    create() {
      throw systemError('EIO');
    },
  });
  const buffer = await open(directory, { files });
  assert.equal(
    buffer.append(message(1), () => assert.fail('never durable')),
    'accepted',
  );
  await buffer.close();
  assert.throws(() => buffer.append(message(2), () => undefined), /closed/);
});

test('a bad sector costs the frames on it; a device that gives no answer costs none', async t => {
  const directory = await temporaryFolder(t);
  const writer = await open(directory);
  for (const id of range(1, 400)) await store(writer, [message(id, 60)]);
  await writer.close();
  const logId = writer.current;
  let device: 'fine' | 'bad sector' | 'gone' = 'fine';
  const files = filesWith({
    read(path, position, length) {
      if (!path.endsWith('.segment') || device === 'fine') return;
      if (device === 'gone' || (position <= 8192 && position + length > 8192)) throw systemError('EIO');
    },
    create() {
      if (device === 'gone') throw systemError('EIO');
    },
  });
  const buffer = await open(directory, { files });
  device = 'gone';
  const gone = buffer.read(logId, 1, { messagesMax: 10, bytesMax: 1e6 });
  await assert.rejects(gone, { code: 'EIO' });
  assert.ok(infoOf(buffer, logId).lost.isEmpty);
  device = 'bad sector';
  const ids = (await readAll(buffer, logId)).map(idOf);
  const { lost } = infoOf(buffer, logId);
  assert.ok(lost.size > 20 && lost.size < 60, `a page of 4096 bytes: ${lost}`);
  assert.deepEqual(
    ids,
    range(1, 400).filter(id => !lost.contains(id)),
  );
  await buffer.close();
});

test('a log that cannot be opened for now: the start knows the newest messages of the others', async t => {
  const directory = await temporaryFolder(t);
  const logIds: string[] = [];
  for (const id of range(1, 4)) {
    const writer = await open(directory);
    await store(writer, [message(id)]);
    await writer.close();
    logIds.push(writer.current);
  }
  let isRefusing = false;
  const files: FileOperations = {
    ...nodeFiles,
    openToRead(path) {
      if (isRefusing && path.includes(logIds[1]!)) return Promise.reject(systemError('EIO'));
      return nodeFiles.openToRead(path);
    },
  };
  const buffer = await open(directory, { files });
  isRefusing = true;
  assert.deepEqual((await buffer.recentFrames(10)).map(idOf), [1, 3]);
  assert.ok(infoOf(buffer, logIds[1]! as LogId).lost.isEmpty);
  isRefusing = false;
  assert.deepEqual((await buffer.recentFrames(10)).map(idOf), [1, 2, 3]);
  await buffer.close();
});

test('a folder that cannot be used says why', async t => {
  const directory = await temporaryFolder(t);
  const outcome = (folder: string, code?: string) =>
    openDiskBuffer({
      directory: folder,
      bytesMax: 1e6,
      bootId: 'boot',
      logger: silent,
      ...(code
        ? {
            files: filesWith({
              makeFolder() {
                throw systemError(code);
              },
            }),
          }
        : {}),
    });
  const reason = async (...asked: Parameters<typeof outcome>) => {
    const opened = await outcome(...asked);
    return opened.outcome === 'unusable' ? opened.reason : assert.fail('opened');
  };
  assert.match(await reason(directory, 'EROFS'), /read-only file system/);
  assert.match(await reason(directory, 'EACCES'), /no permission for the buffer folder/);
  await fs.writeFile(join(directory, 'file'), '');
  assert.match(await reason(join(directory, 'file')), /is not a folder/);
  assert.match(await reason(join(directory, 'file', 'below')), /is not a folder/);
});
