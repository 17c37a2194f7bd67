import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { compareVersions, versionIn } from '../../deploy/local/binaries.ts';
import { findBinaries } from '../../deploy/local/find-servers.ts';
import { withFolderLock } from '../../deploy/local/folder-lock.ts';
import { externalServer } from '../../deploy/local/server.ts';

const silent = () => undefined;

function folder(t: { after(release: () => void): void }): string {
  const made = mkdtempSync(join(tmpdir(), 'holdfast-find-'));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

function fake(directory: string, name: string, says: string): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, name), `#!/bin/sh\necho '${says}'\n`, { mode: 0o755 });
}

test('the version is read from what each program says', () => {
  assert.equal(versionIn('mosquitto version 2.0.11\n\nmosquitto is an MQTT broker.'), '2.0.11');
  assert.equal(versionIn('nats-server: v2.10.27'), '2.10.27');
  assert.equal(versionIn('Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64'), '7.0.15');
  assert.equal(versionIn('redis-cli 7.0.15'), '7.0.15');
  assert.equal(versionIn('postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)'), '15.18');
  assert.equal(versionIn('initdb (PostgreSQL) 17beta1'), '17');
  assert.equal(versionIn('usage: something'), undefined);
  assert.ok(compareVersions('2.9.10', '2.10.27') < 0);
  assert.ok(compareVersions('2.10.27', '2.10.27') === 0);
  assert.ok(compareVersions('15.18', '15') > 0);
});

test('a program that is too old is passed over for a newer one further on', async t => {
  const directory = folder(t);
  fake(join(directory, 'old'), 'nats-server', 'nats-server: v2.9.10');
  fake(join(directory, 'new'), 'nats-server', 'nats-server: v2.11.4');
  const found = await findBinaries({
    cacheDirectory: join(directory, 'cache'),
    report: silent,
    need: ['nats'],
    places: ['machine'],
    folders: [join(directory, 'old'), join(directory, 'new')],
  });
  assert.equal(found['nats-server']?.version, '2.11.4');
  assert.equal(found['nats-server']?.path, join(directory, 'new', 'nats-server'));
});

test('one message names what is missing or too old, and every way out of it', async t => {
  const directory = folder(t);
  fake(directory, 'nats-server', 'nats-server: v2.9.10');
  fake(directory, 'redis-server', 'Redis server v=7.0.15');
  await assert.rejects(
    findBinaries({
      cacheDirectory: join(directory, 'cache'),
      report: silent,
      need: ['nats', 'redis', 'postgres'],
      places: ['machine'],
      folders: [directory],
    }),
    (error: Error) => {
      assert.match(
        error.message,
        /nats-server 2\.10\.27 or newer\n.*nats-server is version 2\.9\.10, older than/,
      );
      assert.match(error.message, /PostgreSQL 15 or newer/);
      assert.doesNotMatch(error.message, /Redis|HOLDFAST_REDIS_URL/);
      assert.match(error.message, /apt-get install nats-server postgresql\n/);
      assert.match(error.message, /dnf install .*\n.*brew install /);
      assert.match(error.message, /HOLDFAST_NATS_URL=[\s\S]*HOLDFAST_POSTGRES_URL=/);
      return true;
    },
  );
});

test('servers by URL: the port is known, and a URL of another kind is refused by the name of its variable', async () => {
  const server = externalServer('nats', 'nats://u:p@stream.example');
  assert.deepEqual(
    [server.external, server.host, server.port, server.pid()],
    [true, 'stream.example', 4222, undefined],
  );
  await server.kill();
  assert.throws(
    () => externalServer('redis', 'http://cache.example'),
    /HOLDFAST_REDIS_URL is not a URL like redis:/,
  );
  assert.throws(() => externalServer('postgres', 'nonsense'), /HOLDFAST_POSTGRES_URL/);
});

test('the lock of the package folder holds between processes and outlives nobody', async t => {
  const directory = folder(t);
  const lock = fileURLToPath(new URL('../../deploy/local/folder-lock.ts', import.meta.url));
  const program = `
    import { withFolderLock } from ${JSON.stringify(lock)};
    import { readdirSync, rmSync, writeFileSync } from 'node:fs';
    const [directory] = process.argv.slice(1);
    for (let round = 0; round < 20; round += 1) {
      await withFolderLock(directory, () => undefined, async () => {
        if (readdirSync(directory).includes('inside')) throw new Error('two inside');
        writeFileSync(directory + '/inside', '');
        await new Promise(resolve => setImmediate(resolve));
        rmSync(directory + '/inside');
      });
    }`;
  writeFileSync(join(directory, 'lock'), JSON.stringify({ pid: 2 ** 22 + 1, identity: 'of a dead process' }));
  const run = () =>
    promisify(execFile)(process.execPath, ['--input-type=module', '-e', program, directory], {
      timeout: 60_000,
    });
  await Promise.all([run(), run(), run()]);
  assert.deepEqual(readdirSync(directory), []);
  await assert.rejects(
    withFolderLock(directory, silent, () => Promise.reject(new Error('failed'))),
    /failed/,
  );
  assert.deepEqual(readdirSync(directory), [], 'released after a failure too');
});
