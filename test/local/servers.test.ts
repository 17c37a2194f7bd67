/** Every server for real: start, a wrong password, kill -9 and start again with its data, loopback alone. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectTcp, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { connect as connectNats } from '@nats-io/transport-node';
import { Redis } from 'ioredis';
import { connectAsync } from 'mqtt';
import pg from 'pg';
import { type Binaries, defaultCacheDirectory, findBinaries } from '../../deploy/local/find-servers.ts';
import { childrenOf, processIdentity } from '../../deploy/local/process-table.ts';
import {
  freePort,
  type Server,
  startMosquitto,
  startNats,
  startPostgres,
  startRedis,
} from '../../deploy/local/servers.ts';

let binaries: Binaries;
let folder: string;
const servers: Server[] = [];

before(async () => {
  binaries = await findBinaries({
    cacheDirectory: defaultCacheDirectory,
    report: line => console.error(line),
  });
  folder = mkdtempSync(join(tmpdir(), 'holdfast-servers-'));
  // As root PostgreSQL runs as another user, who has to get in.
  chmodSync(folder, 0o711);
});

after(async () => {
  await Promise.all(servers.map(server => server.stop()));
  rmSync(folder, { recursive: true, force: true });
});

function kept(server: Server): Server {
  servers.push(server);
  return server;
}

/** A server on 0.0.0.0 would answer there; one on 127.0.0.1 does not. */
async function assertLoopbackOnly(server: Server): Promise<void> {
  assert.equal(server.host, '127.0.0.1');
  const socket = connectTcp({ host: '127.0.0.2', port: server.port });
  const outcome = await Promise.race([
    once(socket, 'connect').then(() => 'connected'),
    new Promise(resolve => socket.once('error', () => resolve('refused'))),
  ]);
  socket.destroy();
  assert.equal(outcome, 'refused');
}

function withPassword(url: string, password: string): string {
  const parsed = new URL(url);
  parsed.password = password;
  return parsed.href;
}

async function killAndStart(server: Server): Promise<void> {
  const pid = server.pid();
  assert.ok(pid);
  await server.kill();
  assert.equal(server.pid(), undefined);
  assert.equal(processIdentity(pid), undefined);
  await server.start();
  assert.notEqual(server.pid(), undefined);
  assert.notEqual(server.pid(), pid);
}

test('redis', async t => {
  const server = kept(await startRedis({ binaries, directory: join(folder, 'redis') }));
  await assertLoopbackOnly(server);
  const stranger = new Redis(withPassword(server.url, 'wrong'), {
    lazyConnect: true,
    retryStrategy: () => null,
  });
  stranger.on('error', () => undefined);
  await assert.rejects(stranger.connect().then(() => stranger.get('key')));
  stranger.disconnect();
  await killAndStart(server);
  const client = new Redis(server.url);
  t.after(() => client.disconnect());
  assert.equal(await client.set('key', 'value'), 'OK');
  const settings = (await client.config('GET', 'maxmemory-policy')) as string[];
  assert.equal(settings[1], 'noeviction');
});

test('nats keeps its streams and its permissions', async () => {
  const users = [
    { user: 'holdfast', password: 'administrator' },
    {
      user: 'site',
      password: 'secret',
      permissions: { publish: ['ingest.site'], subscribe: ['_INBOX.site.>'] },
    },
  ];
  const server = kept(await startNats({ binaries, directory: join(folder, 'nats'), users }));
  await assertLoopbackOnly(server);
  const [administrator] = users;
  const servers = `${server.host}:${server.port}`;
  const login = { servers, user: administrator!.user, pass: administrator!.password };
  await assert.rejects(connectNats({ ...login, pass: 'wrong', reconnect: false }), /authorization/i);

  const first = await connectNats(login);
  await (await jetstreamManager(first)).streams.add({ name: 'ingest', subjects: ['ingest.>'] });
  await jetstream(first).publish('ingest.site', 'reading');
  await first.close();
  await killAndStart(server);
  const second = await connectNats(login);
  const { state } = await (await jetstreamManager(second)).streams.info('ingest');
  assert.equal(state.messages, 1);

  const site = await connectNats({ servers, user: 'site', pass: 'secret', inboxPrefix: '_INBOX.site' });
  const refused = (async () => {
    for await (const status of site.status()) {
      if (status.type === 'error') return String(status.error);
    }
    return 'never';
  })();
  site.publish('ingest.other', 'reading');
  assert.match(await refused, /permissions violation.*ingest\.other/i);
  await site.close();
  await second.close();
});

