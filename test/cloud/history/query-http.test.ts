/**
 * History over HTTP with a real PostgreSQL: shapes of answers, limits, pages, and clients that are slow or go
 * away.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import type pg from 'pg';
import { registerHistoryRoutes } from '../../../cloud/api/history-routes.ts';
import type { GatewayLink } from '../../../cloud/gateway-link.ts';
import { listen, newApp } from '../../../cloud/web-server.ts';
import { atEnd, eventually } from '../servers.ts';
import { DAY, DAY_MS, HOUR_MS, MINUTE_MS, openQueryScene, SITE } from './query-scene.ts';

const scene = await openQueryScene();
const { pool } = scene;

/** What the routes ask, counted; and made to fail where a test wants it. */
let pieces = 0;
let failAfter = Number.POSITIVE_INFINITY;
const errors: string[] = [];
const watched = Object.create(pool, {
  query: {
    value: (...args: unknown[]) => {
      const text = typeof args[0] === 'string' ? args[0] : (args[0] as pg.QueryConfig).text;
      if (text.includes('record_send') && ++pieces > failAfter) return Promise.reject(new Error('cut'));
      return (pool.query as (...all: unknown[]) => unknown).apply(pool, args);
    },
  },
}) as pg.Pool;

const app = newApp();
const gateways = { gateways: new Map(), silentSince: () => null } as unknown as GatewayLink;
registerHistoryRoutes({
  ...{ app, gateways, pool: watched },
  onError: (route, error) => errors.push(`${route}: ${(error as Error).message}`),
});
const listening = await listen(app, '127.0.0.1', 0);
assert.ok(listening.outcome === 'listening');
atEnd(async () => {
  listening.close();
  app.close();
});
const base = `http://127.0.0.1:${listening.port}`;

async function get<T>(path: string): Promise<T> {
  const response = await fetch(base + path);
  const text = await response.text();
  assert.equal(response.status, 200, text);
  return JSON.parse(text) as T;
}

async function refused(path: string, status: number, detail: RegExp): Promise<void> {
  const response = await fetch(base + path);
  const problem = (await response.json()) as { detail: string };
  assert.equal(response.headers.get('content-type'), 'application/problem+json');
  assert.match(problem.detail, detail);
  assert.equal(response.status, status);
}

const T = DAY + 5 * HOUR_MS;
const at = (i: number) => T + i * 1000;

async function someHistory(): Promise<void> {
  await scene.empty();
  await scene.store(
    Array.from({ length: 50 }, (_, i) => ({
      ...{ device: i % 2 ? 'a' : 'b', log: 'one', at: at(i), kind: i === 1 ? 1 : 0 },
      metrics: { t: i, on: i % 4 === 1, mode: i < 25 ? 'auto' : 'off' },
    })),
    [
      {
        device: 'a',
        metric: 't',
        at: T,
        intervalMs: MINUTE_MS,
        sequence: 1,
        minimum: -1,
        maximum: 9,
        mean: 4,
        count: 60,
      },
    ],
  );
}

const RANGE = `from=${T}&to=${at(60)}`;

test('the history of a twin: points, summaries, and with `points` the level that fits', async () => {
  await someHistory();
  for (const _ of ['hot', 'compacted']) {
    const path = `/twins/${SITE}/a/history?metric=t&${RANGE}`;
    const whole = await get<Record<string, unknown>>(path);
    const points = Array.from({ length: 25 }, (_, i) => [at(2 * i + 1), 2 * i + 1]);
    const summaries = [[T, MINUTE_MS, -1, 9, 4, 60]];
    const named = { site: SITE, device: 'a', metric: 't' };
    assert.deepEqual(whole, { ...named, points, summaries, shades: [], truncated: false });
    const newest = await get<{ points: unknown[]; truncated: boolean }>(`${path}&limit=3`);
    assert.deepEqual(newest.points, points.slice(-3));
    assert.equal(newest.truncated, true);

    const beside = { shades: [], summaries };
    assert.deepEqual(await get(`${path}&points=85`), {
      ...{ ...named, ...beside, level: 'raw', bucketMs: null, points, truncated: false },
    });
    // Of whole minutes: the one that was thinned is in its bucket.
    assert.deepEqual(
      await get(`/twins/${SITE}/a/history?metric=t&from=${T}&to=${T + 30 * MINUTE_MS}&points=31`),
      {
        ...{ ...named, level: 'minute', bucketMs: MINUTE_MS, shades: [], summaries: [] },
        buckets: [[T, 85, -1, 49, (625 + 240) / 85, 1, 49]],
      },
    );
    const truths = await get<{ points: unknown[] }>(`/twins/${SITE}/a/history?metric=on&${RANGE}&limit=2`);
    assert.deepEqual(truths.points, [
      [at(47), false],
      [at(49), true],
    ]);
    await scene.compact();
  }
});

