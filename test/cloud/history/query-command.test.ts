/** `holdfast history` as people run it, on a real PostgreSQL and over HTTP. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { registerHistoryRoutes } from '../../../cloud/api/history-routes.ts';
import type { GatewayLink } from '../../../cloud/gateway-link.ts';
import { listen, newApp } from '../../../cloud/web-server.ts';
import { atEnd, freshDatabase, startTestPostgres, timescaleUrl } from '../servers.ts';
import { DAY, DAY_MS, HOUR_MS, openQueryScene, SITE } from './query-scene.ts';

const scene = await openQueryScene();
const folder = await mkdtemp(join(tmpdir(), 'holdfast-history-'));
atEnd(() => rm(folder, { recursive: true }));

const app = newApp();
registerHistoryRoutes({
  ...{ app, pool: scene.pool },
  gateways: { gateways: new Map(), silentSince: () => null } as unknown as GatewayLink,
  onError: (route, error) => assert.fail(`${route}: ${(error as Error).message}`),
});
const listening = await listen(app, '127.0.0.1', 0);
assert.ok(listening.outcome === 'listening');
atEnd(async () => {
  listening.close();
  app.close();
});
const URL_HERE = `http://127.0.0.1:${listening.port}`;

const entry = fileURLToPath(new URL('../../../cloud/commands/history-command.ts', import.meta.url));

async function run(args: readonly string[], environment: Record<string, string> = {}) {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', entry, ...args], {
    env: { ...process.env, HOLDFAST_URL: URL_HERE, ...environment },
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', part => {
    stdout += part;
  });
  child.stderr.on('data', part => {
    stderr += part;
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
}

async function someHistory(): Promise<void> {
  await scene.empty();
  await scene.store(
    Array.from({ length: 30 }, (_, i) => ({
      ...{ device: 'a', log: 'one', at: DAY + i * 2 * HOUR_MS },
      metrics: { t: i, mode: 'auto' },
    })),
  );
  await scene.compact(DAY + DAY_MS);
}

test('an export goes to stdout or into a file, with how far it is', async () => {
  await someHistory();
  const toStdout = await run(['export', '--site', SITE, '--metric', 't', '--from', '2026-01-11T00:00Z']);
  assert.equal(toStdout.code, 0, toStdout.stderr);
  const lines = toStdout.stdout.trimEnd().split('\n');
  assert.equal(lines.length, 1 + 18);
  assert.equal(lines[1], 'demo,a,t,2026-01-11T00:00:00.000Z,12,,,telemetry');
  assert.match(toStdout.stderr, /^demo\/a t, day 2 of 2: 18 rows, 0\.0 MB, [\d.]+ MB\/s\n$/);

  const file = join(folder, 'all.ndjson');
  const toFile = await run(['export', '--site', SITE, '--device', 'a', '--format', 'ndjson', '--out', file]);
  assert.equal(toFile.code, 0, toFile.stderr);
  assert.equal(toFile.stdout, '');
  const rows = (await readFile(file, 'utf8'))
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line));
  assert.deepEqual(
    rows.map(({ metric }) => metric),
    [...Array(30).fill('mode'), ...Array(30).fill('t')],
  );
  assert.match(toFile.stderr, /^demo\/a t, day 3 of 3: 60 rows/);
  await assert.rejects(stat(`${file}.part`));
});

test('what cannot be exported is told, and what was cut is not taken for the whole', async () => {
  assert.deepEqual((await run(['export'])).code, 2);
  assert.deepEqual((await run(['export', '--site', SITE, '--format', 'xls'])).code, 2);
  assert.deepEqual((await run(['export', '--site', SITE, '--from', 'soon'])).code, 2);
  assert.deepEqual((await run(['weigh'])).code, 2);
  const nowhere = await run(['export', '--site', 'nowhere']);
  assert.deepEqual([nowhere.code, nowhere.stderr], [1, 'history has nothing of nowhere\n']);
  const nobody = await run(['export', '--site', SITE], { HOLDFAST_URL: 'http://127.0.0.1:1' });
  assert.equal(nobody.code, 1);
  assert.match(nobody.stderr, /does not answer/);

  const server = createServer((_, response) => {
    response.write('site,device,metric,time,value,text,truth,kind\n');
    setImmediate(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const file = join(folder, 'cut.csv');
  const cut = await run(['export', '--site', SITE, '--out', file], {
    HOLDFAST_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
  });
  server.close();
  assert.equal(cut.code, 1);
  assert.match(cut.stderr, /the export was cut short .*cut\.csv\.part is what came of it/);
  await assert.rejects(stat(file));
});

test('the room that history takes, by day and altogether', async () => {
  await someHistory();
  const environment = { HOLDFAST_POSTGRES_URL: scene.url };
  const { code, stdout, stderr } = await run(['stats', '--json'], environment);
  assert.equal(code, 0, stderr);
  const { days, total } = JSON.parse(stdout);
  assert.deepEqual(
    days.map(({ day, hotReadings, chunkReadings }: Record<string, unknown>) => [
      day,
      hotReadings,
      chunkReadings,
    ]),
    [
      ['2026-01-10', 0, 24],
      ['2026-01-11', 24, 0],
      ['2026-01-12', 12, 0],
    ],
  );
  assert.equal(total.readings, 60);
  const bytes =
    total.messageBytes + total.chunkBytes + total.aggregateBytes + total.minutesBytes + total.summaryBytes;
  assert.equal(total.bytes, bytes);
  assert.equal(total.bytesPerReading, bytes / 60);
  const { rows } = await scene.pool.query(
    `select pg_total_relation_size(relation)::int as chunks,
            pg_total_relation_size('holdfast.aggregate')::int as aggregates
       from holdfast.day_tables() where parent = 'chunk' and day = '2026-01-10'`,
  );
  assert.deepEqual([days[0].chunkBytes, total.aggregateBytes], [rows[0].chunks, rows[0].aggregates]);

  const text = await run(['stats'], environment);
  assert.match(text.stdout, /^DAY +MESSAGES/);
  assert.match(text.stdout, /^2026-01-11 .* 24 +24 /m);
  assert.match(text.stdout, /for 60 readings: [\d.]+ bytes per reading\.\n$/);
  assert.equal((await run(['stats'], { HOLDFAST_POSTGRES_URL: '' })).code, 2);
});

test('to-timescale tells where history is, or why it stays where it is', async () => {
  const moved = await run(['to-timescale'], { HOLDFAST_POSTGRES_URL: scene.url });
  if (timescaleUrl) {
    assert.equal(moved.code, 0, moved.stderr);
    assert.match(moved.stdout, /^History is on TimescaleDB [\d.]+ \(licence: \w+\) already\.\n$/);
    const stock = await freshDatabase(await startTestPostgres(), { timescale: 'off' });
    const answer = await run(['to-timescale', '--json'], {
      HOLDFAST_POSTGRES_URL: stock.options.connectionString!,
    });
    assert.equal(JSON.parse(answer.stdout).moved, true, answer.stderr);
  } else {
    assert.equal(moved.code, 1);
    assert.match(moved.stderr, /nothing was moved: the server has no TimescaleDB/);
  }
  const elsewhere = new URL(scene.url);
  elsewhere.pathname = '/template1';
  const empty = await run(['to-timescale'], { HOLDFAST_POSTGRES_URL: elsewhere.href });
  assert.equal(empty.code, 1);
  assert.match(empty.stderr, /no history of this version/);
  assert.equal((await run(['to-timescale'], { HOLDFAST_POSTGRES_URL: '' })).code, 2);
});
