/** The registry over HTTP and by command, on a real PostgreSQL, told to other nodes by a real NATS. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { connect } from '@nats-io/transport-node';
import type pg from 'pg';
import { moveTwins } from '../../cloud/registry/move-twins.ts';
import { openRegistry, type Registry } from '../../cloud/registry/registry.ts';
import { restoreTwin, storeTwin } from '../../cloud/twin-json.ts';
import { natsAddress } from '../../protocol/nats-address.ts';
import { openRegistryScene, type RegistryScene } from './registry-scene.ts';
import {
  atEnd,
  eventually,
  freshDatabase,
  silentLogger,
  startTestNats,
  startTestPostgres,
} from './servers.ts';

let pool: pg.Pool;
let scene: RegistryScene;
/** Another node's, which hears of changes by the nudge alone. */
let other: Registry;

before(async () => {
  const [postgres, nats] = await Promise.all([startTestPostgres(), startTestNats()]);
  pool = await freshDatabase(postgres);
  const connections = await Promise.all([1, 2].map(() => connect(natsAddress(nats.url))));
  for (const connection of connections) atEnd(() => connection.close());
  other = openRegistry({ pool, nats: connections[1]!, logger: silentLogger });
  atEnd(async () => other.close());
  await other.refresh();
  await connections[1]!.flush();
  scene = await openRegistryScene({ pool, nats: connections[0]! });
});

const put = (path: string, body: unknown) => scene.ask('PUT', path, body);
const patch = (path: string, body: unknown) => scene.ask('PATCH', path, body);
const post = (path: string, body?: unknown) => scene.ask('POST', path, body);
const get = (path: string) => scene.ask('GET', path);

/** History as if the device had been heard: a message of each at the same time, and its twin. */
async function heard(site: string, device: string, sequence: number, at = Date.now()): Promise<void> {
  await pool.query("select holdfast.ensure_day((to_timestamp($1 / 1000.0) at time zone 'utc')::date)", [at]);
  await pool.query('insert into holdfast.device (site, name) values ($1, $2) on conflict do nothing', [
    site,
    device,
  ]);
  await pool.query(
    `insert into holdfast.message (at, sequence, log, device, shape, element, kind, numbers)
     select to_timestamp($3 / 1000.0), $4::bigint, 1, id, 1, 0, 0, array[$4::float8] from holdfast.device where site = $1 and name = $2`,
    [site, device, at, sequence],
  );
  const metrics = new Map([['n', { value: sequence, at, receivedAt: at, log: 'l', sequence, element: 0 }]]);
  const twin = restoreTwin(site, device, '{"epoch":0,"version":3,"seenAt":0,"readings":[],"alerts":{}}')!;
  await pool.query('insert into holdfast.twin (site, device, version, state) values ($1, $2, 3, $3)', [
    site,
    device,
    storeTwin({ ...twin, metrics, seenAt: at }, 0),
  ]);
}

const sequencesOf = async (site: string, device: string): Promise<number[]> => {
  const { rows } = await pool.query<{ sequence: number }>(
    `select m.sequence::int from holdfast.message m join holdfast.device d on d.id = m.device
      where d.site = $1 and d.name = $2 order by m.sequence`,
    [site, device],
  );
  return rows.map(row => row.sequence);
};

async function storedTwins(site: string): Promise<Record<string, unknown>> {
  const { rows } = await pool.query<{ device: string; state: string }>(
    'select device, state from holdfast.twin where site = $1 order by device',
    [site],
  );
  return Object.fromEntries(
    rows.map(row => [row.device, restoreTwin(site, row.device, row.state)!.metrics.get('n')?.value]),
  );
}