test('several series, each by itself; one that nobody knows is empty', async () => {
  await someHistory();
  const ask = `site=${SITE}&device=a&device=b&device=nobody&metric=t&metric=mode&metric=t&${RANGE}`;
  for (const _ of ['hot', 'compacted']) {
    const { series, ...answer } = await get<{ series: { device: string; metric: string; level: string }[] }>(
      `/history?${ask}&points=26`,
    );
    assert.deepEqual(answer, { site: SITE, from: T, to: at(60) });
    assert.deepEqual(
      series.map(({ device, metric, level }) => [device, metric, level]),
      [
        // With what was thinned there are more than fit.
        ['a', 't', 'second'],
        ['a', 'mode', 'raw'],
        ['b', 't', 'raw'],
        ['b', 'mode', 'raw'],
        ['nobody', 't', 'raw'],
        ['nobody', 'mode', 'raw'],
      ],
    );
    const empty = { level: 'raw', bucketMs: null, points: [], summaries: [], truncated: false };
    assert.deepEqual(series.at(-1), { device: 'nobody', metric: 'mode', ...empty });
    // Texts have no buckets.
    const few = await get<{ series: { points: unknown[]; truncated: boolean }[] }>(
      `/history?site=${SITE}&device=a&metric=mode&${RANGE}&points=3`,
    );
    assert.deepEqual(
      few.series[0]!.points,
      [45, 47, 49].map(i => [at(i), 'off']),
    );
    assert.equal(few.series[0]!.truncated, true);
    await scene.compact();
  }
});

test('raw readings page by page', async () => {
  await someHistory();
  await scene.compact();
  type Page = { rows: { at: number; value: unknown; kind: string; sequence: number }[]; next: string | null };
  const rows: Page['rows'] = [];
  let pages = 0;
  for (let after: string | null = ''; after !== null; pages++) {
    const page: Page = await get<Page>(
      `/history/raw?site=${SITE}&device=a&metric=t&${RANGE}&limit=10${after && `&after=${after}`}`,
    );
    rows.push(...page.rows);
    after = page.next;
  }
  assert.equal(pages, 3);
  assert.deepEqual(
    rows.map(row => row.at),
    Array.from({ length: 25 }, (_, i) => at(2 * i + 1)),
  );
  assert.deepEqual([rows[0]!.kind, rows[1]!.kind, rows[0]!.value], ['event', 'telemetry', 1]);
  assert.deepEqual(await get(`/history/raw?site=${SITE}&device=nobody&metric=t`), { rows: [], next: null });
});

test('what is asked in a wrong way is told so', async () => {
  await someHistory();
  const series = `/history?site=${SITE}`;
  await refused('/history?device=a&metric=t', 400, /site/);
  await refused(`${series}&metric=t`, 400, /device: name at least one/);
  await refused(`${series}&device=a`, 400, /metric: name at least one/);
  await refused(`${series}&device=a&metric=t&points=0`, 400, /points/);
  await refused(`${series}&device=a&metric=t&points=10001`, 400, /points/);
  await refused(`${series}&device=a&metric=t&from=5&to=4`, 400, /from lies after to/);
  await refused(`${series}&device=a&metric=t&from=soon`, 400, /from/);
  await refused(`${series}&device=a%2Fb&metric=t`, 400, /not a device name/);
  const many = Array.from({ length: 51 }, (_, i) => `device=d${i}`).join('&');
  await refused(`${series}&${many}&metric=t`, 400, /51 series .* at most 50/);
  await refused(`/history/raw?site=${SITE}&device=a&metric=t&after=there`, 400, /after/);
  await refused(`/history/raw?site=${SITE}&device=a&metric=t&limit=50001`, 400, /limit/);
  await refused(`/history/export?site=${SITE}&format=xls`, 400, /format/);
  await refused(`/history/export?site=${SITE}&from=5&to=4`, 400, /from lies after to/);
  await refused('/history/export', 400, /site/);
  await refused('/history/export?site=nowhere', 404, /nothing of nowhere/);
  await refused(`/history/export?site=${SITE}&device=nobody`, 404, /nothing of demo\/nobody/);
  await refused(`/twins/${SITE}/a/history?metric=t&points=x`, 400, /points/);
  // The far ends of what a time may be.
  for (const path of [`/twins/${SITE}/a/history?metric=t`, `${series}&device=a&metric=t&points=2`]) {
    await get(`${path}&from=-2208988800000&to=8640000000000000`);
    await get(`${path}&from=8639999999999999&to=8640000000000000`);
  }
  assert.deepEqual(errors, []);
});

