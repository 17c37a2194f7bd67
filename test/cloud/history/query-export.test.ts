/**
 * Exports with a real PostgreSQL: both formats, parsed back, are the view `holdfast.reading` in the order of
 * device, metric and time.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { exportReadings } from '../../../cloud/history/query/export.ts';
import { type Range, rangeOf, timestampOf } from '../../../cloud/history/query/micros.ts';
import { anyWaves, DAY, DAY_MS, HOUR_MS, openQueryScene, SITE } from './query-scene.ts';

const scene = await openQueryScene();
const { pool } = scene;
const ALL = rangeOf(Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY);

interface Line {
  site: string;
  device: string;
  metric: string;
  time: string;
  value: number | null;
  text: string | null;
  truth: boolean | null;
  kind: string;
}

async function exported(
  format: 'csv' | 'ndjson',
  range: Range,
  { device = null, metric = null }: { device?: string | null; metric?: string | null } = {},
): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of exportReadings(pool, { site: SITE, device, metric, range, format }))
    parts.push(part);
  return Buffer.concat(parts).toString('utf8');
}

/** RFC 4180; a field that is quoted is never absent. */
function parseCsv(text: string): (string | null)[][] {
  const rows: (string | null)[][] = [];
  let row: (string | null)[] = [];
  const field = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\n)/y;
  while (field.lastIndex < text.length) {
    const found = field.exec(text);
    assert.ok(found, `no field at ${field.lastIndex}`);
    const [, quoted, plain = '', end] = found;
    row.push(quoted === undefined ? plain || null : quoted.replaceAll('""', '"'));
    if (end === '\n') {
      rows.push(row);
      row = [];
    }
  }
  return rows;
}

function linesOfCsv(text: string): Line[] {
  const [header, ...rows] = parseCsv(text);
  assert.deepEqual(header, ['site', 'device', 'metric', 'time', 'value', 'text', 'truth', 'kind']);
  return rows.map(([site, device, metric, time, value, word, truth, kind]) => ({
    ...{ site: site!, device: device!, metric: metric!, time: time! },
    value: value === null || value === undefined ? null : Number(value),
    text: word ?? null,
    truth: truth === null ? null : truth === 'true',
    kind: kind!,
  }));
}

const linesOfJson = (text: string): Line[] =>
  text
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line));

async function readings(range: Range): Promise<Line[]> {
  const { rows } = await pool.query<Line & { us: string }>(
    `select site, device, metric, to_char(time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as time,
            value, text, truth, kind
       from holdfast.reading where time >= $1 and time < $2
      order by device collate "C", metric collate "C", reading.time, log, sequence, element`,
    [timestampOf(range.from), timestampOf(range.to)],
  );
  return rows.map(row => ({ ...row, time: row.time.replace('000Z', 'Z') }));
}

test('both formats have every reading once, in their order, before and after compaction', async () => {
  const part = rangeOf(DAY + 10, DAY + DAY_MS + 5 * HOUR_MS);
  await fc.assert(
    fc
      .asyncProperty(anyWaves, async waves => {
        for (const [messages] of waves) {
          await scene.store(messages);
          for (const range of [ALL, part]) {
            const expected = await readings(range);
            assert.deepEqual(linesOfCsv(await exported('csv', range)), expected);
            assert.deepEqual(linesOfJson(await exported('ndjson', range)), expected);
          }
          await scene.compact();
        }
        const expected = await readings(ALL);
        assert.deepEqual(linesOfCsv(await exported('csv', ALL)), expected);
        const some = { device: 'a', metric: 't' };
        assert.deepEqual(
          linesOfJson(await exported('ndjson', ALL, some)),
          expected.filter(({ device, metric }) => device === 'a' && metric === 't'),
        );
      })
      .beforeEach(scene.empty),
    { numRuns: 15 },
  );
});

test('names and texts that CSV and JSON write otherwise, and lines longer than a buffer', async () => {
  await scene.empty();
  const long = '😀'.repeat(200_000);
  await scene.store([
    { device: 'a', log: 'one', at: DAY, metrics: { 'a,"b"\n': 1.5, 'a\\': 'x\\y' } },
    { device: 'a', log: 'one', at: DAY + 1, metrics: { long } },
    { device: 'a', log: 'one', at: DAY + 2, metrics: { long: '' } },
  ]);
  for (const _ of ['hot', 'compacted']) {
    const expected = await readings(ALL);
    assert.equal(expected.length, 4);
    assert.deepEqual(linesOfCsv(await exported('csv', ALL)), expected);
    assert.deepEqual(linesOfJson(await exported('ndjson', ALL)), expected);
    await scene.compact();
  }
});

test('where there is nothing, CSV has its first line and JSON none', async () => {
  await scene.empty();
  assert.equal(await exported('csv', ALL), 'site,device,metric,time,value,text,truth,kind\n');
  assert.equal(await exported('ndjson', ALL), '');
});
