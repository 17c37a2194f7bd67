/** The disk of the lab's power cuts: it forgets what was not synced, and nobody notices before the cut. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { forgetfulFiles } from '../../deploy/faults/forgetful-files.ts';
import { randomFrom } from '../../deploy/faults/random.ts';
import { codeOf, type FileOperations, nodeFiles, type OpenFile } from '../../edge-gateway/log/files.ts';

function folder(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-forgetful-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, 'log');
}

/** Nothing gets through early, and no write is short. */
const strict = () => 0.999;

const write = (file: OpenFile, text: string, position = 0) => {
  const bytes = Buffer.from(text);
  return file.write(bytes, 0, bytes.length, position);
};

test('a file is on the disk once its bytes and its name are synced, and only then', async t => {
  const root = folder(t);
  const path = join(root, 'a');
  const files = await forgetfulFiles(root, strict);
  const file = await files.create(path);
  await write(file, 'one');
  assert.ok(!existsSync(path));
  await file.datasync();
  assert.ok(!existsSync(path), 'bytes without a name');
  await files.syncFolder(root);
  assert.equal(readFileSync(path, 'utf8'), 'one');
  await write(file, 'two', 3);
  assert.equal(readFileSync(path, 'utf8'), 'one', 'a write alone is in memory');
  assert.equal(String(await files.readWhole(path)), 'onetwo', 'and seen by the process');
  await file.datasync();
  assert.equal(readFileSync(path, 'utf8'), 'onetwo');
});

test('a name without synced bytes is an empty file; a file in a folder without a name is nowhere', async t => {
  const root = folder(t);
  const files = await forgetfulFiles(root, strict);
  const early = await files.create(join(root, 'early'));
  await write(early, 'bytes');
  await files.syncFolder(root);
  assert.equal(readFileSync(join(root, 'early'), 'utf8'), '');

  const below = join(root, 'folder');
  await files.makeFolder(below);
  const file = await files.create(join(below, 'a'));
  await write(file, 'one');
  await file.datasync();
  await files.syncFolder(below);
  assert.ok(!existsSync(below));
  await files.syncFolder(root);
  assert.equal(readFileSync(join(below, 'a'), 'utf8'), 'one');
});

test('what was replaced, renamed or removed is as before on the disk until the folder is synced', async t => {
  const root = folder(t);
  await fs.mkdir(join(root, 'old'), { recursive: true });
  for (const name of ['a', 'b', 'old/c']) await fs.writeFile(join(root, name), 'before');
  const files = await forgetfulFiles(root, strict);
  await files.replace(join(root, 'a'), 'after');
  await files.rename(join(root, 'b'), join(root, 'd'));
  await files.remove(join(root, 'old/c'));
  await files.removeFolder(join(root, 'old'));
  assert.deepEqual((await files.list(root)).sort(), ['a', 'd']);
  for (const name of ['a', 'b', 'old/c']) assert.equal(readFileSync(join(root, name), 'utf8'), 'before');
  await files.syncFolder(root);
  assert.equal(readFileSync(join(root, 'a'), 'utf8'), 'after');
  assert.deepEqual((await fs.readdir(root)).sort(), ['a', 'd']);
  assert.equal(readFileSync(join(root, 'd'), 'utf8'), 'before');
});

test('luck lets some through early', async t => {
  const root = folder(t);
  const files = await forgetfulFiles(root, randomFrom(1));
  for (let n = 0; n < 40; n++) await write(await files.create(join(root, String(n))), 'some bytes');
  const names = await fs.readdir(root);
  const contents = names.map(name => readFileSync(join(root, name), 'utf8'));
  assert.ok(names.length > 0 && names.length < 40, `${names.length} of 40 names`);
  assert.ok(contents.some(text => text !== '') && contents.some(text => text === ''));
});