test('mosquitto keeps its retained messages', async () => {
  const users = [
    { user: 'gateway', password: 'first' },
    { user: 'device', password: 'second' },
  ];
  const directory = join(folder, 'mosquitto');
  const server = kept(await startMosquitto({ binaries, directory, users, save: { changes: 1 } }));
  await assertLoopbackOnly(server);
  for (const url of [withPassword(server.url, 'wrong'), `mqtt://127.0.0.1:${server.port}`]) {
    await assert.rejects(
      connectAsync(url, { reconnectPeriod: 0, protocolVersion: 5 }, false),
      /not authorized/i,
    );
  }
  const device = await connectAsync(`mqtt://device:second@127.0.0.1:${server.port}`, { protocolVersion: 5 });
  await device.publishAsync('devices/x/status', 'online', { qos: 1, retain: true });
  await device.endAsync();
  // The save follows the change in the broker's own loop; nothing tells from outside that it is done but the file.
  const database = join(directory, 'data', 'mosquitto.db');
  while (!existsSync(database) || !readFileSync(database).includes('devices/x/status')) {
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  await killAndStart(server);
  const gateway = await connectAsync(server.url, { protocolVersion: 5 });
  const message = new Promise<[string, Buffer]>(resolve => {
    gateway.once('message', (topic, payload) => resolve([topic, payload]));
  });
  await gateway.subscribeAsync('devices/+/status', { qos: 1 });
  const [topic, payload] = await message;
  assert.deepEqual([topic, payload.toString()], ['devices/x/status', 'online']);
  await gateway.endAsync();
});

test('postgres keeps its rows, and a kill leaves no child behind', async () => {
  const directory = join(folder, 'postgres');
  const server = kept(await startPostgres({ binaries, directory, report: line => console.error(line) }));
  await assertLoopbackOnly(server);
  const ask = async (url: string, sql: string): Promise<Record<string, unknown>[]> => {
    const client = new pg.Client({ connectionString: url });
    client.on('error', () => undefined);
    try {
      await client.connect();
      return (await client.query<Record<string, unknown>>(sql)).rows;
    } finally {
      await client.end();
    }
  };
  await assert.rejects(ask(withPassword(server.url, 'wrong'), 'SELECT 1'), /password authentication failed/);
  await ask(server.url, 'CREATE TABLE reading (value int)');
  await ask(server.url, 'INSERT INTO reading VALUES (21)');
  const [settings] = await ask(
    server.url,
    "SELECT current_setting('data_checksums') AS checksums, current_setting('synchronous_commit') AS commit, pg_encoding_to_char(encoding) AS encoding FROM pg_database WHERE datname = current_database()",
  );
  assert.deepEqual(settings, { checksums: 'on', commit: 'on', encoding: 'UTF8' });

  const idle = new pg.Client({ connectionString: server.url });
  idle.on('error', () => undefined);
  await idle.connect();
  const children = childrenOf(server.pid()!);
  assert.ok(children.length > 3);
  await server.kill();
  assert.deepEqual(
    children.filter(pid => processIdentity(pid) !== undefined),
    [],
  );
  await idle.end().catch(() => undefined);
  await server.start();
  assert.deepEqual(await ask(server.url, 'SELECT value FROM reading'), [{ value: 21 }]);

  // A second start on the same folder, on another port, as after a restart of the whole demo.
  await server.stop();
  const again = kept(await startPostgres({ binaries, directory }));
  assert.deepEqual(await ask(again.url, 'SELECT value FROM reading'), [{ value: 21 }]);
});

test('a server that dies by itself is reported, and an asked-for stop is not', async () => {
  const server = kept(await startRedis({ binaries, directory: join(folder, 'redis-dies') }));
  const reasons: string[] = [];
  const heard = new Promise<void>(resolve => {
    server.onUnexpectedExit(reason => {
      reasons.push(reason);
      resolve();
    });
  });
  process.kill(server.pid()!, 'SIGKILL');
  await heard;
  assert.deepEqual(reasons, ['ended by SIGKILL']);
  assert.equal(server.pid(), undefined);
  await server.start();
  await server.stop();
  assert.equal(reasons.length, 1);
});

test('a taken port is named, with what the server said', async t => {
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  t.after(() => taken.close());
  const { port } = taken.address() as { port: number };
  await assert.rejects(
    startRedis({ binaries, directory: join(folder, 'redis-taken'), port }),
    new RegExp(`redis on 127\\.0\\.0\\.1:${port} ended with code 1; it said:[\\s\\S]*already in use`),
  );
});

test('what a killed program left running is ended by the next start on its data; a living owner is respected', async () => {
  const directory = join(folder, 'redis-orphan');
  const binariesFile = join(folder, 'binaries.json');
  writeFileSync(binariesFile, JSON.stringify(binaries));
  const module = fileURLToPath(new URL('../../deploy/local/servers.ts', import.meta.url));
  const program = `
    import { readFileSync } from 'node:fs';
    import { startRedis } from ${JSON.stringify(module)};
    const [binaries, directory] = process.argv.slice(1);
    const server = await startRedis({ binaries: JSON.parse(readFileSync(binaries, 'utf8')), directory });
    console.log(server.pid());
    setInterval(() => undefined, 1000);`;
  const owner = spawn(process.execPath, ['--input-type=module', '-e', program, binariesFile, directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(owner.stdout, 'data')) as [Buffer];
  const orphan = Number(line.toString());
  await assert.rejects(
    startRedis({ binaries, directory }),
    /already running on .* as process \d+, started by process/,
  );
  owner.kill('SIGKILL');
  await once(owner, 'exit');
  assert.notEqual(processIdentity(orphan), undefined);
  const server = kept(await startRedis({ binaries, directory }));
  assert.equal(processIdentity(orphan), undefined);
  assert.notEqual(server.pid(), orphan);
});

test('free ports are different ones', async () => {
  const ports = await Promise.all(Array.from({ length: 20 }, () => freePort()));
  assert.equal(new Set(ports).size, ports.length);
});