/** A device with ten readings a second, so that what is exported is more than sockets hold. */
async function muchHistory(count: number): Promise<void> {
  await someHistory();
  await pool.query(
    `insert into holdfast.message (at, sequence, log, device, shape, element, kind, numbers)
     select $1::timestamptz + i * interval '0.1 s', i, 1, $2,
            (select shape from holdfast.shape_metric where name = 'on' order by shape limit 1), 0, 0,
            array[i / 100.0, 1]
       from generate_series(1, $3::int) i`,
    [new Date(DAY - DAY_MS / 2).toISOString(), await scene.device('c'), count],
  );
  await scene.compact();
}

test('an export is read no faster than the client takes it, and not at all when it has gone', async () => {
  await pool.query(`select holdfast.ensure_day('2026-01-09')`);
  await muchHistory(250_000);
  const asked = `/history/export?site=${SITE}&device=c&metric=t`;
  pieces = 0;
  const response = await fetch(base + asked);
  assert.equal(response.headers.get('content-type'), 'text/csv; charset=utf-8');
  const lines = (await response.text()).split('\n');
  assert.equal(lines.length, 250_000 + 2);
  const all = pieces;
  assert.ok(all >= 4, `${all} pieces`);

  pieces = 0;
  const socket = connect(listening.port, '127.0.0.1');
  await once(socket, 'connect');
  socket.write(`GET ${asked} HTTP/1.1\r\nhost: x\r\n\r\n`);
  await once(socket, 'readable');
  socket.pause();
  // Until nothing more is asked of PostgreSQL.
  let before = -1;
  await eventually('it waits for the client', async () => {
    const stands = pieces === before;
    before = pieces;
    if (!stands) await new Promise(resolve => setTimeout(resolve, 300));
    return stands;
  });
  assert.ok(pieces < all, `${pieces} of ${all} pieces were read for a client that takes nothing`);
  const read = pieces;
  socket.destroy();
  // Its place is free again: so many at a time may run.
  await eventually('four others are served', async () => {
    const answers = await Promise.all(
      Array.from({ length: 4 }, () => fetch(`${base}/history/export?site=${SITE}&device=nobody`)),
    );
    await Promise.all(answers.map(answer => answer.body?.cancel()));
    return answers.every(({ status }) => status === 404);
  });
  assert.equal(pieces, read, 'nothing was read after it had gone');
});

test('an export that cannot go on is cut, and does not look whole', async () => {
  errors.length = 0;
  pieces = 0;
  failAfter = 3;
  await assert.rejects(async () => {
    const response = await fetch(`${base}/history/export?site=${SITE}&device=c&metric=t&format=ndjson`);
    assert.equal(response.status, 200);
    await response.text();
  }, /terminated|fetch failed/);
  assert.deepEqual(errors, ['/history/export: cut']);
  errors.length = 0;
  failAfter = 0;
  await refused(`/history/export?site=${SITE}&device=c&metric=t`, 503, /not there now/);
  failAfter = Number.POSITIVE_INFINITY;
});

test('more readings of one moment than fit into memory are refused', async () => {
  await scene.empty();
  await scene.store([{ device: 'a', log: 'one', at: T, metrics: { t: 1 } }]);
  await pool.query(
    `insert into holdfast.message
     select at, sequence + i, log, device, shape, element, kind, numbers, texts, claimed_at
       from holdfast.message, generate_series(1, 270000) i`,
  );
  await refused(`/history/export?site=${SITE}`, 400, /too many readings of 2026-01-10T05:00/);
  await scene.empty();
});