test('told to keep, it writes all through and forgets nothing any more', async t => {
  const root = folder(t);
  const files = await forgetfulFiles(root, strict);
  await files.makeFolder(join(root, 'folder'));
  const file = await files.create(join(root, 'folder/a'));
  await write(file, 'one');
  await files.keep();
  assert.equal(readFileSync(join(root, 'folder/a'), 'utf8'), 'one');
  await write(file, 'two', 3);
  await files.replace(join(root, 'b'), 'new');
  assert.equal(readFileSync(join(root, 'folder/a'), 'utf8'), 'onetwo');
  assert.equal(readFileSync(join(root, 'b'), 'utf8'), 'new');
  await files.remove(join(root, 'b'));
  assert.deepEqual(await fs.readdir(root), ['folder']);
});

const NAMES = ['a', 'b', 'f/a', 'f/b'];

type Step = readonly [operation: string, name: string, position: number, text: string];

/** What the process sees of it, step by step. */
async function story(files: FileOperations, root: string, steps: readonly Step[]): Promise<string[]> {
  const open = new Map<string, OpenFile>();
  const seen: string[] = [];
  for (const [operation, name, position, text] of steps) {
    const path = join(root, name);
    try {
      let said: unknown = '';
      if (operation === 'create') open.set(path, await files.create(path));
      if (operation === 'write') {
        // Short writes are made up for, so that both see the same.
        for (let done = 0; done < text.length; ) {
          const file = open.get(path);
          if (!file) break;
          done += await write(file, text.slice(done), position + done);
        }
      }
      if (operation === 'datasync') await open.get(path)?.datasync();
      if (operation === 'makeFolder') await files.makeFolder(dirname(path));
      if (operation === 'replace') {
        open.delete(path);
        await files.replace(path, text);
      }
      if (operation === 'rename') {
        const target = join(root, NAMES[position % NAMES.length]!);
        if (target === path) continue;
        open.delete(target);
        await files.rename(path, target);
        const file = open.get(path);
        open.delete(path);
        if (file) open.set(target, file);
      }
      if (operation === 'remove') {
        open.delete(path);
        await files.remove(path);
      }
      if (operation === 'removeFolder') await files.removeFolder(join(root, 'f'));
      if (operation === 'syncFolder') await files.syncFolder(dirname(path));
      if (operation === 'list') said = (await files.list(dirname(path))).sort();
      if (operation === 'size')
        said = (await files.list(dirname(path))).includes('a') && (await files.size(path));
      if (operation === 'read') said = String(await files.readWhole(path));
      seen.push(`${operation} ${name}: ${said}`);
    } catch (error) {
      if (codeOf(error) === '') throw error;
      seen.push(`${operation} ${name}: ${codeOf(error)}`);
    }
  }
  return seen;
}

test('the process sees what it would see on any file system', async t => {
  const base = dirname(folder(t));
  let run = 0;
  const step = fc.tuple(
    fc.constantFrom(
      ...[
        'create',
        'create',
        'write',
        'write',
        'datasync',
        'makeFolder',
        'replace',
        'remove',
        'rename',
        'rename',
      ],
      ...['removeFolder', 'syncFolder', 'syncFolder', 'list', 'size', 'read', 'read'],
    ),
    fc.constantFrom(...NAMES),
    fc.integer({ min: 0, max: 8 }),
    fc.string({ unit: fc.constantFrom('x', 'y', 'z'), minLength: 1, maxLength: 8 }),
  );
  const property = fc.asyncProperty(
    fc.array(step, { minLength: 1, maxLength: 40 }),
    fc.integer(),
    async (steps, seed) => {
      run++;
      const real = join(base, `real-${run}`);
      const forgetting = join(base, `forgetting-${run}`);
      await fs.mkdir(real);
      const files = await forgetfulFiles(forgetting, randomFrom(seed));
      assert.deepEqual(await story(files, forgetting, steps), await story(nodeFiles, real, steps));
      await files.keep();
      for (const name of NAMES) {
        const text = (root: string) => fs.readFile(join(root, name), 'utf8').catch(() => null);
        assert.equal(await text(forgetting), await text(real), `${name} once it was told to keep`);
      }
    },
  );
  await fc.assert(property, { numRuns: 150 });
});
