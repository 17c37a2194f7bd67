/**
 * Yesterday's dump, restored, on the whole stack (A, B, C, R): what the database lacks by then comes back from the gateway's
 * disk and from Redis, each once; and what a confirmed backup has is given back by the gateway, and not missed.
 *
 * The gateway's clock goes 30 hours slow until the first restore, so what it wrote and what history settled of it is
 * 30 hours old then. The stream is purged as it would have been by then, so nothing comes back from there.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, globSync, mkdtempSync, readFileSync, realpathSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect } from '@nats-io/transport-node';
import mqtt from 'mqtt';
import pg from 'pg';
import type { BackupOutlook } from '../../cloud/backup/outlook.ts';
import { openClocks } from '../../deploy/chaos/clocks.ts';
import { natsAddress } from '../../protocol/nats-address.ts';
import { gatewayEntries, lastWords, openScene, type Scene, until } from './scene.ts';

const run = promisify(execFile);
const SITE = 'plant';
const GATEWAY = `${SITE}/gw-1`;
const THIRTY_HOURS_MS = 30 * 3_600_000;
const MIB = 1024 * 1024;
/** Of which the newest quarter stays on the gateway's disk in any case, to recognise re-deliveries. */
const BUFFER_BYTES_MAX = 16 * MIB;
/** So that a few hundred messages are some segments of 1 MiB. */
const PADDING = 'x'.repeat(4000);
const ROUND = 500;

let scene: Scene;
let device: mqtt.MqttClient;
let shiftClock: (ms: number) => void;
let published = 0;
let dumps = '';

async function publishRound(): Promise<void> {
  const sent: Promise<unknown>[] = [];
  for (let n = 1; n <= ROUND; n++) {
    published++;
    const payload = JSON.stringify({ n: published, padding: PADDING });
    sent.push(device.publishAsync(`devices/pump-${published % 5}/telemetry`, payload, { qos: 1 }));
  }
  await Promise.all(sent);
}

const heat = (name: string, value: number) =>
  device.publishAsync(`devices/${name}/telemetry`, JSON.stringify({ heat: value }), { qos: 1 });

async function stored(): Promise<{ rows: number; different: number }> {
  const { rows } = await scene.postgres.query<{ rows: number; different: number }>(
    `select count(*)::int as rows, count(distinct value)::int as different
       from holdfast.reading where site = $1 and metric = 'n'`,
    [SITE],
  );
  return rows[0]!;
}

const allStored = () =>
  until('every message is in history, and the gateway knows it', 60_000, async () => {
    const [entry] = await gatewayEntries(scene);
    return (await stored()).different === published && entry?.unsettledMessages === 0;
  });

interface Incident {
  readonly id: string;
  readonly device: string;
  readonly openedAt: number;
  readonly clearedAt: number | null;
}

async function incidents(): Promise<Incident[]> {
  const { incidents: found } = await scene.get<{ incidents: Incident[] }>(
    `/incidents?site=${SITE}&limit=1000`,
  );
  return found
    .filter(({ device: name }) => !name?.startsWith('probe'))
    .map(({ id, device: name, openedAt, clearedAt }) => ({ id, device: name, openedAt, clearedAt }))
    .sort((a, b) => (a.id < b.id ? -1 : 1));
}

/** As people see them; who owns the twin, and how often it changed, is another matter. */
async function twins(): Promise<unknown[]> {
  const { twins: found } = await scene.get<{ twins: Record<string, unknown>[] }>(
    `/twins?site=${SITE}&limit=1000`,
  );
  return found.map(({ epoch: _, version: __, ...twin }) => twin);
}