test('types, devices and policy are entered, read, and reach every node without a restart', async () => {
  const metrics = { t: { unit: '°C', reported: '°F' } };
  assert.equal((await put('/registry/types/thermometer', { metrics })).status, 204);
  const entry = {
    displayName: 'Kühlraum 1',
    type: 'thermometer',
    tags: ['cold', 'a', 'cold'],
    metadata: { floor: 2 },
  };
  const made = await patch('/registry/devices/s1/t1', entry);
  assert.equal(made.status, 200);
  assert.deepEqual(made.body.tags, ['a', 'cold']);
  assert.equal(
    (await put('/registry/sites/s1', { unknownDevices: 'quarantine' })).body.unknownDevices,
    'quarantine',
  );
  await eventually('the other node has all of it', () => {
    const site = other.site('s1');
    return site?.unknownDevices === 'quarantine' && site.names.get('t1')?.conversions?.get('t')?.(50) === 10;
  });
  assert.deepEqual(other.of('s1', 't1'), {
    displayName: 'Kühlraum 1',
    type: 'thermometer',
    tags: ['a', 'cold'],
    groups: [],
    retired: false,
  });
  assert.equal(other.of('s1', 't2'), null);
  assert.equal(other.site('s2'), null);

  const changed = await patch('/registry/devices/s1/t1', { groups: ['north'], displayName: null });
  assert.deepEqual(
    [changed.body.displayName, changed.body.type, changed.body.groups],
    [null, 'thermometer', ['north']],
  );
  await put('/registry/types/thermometer', { metrics: { t: { unit: 'K', reported: '°F' } } });
  await eventually(
    'a change of the type reaches its devices',
    () => other.site('s1')!.names.get('t1')!.conversions!.get('t')!(32) === 273.15,
  );
  assert.deepEqual(
    (await get('/registry/types')).body.types.map((type: { id: string }) => type.id),
    ['thermometer'],
  );
});

test('what makes no sense is refused, with its reason, and changes nothing', async () => {
  for (const [answer, status, detail] of [
    [await patch('/registry/devices/s3/d', { type: 'nonesuch' }), 404, /no type nonesuch/],
    [await patch('/registry/devices/s3/d', { tags: ['has space'] }), 400, /tags/],
    [await patch('/registry/devices/s3/d', { metadata: { a: 'x\0' } }), 400, /metadata/],
    [await patch('/registry/devices/s3/d', { metadata: { a: { b: 1 } } }), 400, /metadata/],
    [await patch('/registry/devices/s3/d', { colour: 'red' }), 400, /colour/],
    [await patch('/registry/devices/no%20site/d', {}), 400, /characters/],
    [await put('/registry/types/x', { metrics: { t: { unit: 'kg', reported: 'Pa' } } }), 400, /reported/],
    [await put('/registry/sites/s3', { unknownDevices: 'perhaps' }), 400, /unknownDevices/],
    [await scene.ask('DELETE', '/registry/types/thermometer'), 409, /devices of the type/],
    [await post('/registry/devices/s3/d/retire'), 404, /no device/],
    [await post('/registry/devices/s3/d/replace', { hardware: 'e' }), 404, /no device/],
    [await get('/registry/devices/s3/d'), 404, /no device/],
  ] as const) {
    assert.equal(answer.status, status, JSON.stringify(answer.body));
    assert.match(answer.body.detail, detail);
  }
  assert.equal(scene.registry.site('s3')?.names.size ?? 0, 0);
  assert.deepEqual(scene.failures, []);
});

