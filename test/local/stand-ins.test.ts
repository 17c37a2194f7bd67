/** Folders in the system's place that stand in for those PostgreSQL's user cannot reach: asked for, and cleared away. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { processIdentity } from '../../deploy/local/process-table.ts';
import { existingStandIn, removeAbandonedStandIns, standIn } from '../../deploy/local/unprivileged.ts';

function folder(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-stand-ins-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** A real stand-in of `directory`, in the system's own place. */
function made(t: TestContext, directory: string): string {
  mkdirSync(directory, { recursive: true });
  const place = standIn(directory);
  t.after(() => rmSync(place, { recursive: true, force: true }));
  return place;
}

test('to ask for a stand-in makes none', t => {
  const directory = folder(t);
  assert.equal(existingStandIn(join(directory, 'missing')), undefined);
  assert.equal(existingStandIn(directory), undefined);
  assert.deepEqual(readdirSync(directory), []);
  const place = made(t, directory);
  assert.equal(existingStandIn(directory), place);
  assert.equal(standIn(directory), place);
});

test('a stand-in goes when its folder is gone, and not before', t => {
  const directory = join(folder(t), 'postgres');
  const place = made(t, directory);
  removeAbandonedStandIns();
  assert.ok(existsSync(place));
  rmSync(directory, { recursive: true });
  removeAbandonedStandIns();
  assert.ok(!existsSync(place));
});

/** A folder that says of itself to stand in for one that is gone, with what `change` makes of its record. */
function pretended(t: TestContext, change: (record: Record<string, unknown>) => void): string {
  const system = folder(t);
  const directory = join(system, 'gone', 'postgres');
  const place = join(system, basename(made(t, directory)));
  const record: Record<string, unknown> = { directory, device: statSync(system).dev, place, id: 'x' };
  rmSync(join(system, 'gone'), { recursive: true });
  mkdirSync(place);
  change(record);
  writeFileSync(join(place, 'belongs-to.json'), JSON.stringify(record));
  return place;
}

test('only a folder whose record is whole and about itself is removed', t => {
  const outcomes = (
    [
      ['as recorded', () => {}],
      ['a copy from elsewhere', record => Object.assign(record, { place: '/elsewhere' })],
      ['of another folder', record => Object.assign(record, { directory: '/gone/postgres' })],
      ['on a volume that is not mounted', record => Object.assign(record, { device: -1 })],
      ['without a folder', record => delete record.directory],
    ] as const satisfies [string, (record: Record<string, unknown>) => unknown][]
  ).map(([what, change]) => {
    const place = pretended(t, change);
    removeAbandonedStandIns([join(place, '..')]);
    return [what, existsSync(place) ? 'kept' : 'removed'];
  });
  assert.deepEqual(outcomes, [
    ['as recorded', 'removed'],
    ['a copy from elsewhere', 'kept'],
    ['of another folder', 'kept'],
    ['on a volume that is not mounted', 'kept'],
    ['without a folder', 'kept'],
  ]);
});

test('a stand-in on which a server runs is kept', t => {
  const place = pretended(t, () => {});
  const running = { pid: process.pid, identity: processIdentity(process.pid) };
  writeFileSync(join(place, 'running.json'), JSON.stringify(running));
  removeAbandonedStandIns([join(place, '..')]);
  assert.ok(existsSync(place));
});
