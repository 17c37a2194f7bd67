/** The history writer against a real PostgreSQL: rows, ledger, marks, cursors, twins, incidents. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { before, test } from 'node:test';
import type { Pool } from 'pg';
import { restoreTwin } from '../../cloud/twin-json.ts';
import type { Server } from '../../deploy/local/servers.ts';
import type { LostBatch } from '../../protocol/batch.ts';
import { logId } from '../../protocol/ids.ts';
import { LOG_ID } from '../edge-gateway/frames.ts';
import {
  batchOf,
  counted,
  DAY_MS,
  item,
  ledger,
  marks,
  NOW,
  openWriter,
  range,
  readings,
  type Sent,
  SITE,
} from './history.ts';
import { freshDatabase, startTestPostgres } from './servers.ts';
import { foldBatch, tooHot } from './twins.ts';

let server: Server;
before(async () => {
  server = await startTestPostgres();
});

const numbers = async (pool: Pool) => (await readings(pool)).map(({ sequence }) => sequence);

test('numbers, booleans, strings, mixed types and elements come back as they were sent', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const messages: Sent[] = [
    ['devices/a/telemetry', { zebra: 1.5, apple: -2, on: true, off: false, name: 'x', mode: 'y' }],
    // The same metrics in another order are the same shape.
    ['devices/b/telemetry', { mode: 'm', apple: 10, off: true, zebra: 20, name: 'n', on: false }],
    ['devices/a/telemetry', { zebra: 'now text' }],
    ['devices/a/events', [{ door: 'open' }, {}, { door: 'shut' }]],
    ['devices/a/location', { ts: NOW - 5000.25, lat: 48.1, lon: 11.5 }],
    ['sensors/temperature/s1', '21.5'],
    ['devices/a/telemetry', {}],
  ];
  await writer.write(item(batchOf(100, messages)));
  const found = (await readings(pool)).map(
    ({ device, metric, value, text, truth, kind, sequence, element }) => [
      `${sequence}.${element} ${kind} ${device} ${metric}`,
      text ?? truth ?? value,
    ],
  );
  assert.deepEqual(found, [
    ['100.0 telemetry a apple', -2],
    ['100.0 telemetry a mode', 'y'],
    ['100.0 telemetry a name', 'x'],
    ['100.0 telemetry a off', false],
    ['100.0 telemetry a on', true],
    ['100.0 telemetry a zebra', 1.5],
    ['101.0 telemetry b apple', 10],
    ['101.0 telemetry b mode', 'm'],
    ['101.0 telemetry b name', 'n'],
    ['101.0 telemetry b off', true],
    ['101.0 telemetry b on', false],
    ['101.0 telemetry b zebra', 20],
    ['102.0 telemetry a zebra', 'now text'],
    ['103.0 event a event.door', 'open'],
    ['103.2 event a event.door', 'shut'],
    ['104.0 location a location.lat', 48.1],
    ['104.0 location a location.lon', 11.5],
    ['105.0 telemetry s1 temperature', 21.5],
  ]);
  const times = (await readings(pool)).filter(({ kind }) => kind === 'location').map(({ time }) => time);
  assert.deepEqual(times, [NOW - 5000.25, NOW - 5000.25]);
  assert.equal(await ledger(pool), '{[100,107)}');
  assert.equal(writer.told().toString(), '{[100,107)}');
});

test('the order in which a device lists its metrics never swaps their values (B)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  // Apart, so that the second meets what the first left in the cache.
  await writer.write(item(batchOf(1, [['devices/a/telemetry', { temperature: 21, humidity: 60 }]])));
  await writer.write(item(batchOf(2, [['devices/b/telemetry', { humidity: 61, temperature: 22 }]])));
  const found = (await readings(pool)).map(({ device, metric, value }) => `${device} ${metric} ${value}`);
  assert.deepEqual(found, ['a humidity 60', 'a temperature 21', 'b humidity 61', 'b temperature 22']);
});

test('the same batch again, overlapping, inside out: every sequence once (B)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  await writer.write(item(counted(1, 10)), item(counted(1, 10)));
  await writer.write(item(counted(1, 10)));
  await writer.write(item(counted(6, 10)), item(counted(20, 5)), item(counted(12, 20)));
  await writer.write(item(counted(1, 40)));
  const stored = await readings(pool);
  assert.deepEqual(
    stored.map(({ sequence }) => sequence),
    range(1, 41),
  );
  for (const { sequence, value } of stored) assert.equal(value, sequence);
  assert.equal(await ledger(pool), '{[1,41)}');
  assert.equal(writer.told().toString(), '{[1,41)}');
});

test('another writer of the same epoch settled part of it first: the ledger is read again (B)', async () => {
  const pool = await freshDatabase(server);
  const one = await openWriter(pool);
  const two = await openWriter(pool, { epoch: one.epoch });
  // Both have the log in their cache before either settles more.
  await one.write(item(counted(1, 5)));
  await two.write(item(counted(6, 5)));
  await Promise.all([one.write(item(counted(11, 10))), two.write(item(counted(13, 10)))]);
  await one.write(item(counted(1, 30)));
  assert.deepEqual(await numbers(pool), range(1, 31));
  assert.equal(await ledger(pool), '{[1,31)}');
});

test('other logs and gateways have their own sequences', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const otherLog = logId('f'.repeat(32));
  await writer.write(
    item(counted(1, 3)),
    item(batchOf(1, [['devices/pump/telemetry', { n: 1 }]], otherLog)),
    item(counted(1, 3), { gateway: 'edge-2' as never }),
  );
  assert.deepEqual(await numbers(pool), [1, 2, 3, 1, 1, 2, 3]);
  assert.equal(writer.notices.length, 3);
});

test('an old epoch writes nothing at all, and is told so (D)', async () => {
  const pool = await freshDatabase(server);
  const old = await openWriter(pool);
  const young = await openWriter(pool);
  const batch = batchOf(1, [
    ['devices/hot/telemetry', { temperature: 40 }],
    ['bad/topic', '1'],
  ]);
  const { changes, transitions } = foldBatch(SITE, new Map(), batch, [tooHot]);
  await old.write(item(batch, { twins: [...changes.values()].map(({ after }) => after), transitions }));
  assert.equal(old.stale(), true);
  assert.equal(young.stale(), false);
  for (const table of ['message', 'quarantine', 'ledger_mark', 'stream_cursor', 'twin', 'incident']) {
    const { rows } = await pool.query(`select count(*)::int as count from holdfast.${table}`);
    assert.equal(rows[0].count, 0, table);
  }
  assert.equal(await ledger(pool), '{}');
  assert.deepEqual(old.notices, []);
  await young.write(item(batch));
  assert.deepEqual(await numbers(pool), [1]);
});

test('messages set aside, lost, expired: settled, marked with the reason, kept where there is something to keep (H, I)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const lost: LostBatch = {
    settlement: 'lost',
    logId: LOG_ID,
    firstSequence: 50,
    count: 7,
    reason: 'disk damaged',
  };
  await writer.write(
    item(
      batchOf(1, [
        ['devices/a/telemetry', { x: 1 }],
        ['fits/nothing', 'raw \0 bytes'],
        ['devices/a/telemetry', '{"x":1e400}'],
        [
          'devices/a/telemetry',
          [{ ts: NOW - 100 * DAY_MS, x: 2 }, { ts: NOW - 100 * DAY_MS, x: 3 }, { x: 4 }],
        ],
      ]),
    ),
    item(lost),
  );
  assert.deepEqual(
    (await readings(pool)).map(({ sequence, element, value }) => [sequence, element, value]),
    [
      [1, 0, 1],
      [4, 2, 4],
    ],
  );
  assert.deepEqual(await marks(pool), [
    {
      range: '[2,3)',
      status: 'quarantined',
      messages: 1,
      reason:
        'topic fits no shape: expected devices/{id}/telemetry|events|status|location, assets/{id}/telemetry, sensors/{type}/{id}',
    },
    {
      range: '[3,4)',
      status: 'quarantined',
      messages: 1,
      reason: '"x" is a number beyond what 64-bit floats hold',
    },
    { range: '[4,5)', status: 'expired', messages: 1, reason: 'older than the retention time' },
    { range: '[50,57)', status: 'lost', messages: 7, reason: 'disk damaged' },
  ]);
  const { rows } = await pool.query(
    `select sequence::int, topic, payload, payload_bytes from holdfast.quarantine order by sequence`,
  );
  assert.deepEqual(rows, [
    { sequence: 2, topic: 'fits/nothing', payload: Buffer.from('raw \0 bytes'), payload_bytes: 11 },
    { sequence: 3, topic: 'devices/a/telemetry', payload: Buffer.from('{"x":1e400}'), payload_bytes: 11 },
  ]);
  assert.equal(await ledger(pool), '{[1,5),[50,57)}');
  assert.equal(writer.told().toString(), '{[1,5),[50,57)}');
  assert.equal(writer.expired(), 2);
  // All of it again, as after a lost stream: nothing is there twice.
  await writer.write(item(lost));
  assert.equal((await marks(pool)).length, 4);
});

test('a batch that could not be decoded is settled as quarantined, with its bytes (H)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const undecodable: LostBatch = {
    settlement: 'lost',
    logId: LOG_ID,
    firstSequence: 5,
    count: 10,
    reason: 'x',
  };
  const bytes = Buffer.from([1, 2, 3, 0]);
  await writer.write(item(counted(8, 2)), item(undecodable, { poison: { reason: 'not a batch \0', bytes } }));
  assert.deepEqual(await marks(pool), [
    { range: '[5,8)', status: 'quarantined', messages: 3, reason: 'not a batch ␀' },
    { range: '[10,15)', status: 'quarantined', messages: 5, reason: 'not a batch ␀' },
  ]);
  const { rows } = await pool.query('select payload from holdfast.quarantine');
  assert.deepEqual(rows, [{ payload: bytes }]);
  assert.equal(await ledger(pool), '{[5,15)}');
});

test('cursors go with the rows, forward only, and start anew with another stream', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const cursors = async () =>
    (
      await pool.query(
        'select lane, stream_created, stream_sequence::int from holdfast.stream_cursor where partition = 0 order by lane',
      )
    ).rows.map(({ lane, stream_created, stream_sequence }) => `${lane} ${stream_created} ${stream_sequence}`);
  const at = (lane: 'live' | 'backfill', created: string, sequence: number) => ({
    lane,
    stream: { created, sequence },
  });
  await writer.write(item(counted(1, 1), at('live', 's1', 10)), item(null, at('backfill', 's1', 11)));
  assert.deepEqual(await cursors(), ['backfill s1 11', 'live s1 10']);
  await writer.write(item(counted(2, 1), at('live', 's1', 9)));
  assert.deepEqual(await cursors(), ['backfill s1 11', 'live s1 10']);
  await writer.write(item(counted(1, 1), at('live', 's1', 12)));
  assert.deepEqual(
    await cursors(),
    ['backfill s1 11', 'live s1 12'],
    'moves although the batch brings nothing new',
  );
  await writer.write(item(counted(3, 1), at('live', 's2', 1)));
  assert.deepEqual(await cursors(), ['backfill s1 11', 'live s2 1']);
});

test('twins and incidents are those of the last settled message; an incident is there once (C)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const first = batchOf(1, [
    ['devices/a/telemetry', { temperature: 20 }],
    ['devices/a/telemetry', { temperature: 36 }],
  ]);
  const opened = foldBatch(SITE, new Map(), first, [tooHot]);
  const twin = opened.changes.get('a')!.after;
  const opening = item(first, { twins: [twin], transitions: opened.transitions });
  await writer.write(opening);
  const second = batchOf(3, [['devices/a/telemetry', { ts: NOW, temperature: 25 }]]);
  const cleared = foldBatch(SITE, new Map([['a', twin]]), second, [tooHot]);
  const clearing = item(second, {
    twins: [cleared.changes.get('a')!.after],
    transitions: cleared.transitions,
  });
  await writer.write(clearing);
  // A replay brings the opening again, and an older state of the twin.
  await writer.write(opening, clearing, opening);

  const { rows } = await pool.query('select state, version::int from holdfast.twin');
  assert.equal(rows.length, 1);
  assert.equal(restoreTwin(SITE, 'a', rows[0].state)?.metrics.get('temperature')?.value, 25);
  assert.equal(rows[0].version, 3);
  const incidents = await pool.query(
    `select id, opened_value, cleared_value, extract(epoch from opened_at)::float8 * 1000 as opened,
            extract(epoch from cleared_at)::float8 * 1000 as cleared from holdfast.incident`,
  );
  assert.deepEqual(incidents.rows, [
    {
      id: `too-hot:demo/a:${LOG_ID}:2.0`,
      opened_value: 36,
      cleared_value: 25,
      opened: NOW - 999,
      cleared: NOW,
    },
  ]);
});

test('a thousand shapes, and one with as many and as long names as a message may have', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  await writer.write(
    item(
      batchOf(
        1,
        range(0, 1000).map(
          index => [`devices/a/telemetry`, { [`m${index}`]: index, common: -index }] as const,
        ),
      ),
    ),
  );
  const wide = Object.fromEntries(
    range(0, 256).map(index => [createHash('sha512').update(`${index}`).digest('base64url'), index]),
  );
  await writer.write(item(batchOf(2000, [['devices/a/telemetry', wide]])));
  const { rows } = await pool.query(
    `select count(*)::int as count, count(distinct metric)::int as metrics from holdfast.reading where metric <> 'common'`,
  );
  assert.deepEqual(rows, [{ count: 1256, metrics: 1256 }]);
  const stored = await pool.query(`select metric, value from holdfast.reading where metric ~ '^m[0-9]+$'`);
  for (const { metric, value } of stored.rows) assert.equal(metric, `m${value}`);
});

test('days are made as their data comes, over eighty days, whatever the time zone of the session', async () => {
  const pool = await freshDatabase(server, { sessionTimeZone: 'Etc/GMT+11' });
  const writer = await openWriter(pool);
  const times = range(0, 80).flatMap(day => {
    const midnight = Date.UTC(2026, 0, 15) - day * DAY_MS;
    return [midnight, midnight - 1, midnight - 0.5];
  });
  await writer.write(
    item(
      batchOf(
        1,
        times.map((ts, index) => ['devices/a/telemetry', { ts, n: index }] as const),
      ),
    ),
  );
  const stored = await readings(pool);
  assert.deepEqual(
    stored.map(({ time }) => time),
    times,
  );
  const { rows } = await pool.query(
    `select count(*)::int as days from holdfast.day_tables() where parent = 'message'`,
  );
  assert.equal(rows[0].days, 81);
});

test('a time ahead of the clock is ordered by arrival, the original kept; one at any distance does no harm (H)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const batch = batchOf(1, [
    ['devices/a/telemetry', { ts: NOW + DAY_MS, n: 1 }],
    ['devices/a/telemetry', { ts: NOW + 60_000, n: 2 }],
    ['devices/a/telemetry', { n: 3 }],
    ['devices/a/telemetry', { n: 4 }],
    ['devices/a/telemetry', { n: 5 }],
  ]);
  // Beyond what a gateway lets through, and still a well-formed batch.
  batch.rows.at.set([1e300, -1e300], 2);
  await writer.write(item(batch));
  const { rows } = await pool.query(
    `select sequence::int, extract(epoch from at)::float8 * 1000 as at,
            extract(epoch from claimed_at)::float8 * 1000 as claimed from holdfast.message order by sequence`,
  );
  assert.deepEqual(rows.slice(0, 2), [
    { sequence: 1, at: NOW - 1000, claimed: NOW + DAY_MS },
    { sequence: 2, at: NOW + 60_000, claimed: null },
  ]);
  assert.deepEqual(
    rows.map(({ sequence }) => sequence),
    [1, 2, 3, 5],
  );
  assert.equal(await ledger(pool), '{[1,6)}');
});