async function change<T>(method: string, path: string, body?: object): Promise<T> {
  const response = await fetch(scene.stack.url + path, {
    method,
    ...(body && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
  });
  assert.ok(response.ok, `${path}: ${response.status}`);
  return (await response.json()) as T;
}

/** `pg_dump` or `pg_restore` of the server that runs; null where there is none beside it. */
function client(name: 'pg_dump' | 'pg_restore'): string | null {
  const { postgres } = scene.binaries;
  if (!postgres || postgres.origin.kind === 'container') return null;
  const path = join(dirname(realpathSync(postgres.path)), name);
  return existsSync(path) ? path : null;
}

/** With the look that docs/backup.md asks for: the dump has the number, so it was taken after the note. */
async function dump(number: number): Promise<string> {
  const file = join(dumps, `holdfast-${number}.dump`);
  const env = { ...process.env, ...scene.binaries.postgres!.env };
  const database = `--dbname=${scene.stack.postgres.url}`;
  await run(client('pg_dump')!, ['--format=custom', `--file=${file}`, database], { env });
  const looking = ['--data-only', '--schema=holdfast', '--table=backup', '--file=-', file];
  const { stdout } = await run(client('pg_restore')!, looking, { env });
  assert.ok(stdout.includes(`\n${number}\t`), stdout);
  return file;
}

/** As docs/backup.md says: the nodes stopped, into an empty database, then the nodes again. */
async function restore(file: string, meanwhile: () => Promise<void>): Promise<void> {
  await scene.stack.cloud.stop();
  const url = new URL(scene.stack.postgres.url);
  const name = url.pathname.slice(1);
  url.pathname = '/postgres';
  const administrator = new pg.Client({ connectionString: url.href });
  await administrator.connect();
  await administrator.query(`drop database ${name} with (force)`);
  await administrator.query(`create database ${name}`);
  await administrator.end();
  const env = { ...process.env, ...scene.binaries.postgres!.env };
  await run(client('pg_restore')!, ['--exit-on-error', `--dbname=${scene.stack.postgres.url}`, file], {
    env,
  });
  await meanwhile();
  await scene.stack.startCloud();
}

async function purgeStream(): Promise<void> {
  const nats = await connect(natsAddress(scene.stack.nats.url));
  await (await jetstreamManager(nats)).streams.purge('ingest');
  await nats.close();
}

async function restartGateway(): Promise<void> {
  const gateway = scene.stack.gateways.get(GATEWAY)!;
  await gateway.stop();
  await gateway.start();
}

const gatewayFolder = () => join(scene.directory, 'gateways', SITE, 'gw-1', 'log');

/** When the segments of older logs were settled, by the gateway's own note. */
function settledTimes(): number[] {
  return globSync(join(gatewayFolder(), '*', 'settled.json')).flatMap(file => {
    const [body = '{}'] = readFileSync(file, 'utf8').split('\n');
    return Object.values((JSON.parse(body) as { settledAtMs: Record<string, number> }).settledAtMs);
  });
}

/** On the gateway's disk. A file that goes meanwhile counts nothing. */
const bytesKept = () =>
  globSync(join(gatewayFolder(), '*', '*.{segment,blocks}'))
    .map(file => statSync(file, { throwIfNoEntry: false })?.size ?? 0)
    .reduce((sum, bytes) => sum + bytes, 0);

before(async () => {
  dumps = mkdtempSync(join(tmpdir(), 'holdfast-dumps-'));
  const clocks = openClocks(join(dumps, 'clocks'));
  shiftClock = clocks.shift('gateway');
  shiftClock(-THIRTY_HOURS_MS);
  scene = await openScene({
    sites: { [SITE]: ['gw-1'] },
    gatewayEnv: { ...clocks.env('gateway'), HOLDFAST_BUFFER_BYTES_MAX: String(BUFFER_BYTES_MAX) },
  });
  device = await mqtt.connectAsync(scene.stack.brokers.get(SITE)!.deviceUrl, { protocolVersion: 5 });
  await change('PUT', '/rules/too-hot', {
    kind: 'threshold',
    metric: 'heat',
    comparison: 'above',
    threshold: 30,
    hysteresis: 2,
  });
  let n = 0;
  await until('the rule is at work', 30_000, async () => {
    await heat(`probe-${n++}`, 40);
    const { rows } = await scene.postgres.query('select from holdfast.incident');
    return rows.length > 0;
  });
});
after(async () => {
  await device?.endAsync();
  await scene?.close();
  rmSync(dumps, { recursive: true, force: true });
});

test('a dump of 30 hours ago is restored: nothing is lost, nothing comes twice', {
  timeout: 240_000,
}, async t => {
  if (!client('pg_dump') || !client('pg_restore')) return t.skip('no pg_dump beside PostgreSQL');
  await publishRound();
  await heat('oven', 40);
  await allStored();
  await until('an incident is open', 20_000, async () => (await incidents()).length === 1);

  const { id } = await change<{ id: number }>('POST', '/backups');
  const file = await dump(id);
  await restartGateway();
  await publishRound();
  await heat('oven', 20);
  await heat('kiln', 50);
  await heat('kiln', 10);
  await allStored();
  await until('both incidents are over', 20_000, async () => {
    const found = await incidents();
    return found.length === 2 && found.every(({ clearedAt }) => clearedAt !== null);
  });
  // Twice: what the process had in work is sealed by the next one, and known to be settled then.
  await restartGateway();
  await allStored();
  const [incidentsBefore, twinsBefore] = [await incidents(), await twins()];

  await scene.stack.gateways.get(GATEWAY)!.stop();
  shiftClock(0);
  const settledAt = settledTimes();
  assert.ok(settledAt.length >= 2, 'some segments are kept');
  const agesMs = settledAt.map(at => Date.now() - at);
  assert.ok(
    agesMs.every(age => age > THIRTY_HOURS_MS - 1000 && age < THIRTY_HOURS_MS + 600_000),
    'and were settled 30 hours ago',
  );
  try {
    await restore(file, async () => {
      assert.deepEqual(await stored(), { rows: ROUND, different: ROUND }, 'the dump has the first half');
      await purgeStream();
    });
    await scene.stack.gateways.get(GATEWAY)!.start();
    await allStored();
    assert.deepEqual(await stored(), { rows: published, different: published });
    await until('the incidents are as they were', 30_000, async () => {
      const found = await incidents();
      return JSON.stringify(found) === JSON.stringify(incidentsBefore);
    });
    assert.deepEqual(await twins(), twinsBefore);
    // What comes now changes nothing of that.
    await heat('oven', 21);
    await publishRound();
    await allStored();
    assert.deepEqual(await incidents(), incidentsBefore, 'no incident a second time');
    assert.deepEqual(await stored(), { rows: published, different: published });
  } catch (error) {
    console.log(await incidents().catch(() => []), incidentsBefore, await stored().catch(() => null));
    console.log(lastWords(scene));
    throw error;
  }
});

test('a confirmed backup: the gateway gives back what it has, and a restore of it loses nothing', {
  timeout: 240_000,
}, async t => {
  if (!client('pg_dump') || !client('pg_restore')) return t.skip('no pg_dump beside PostgreSQL');
  await publishRound();
  await allStored();
  await restartGateway();
  const before = bytesKept();
  assert.ok(before > 0.45 * BUFFER_BYTES_MAX, `${before} bytes are kept`);
  const { id } = await change<{ id: number }>('POST', '/backups');
  const file = await dump(id);
  assert.ok(bytesKept() >= before, 'a backup that is only begun changes nothing');
  await change('POST', `/backups/${id}/confirm`);
  const kept = await until('the gateway gives back what is covered', 40_000, () => {
    const now = bytesKept();
    return now < 0.4 * BUFFER_BYTES_MAX && now;
  });
  console.log(`  before ${(before / MIB).toFixed(1)} MiB, kept ${(kept / MIB).toFixed(1)} MiB`);

  await publishRound();
  await allStored();
  const outlook = await scene.get<BackupOutlook>('/backups');
  assert.ok(outlook.uncovered.messages >= ROUND && outlook.uncovered.messages < published);
  const [incidentsBefore, twinsBefore] = [await incidents(), await twins()];
  try {
    await restore(file, purgeStream);
    await allStored();
    assert.deepEqual(await stored(), { rows: published, different: published });
    assert.deepEqual(await incidents(), incidentsBefore);
    assert.deepEqual(await twins(), twinsBefore);
    // It was begun before it was dumped, so the database that it became knows its number.
    await change('POST', `/backups/${id}/confirm`);
  } catch (error) {
    console.log(lastWords(scene));
    throw error;
  }
});