test('replace: what the new hardware sends, and has sent, is the old device’s', async () => {
  await heard('r1', 'pump', 1, Date.now() - 3 * 86_400_000);
  await heard('r1', 'sn-77', 2);
  const replaced = await scene.command('devices', 'replace', 'r1/pump', 'sn-77', '--json');
  assert.equal(replaced.code, 0, replaced.stderr);
  assert.deepEqual(JSON.parse(replaced.stdout).aliases, ['sn-77']);
  assert.deepEqual(await sequencesOf('r1', 'pump'), [1, 2]);
  assert.deepEqual(await storedTwins('r1'), { pump: 2 });
  assert.equal(scene.registry.site('r1')!.names.get('sn-77')!.device, 'pump');

  assert.equal(
    (await scene.command('devices', 'replace', 'r1/pump', 'r1/sn-77')).code,
    0,
    'again is no harm',
  );
  const again = await post('/registry/devices/r1/sn-77/replace', { hardware: 'x' });
  assert.match(again.body.detail, /another name of pump/);
  await patch('/registry/devices/r1/fan', {});
  assert.match(
    (await post('/registry/devices/r1/pump/replace', { hardware: 'fan' })).body.detail,
    /entry of its own/,
  );
  assert.match(
    (await post('/registry/devices/r1/fan/replace', { hardware: 'sn-77' })).body.detail,
    /stands for pump/,
  );
  assert.equal((await get('/registry/devices/r1/sn-77')).body.device, 'pump', 'found by its other name');
});

test('rename: history, incidents and what still comes under the old name follow, and back again', async () => {
  await heard('n1', 'a', 1);
  await pool.query(
    `insert into holdfast.incident (id, rule, kind, severity, site, device, metric, summary, opened_at)
     values ('i1', 'r', 'threshold', 'info', 'n1', 'a', 'n', 'n 1', now())`,
  );
  const renamed = await scene.command('devices', 'rename', 'n1/a', 'b');
  assert.equal(renamed.code, 0, renamed.stderr);
  assert.match(renamed.stdout, /n1\/a is n1\/b now/);
  assert.deepEqual(await sequencesOf('n1', 'b'), [1]);
  assert.deepEqual(await storedTwins('n1'), { b: 1 });
  const { rows } = await pool.query("select device from holdfast.incident where id = 'i1'");
  assert.deepEqual(rows, [{ device: 'b' }]);
  assert.equal(scene.registry.site('n1')!.names.get('a')!.device, 'b');

  // What was under way when the name changed comes in under the old one.
  await pool.query("delete from holdfast.twin where site = 'n1'");
  await heard('n1', 'a', 2);
  await scene.api.housekeeping();
  assert.deepEqual(await sequencesOf('n1', 'b'), [1, 2]);
  assert.deepEqual(await storedTwins('n1'), { b: 2 });

  await heard('n1', 'c', 3);
  assert.match((await post('/registry/devices/n1/b/rename', { to: 'c' })).body.detail, /use replace/);
  await patch('/registry/devices/n2/a', {});
  await post('/registry/devices/n2/a/rename', { to: 'b' });
  const back = await post('/registry/devices/n2/b/rename', { to: 'a' });
  assert.deepEqual([back.body.device, back.body.aliases], ['a', ['b']]);
});

test('retire hides, restore brings back; the lists page and filter', async () => {
  for (const name of ['d1', 'd2', 'd3']) await patch(`/registry/devices/l1/${name}`, { tags: [name, 'all'] });
  assert.equal((await scene.command('devices', 'retire', 'l1/d2')).code, 0);
  assert.equal(scene.registry.of('l1', 'd2')!.retired, true);
  const names = async (query: string) =>
    (await get(`/registry/devices?site=l1&${query}`)).body.devices.map(
      (found: { device: string }) => found.device,
    );
  assert.deepEqual(await names(''), ['d1', 'd3']);
  assert.deepEqual(await names('state=retired'), ['d2']);
  assert.deepEqual(await names('state=all&tag=all'), ['d1', 'd2', 'd3']);
  assert.deepEqual(await names('tag=d3'), ['d3']);
  assert.deepEqual(await names('search=L1/D1'), ['d1']);
  const page = (await get('/registry/devices?site=l1&state=all&limit=2')).body;
  assert.equal(page.next, 'l1/d2');
  assert.deepEqual(await names(`state=all&after=${page.next}`), ['d3']);
  const listed = await scene.command('devices', 'list', '--site', 'l1', '--retired');
  assert.match(listed.stdout, /l1\/d2 .*retired/);
  await scene.command('devices', 'restore', 'l1/d2');
  assert.equal(scene.registry.of('l1', 'd2')!.retired, false);
  assert.match((await scene.command('devices', 'show', 'l1/d2')).stdout, /state +active/);
});

test('maintenance always ends, has a reason, and can be ended before its time', async () => {
  const wrong = [
    ['s1'],
    ['s1', '--for', '2h'],
    ['s1', '--reason', 'x'],
    ['s1', '--for', 'ever', '--reason', 'x'],
    ['s1', 'more', '--for', '2h', '--reason', 'x'],
    ['end', 'x'],
  ];
  for (const args of wrong)
    assert.equal((await scene.command('maintenance', ...args)).code, 2, args.join(' '));
  const tooLong = await scene.command('maintenance', 's1', '--for', '31d', '--reason', 'x');
  assert.equal(tooLong.code, 1);
  assert.match(tooLong.stderr, /at most 30 days/);

  const begun = await scene.command(
    'maintenance',
    's1',
    '--for',
    '2h',
    '--reason',
    'new pump',
    '--by',
    'me',
    '--json',
  );
  assert.equal(begun.code, 0, begun.stderr);
  const { id, startsAt, endsAt, by } = JSON.parse(begun.stdout);
  assert.equal(Math.round(endsAt - startsAt), 7_200_000);
  assert.equal(by, 'me');
  const under = async () =>
    (await pool.query("select holdfast.under_maintenance('s1', clock_timestamp()) as it")).rows[0].it;
  assert.equal(await under(), true);
  const listed = await scene.command('maintenance', 'list');
  assert.match(listed.stdout, /s1 .*new pump/, `${listed.stderr} ${scene.failures}`);
  assert.equal((await scene.command('maintenance', 'end', String(id))).code, 0);
  assert.equal(await under(), false);
  assert.match((await scene.command('maintenance', 'list')).stdout, /No site/);
  assert.match((await scene.command('maintenance', 'list', '--past')).stdout, /over since/);
  assert.equal((await scene.command('maintenance', 'end', '999')).code, 1);
});

test('commands that are asked in a wrong way say how; a node that is away is named', async () => {
  for (const [command, ...args] of [
    ['devices'],
    ['devices', 'dance'],
    ['devices', 'show', 'no-slash'],
    ['devices', 'rename', 's/a'],
    ['devices', 'rename', 's/a', 'other/b'],
    ['devices', 'list', '--colour'],
    ['quarantine', 'replay'],
    ['quarantine', 'replay', '1', '--all'],
    ['quarantine', 'show', 'x'],
  ] as const) {
    const { code, stderr } = await scene.command(command!, ...args);
    assert.equal(code, 2, args.join(' '));
    assert.match(stderr, new RegExp(`holdfast ${command}`));
  }
  assert.match((await scene.command('devices', '--help')).stdout, /replace SITE\/OLD NEW/);
});

test('C: moved twins keep the newest of each metric; moving again changes nothing', () => {
  const twin = (device: string, value: number, at: number, version: number) => ({
    ...restoreTwin('s', device, '{"epoch":0,"version":0,"seenAt":0,"readings":[],"alerts":{}}')!,
    version,
    seenAt: at,
    metrics: new Map([['n', { value, at, receivedAt: at, log: 'l', sequence: at, element: 0 }]]),
  });
  const twins = new Map([
    ['old', twin('old', 1, 10, 7)],
    ['new', twin('new', 2, 20, 2)],
  ]);
  const aliases = new Map([['new', 'old']]);
  const moved = moveTwins(twins, aliases);
  assert.deepEqual(moved.gone, ['new']);
  const [state] = moved.twins;
  assert.deepEqual([state!.device, state!.version, state!.metrics.get('n')!.value], ['old', 8, 2]);
  assert.deepEqual(moveTwins(new Map([['old', state!]]), aliases), { twins: [], gone: [] });
  assert.equal(moveTwins(twins, new Map([['new', 'third']])).twins[0]!.device, 'third');
});
