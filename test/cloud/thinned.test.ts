/** Thinned batches and the ledger's counts against a real PostgreSQL: what is settled, once, and under which name. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import fc from 'fast-check';
import type { Pool } from 'pg';
import { openDictionary } from '../../cloud/history/dictionary.ts';
import { buildTransaction } from '../../cloud/history/transaction.ts';
import { rowsOf } from '../../cloud/history/writer.ts';
import type { Server } from '../../deploy/local/servers.ts';
import type { Batch, LostBatch, ThinnedBatch } from '../../protocol/batch.ts';
import { type LogId, logId } from '../../protocol/ids.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import { LOG_ID } from '../edge-gateway/frames.ts';
import {
  batchOf,
  counted,
  counts,
  DAY_MS,
  GATEWAY,
  item,
  ledger,
  MINUTE_MS,
  marks,
  minutes,
  NOW,
  openWriter,
  range,
  readings,
  type Sent,
  SITE,
  thinnedOf,
  thinnedReadings,
} from './history.ts';
import { freshDatabase, startTestPostgres } from './servers.ts';

let server: Server;
before(async () => {
  server = await startTestPostgres();
});

const numbers = async (pool: Pool) => (await readings(pool)).map(({ sequence }) => sequence);
const door = (state: string): Sent => ['devices/pump/events', { door: state }];
const lostOf = (firstSequence: number, count: number, log: LogId = LOG_ID): LostBatch => ({
  settlement: 'lost',
  logId: log,
  firstSequence,
  count,
  reason: 'disk damaged',
});

test('a thinned run: kept rows, summaries, one mark, counts and minutes; the same again is nothing (B)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const batch = thinnedOf(1, 100, {
    kept: new Map<number, Sent>([
      [40, door('open')],
      [100, ['devices/pump/telemetry', { n: 100 }]],
    ]),
    summaries: [
      { from: NOW - 2 * MINUTE_MS, minimum: 1, maximum: 40, mean: 20.5, count: 39 },
      { from: NOW - MINUTE_MS, minimum: 41, maximum: 99, mean: 70, count: 59 },
      { device: 'fan', metric: 'on', minimum: 0, maximum: 1, mean: 0.25, count: 4 },
    ],
  });
  const check = async () => {
    assert.deepEqual(
      (await readings(pool)).map(({ sequence, metric, value, text }) => [sequence, metric, text ?? value]),
      [
        [40, 'event.door', 'open'],
        [100, 'n', 100],
      ],
    );
    const row = { device: 'pump', metric: 'n', seconds: 60 };
    assert.deepEqual(await thinnedReadings(pool), [
      {
        device: 'fan',
        metric: 'on',
        time: NOW - MINUTE_MS,
        seconds: 60,
        minimum: 0,
        maximum: 1,
        mean: 0.25,
        count: 4,
      },
      { ...row, time: NOW - 2 * MINUTE_MS, minimum: 1, maximum: 40, mean: 20.5, count: 39 },
      { ...row, time: NOW - MINUTE_MS, minimum: 41, maximum: 99, mean: 70, count: 59 },
    ]);
    assert.deepEqual(await marks(pool), [
      { range: '[1,101)', status: 'thinned', messages: 98, reason: 'thinned to one summary per 60 s' },
    ]);
    assert.deepEqual(await counts(pool), { thinned: 98 });
    const found = await minutes(pool);
    assert.deepEqual(
      found.map(({ status, minute }) => `${status} ${minute}`),
      ['thinned -2', 'thinned -1'],
    );
    assert.equal(
      found.reduce((sum, { messages }) => sum + messages, 0),
      98,
    );
    assert.equal(await ledger(pool), '{[1,101)}');
    assert.equal(writer.told().toString(), '{[1,101)}');
  };
  await writer.write(item(batch));
  await check();
  await writer.write(item(batch), item(batch));
  await check();
  // Another owner, which knows nothing of it but what the ledger says.
  const next = await openWriter(pool);
  await next.write(item(batch));
  await check();
});

test('part of a run was settled raw: its summaries count nothing twice, its other messages are lost in the open (B)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  await writer.write(item(counted(31, 20)));
  const batch = thinnedOf(1, 100, {
    kept: new Map([
      [20, door('open')],
      [40, door('shut')],
      [100, door('open')],
    ]),
    summaries: [{ minimum: 1, maximum: 100, mean: 50, count: 97 }],
  });
  await writer.write(item(batch));
  assert.deepEqual(await thinnedReadings(pool), []);
  assert.deepEqual(await numbers(pool), [20, ...range(31, 51), 100]);
  const reason =
    'part of this thinned run was settled before: its summaries would count readings a second time';
  assert.deepEqual(await marks(pool), [
    { range: '[1,31)', status: 'lost', messages: 29, reason },
    { range: '[51,101)', status: 'lost', messages: 49, reason },
  ]);
  assert.deepEqual(await counts(pool), { lost: 78 });
  assert.equal(
    (await minutes(pool)).reduce((sum, { messages }) => sum + messages, 0),
    78,
    'a lost part of a run is known by time',
  );
  assert.equal(await ledger(pool), '{[1,101)}');
});

test('a raw and a thinned batch of the same sequences in one transaction: the first one counts', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool, { commitIntervalMs: 50 });
  const other = logId('e'.repeat(32));
  const summaries = [{ count: 10 }];
  await writer.write(
    item(counted(1, 5)),
    item(thinnedOf(1, 10, { summaries })),
    item(thinnedOf(1, 10, { summaries, logId: other })),
    item(
      batchOf(
        1,
        range(0, 20).map((n): Sent => ['devices/pump/telemetry', { n }]),
        other,
      ),
    ),
  );
  assert.deepEqual(await counts(pool), { lost: 5 });
  assert.deepEqual(await counts(pool, other), { thinned: 10 });
  assert.deepEqual(await numbers(pool), [...range(1, 6), ...range(11, 21)]);
  assert.equal((await thinnedReadings(pool)).length, 1);
});

test('an old epoch stores no summary either (D)', async () => {
  const pool = await freshDatabase(server);
  const old = await openWriter(pool);
  const young = await openWriter(pool);
  const batch = thinnedOf(1, 10, { summaries: [{ count: 10 }] });
  await old.write(item(batch));
  assert.equal(old.stale(), true);
  for (const table of ['summary', 'ledger_mark', 'ledger_minute']) {
    assert.equal((await pool.query(`select from holdfast.${table}`)).rowCount, 0, table);
  }
  await young.write(item(batch));
  assert.equal((await thinnedReadings(pool)).length, 1);
});

test('set aside within a thinned run: quarantined as in a raw batch, and not counted as thinned (H)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const batch = thinnedOf(5, 10, {
    kept: new Map<number, Sent>([
      [6, ['fits/nothing', 'bytes']],
      [7, door('open')],
    ]),
    summaries: [{ count: 8 }],
  });
  await writer.write(item(batch));
  assert.deepEqual(
    (await marks(pool)).map(({ range: of, status, messages }) => [of, status, messages]),
    [
      ['[5,15)', 'thinned', 8],
      ['[6,7)', 'quarantined', 1],
    ],
  );
  const { rows } = await pool.query('select sequence::int, topic from holdfast.quarantine');
  assert.deepEqual(rows, [{ sequence: 6, topic: 'fits/nothing' }]);
  assert.deepEqual(await counts(pool), { thinned: 8, quarantined: 1 });
});

test('summaries older than the retention time are not stored; a run of nothing else is expired', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const old = NOW - 100 * DAY_MS;
  const edge = NOW - 90 * DAY_MS;
  await writer.write(
    item(
      thinnedOf(1, 10, {
        summaries: [
          { from: old, count: 5 },
          { from: old + MINUTE_MS, count: 5 },
        ],
      }),
    ),
    item(
      thinnedOf(11, 10, {
        // Ends exactly when the retention time begins; begins then.
        summaries: [
          { from: edge - MINUTE_MS, count: 5 },
          { from: edge, count: 5 },
        ],
      }),
    ),
  );
  assert.deepEqual(
    (await thinnedReadings(pool)).map(({ time }) => time),
    [edge],
  );
  assert.deepEqual(await counts(pool), { expired: 10, thinned: 10 });
  assert.equal(writer.expired(), 3);
  assert.equal(await ledger(pool), '{[1,21)}');
});

test('runs that share an interval are one thinned reading, whatever their values; the future is not believed', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const huge = { minimum: -1.5e308, maximum: 1.7e308, mean: 1.5e308 };
  await writer.write(
    item(
      thinnedOf(1, 10, {
        summaries: [
          { minimum: 1, maximum: 3, mean: 2, count: 3 },
          { metric: 'huge', ...huge, count: 4_000_000_000 },
          { metric: 'ahead', from: NOW + DAY_MS, minimum: 1, maximum: 1, mean: 1, count: 1 },
          { metric: 'ahead', from: NOW + 2 * DAY_MS, minimum: 7, maximum: 7, mean: 7, count: 2 },
        ],
      }),
    ),
    item(
      thinnedOf(11, 10, {
        summaries: [
          { minimum: -5, maximum: 2, mean: 1, count: 1 },
          { metric: 'huge', ...huge, count: 4_000_000_000 },
        ],
      }),
    ),
  );
  const found = (await thinnedReadings(pool)).map(({ metric, time, minimum, maximum, mean }) => [
    metric,
    time,
    minimum,
    maximum,
    mean,
  ]);
  assert.deepEqual(found, [
    ['ahead', NOW, 1, 7, 5],
    ['huge', NOW - MINUTE_MS, -1.5e308, 1.7e308, 1.5e308],
    ['n', NOW - MINUTE_MS, -5, 3, 1.75],
  ]);
});

test('late: what comes by the backfill lane, per minute of arrival, messages without a reading too', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const batch = batchOf(1, [
    ['devices/a/telemetry', { x: 1 }],
    ['devices/a/telemetry', [{ x: 1 }, { x: 2 }]],
    ['devices/a/telemetry', {}],
    ['fits/nothing', '1'],
    ['devices/a/telemetry', [{ ts: NOW - 100 * DAY_MS, x: 1 }, { x: 2 }]],
    ['devices/a/telemetry', { x: 1 }],
  ]);
  const last = batch.rows.length - 1;
  batch.rows.receivedAt[last] = NOW - 10 * MINUTE_MS;
  await writer.write(item(batch, { lane: 'backfill' }), item(counted(100, 5)));
  assert.deepEqual(await counts(pool), { late: 4, quarantined: 1, expired: 1 });
  assert.deepEqual(await minutes(pool), [
    { status: 'expired', minute: -1, messages: 1 },
    { status: 'late', minute: -10, messages: 2 },
    { status: 'late', minute: -1, messages: 2 },
    { status: 'quarantined', minute: -1, messages: 1 },
  ]);
  // More of the same minute is added to it.
  await writer.write(item(counted(7, 3), { lane: 'backfill' }));
  assert.deepEqual(
    (await minutes(pool)).filter(({ status, minute }) => status === 'late' && minute === -1),
    [{ status: 'late', minute: -1, messages: 5 }],
  );
});

test('what comes live and whole adds nothing to the ledger by time', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  await writer.write(item(counted(1, 500)));
  assert.deepEqual(await counts(pool), {});
  assert.deepEqual(await minutes(pool), []);
  assert.deepEqual(await marks(pool), []);
});

test('PostgreSQL refuses a summary: the kept rows stay, the others are quarantined, neighbours go on (A, H)', async () => {
  const pool = await freshDatabase(server);
  await pool.query('alter table holdfast.summary add constraint no_13 check (minimum <> 13)');
  const writer = await openWriter(pool, { commitIntervalMs: 50 });
  await writer.write(
    item(counted(1, 10)),
    item(thinnedOf(11, 20, { kept: new Map([[15, door('open')]]), summaries: [{ minimum: 13, count: 19 }] })),
    item(thinnedOf(31, 20, { kept: new Map([[35, door('shut')]]), summaries: [{ minimum: 1, count: 19 }] })),
    item(counted(51, 10)),
  );
  assert.deepEqual(await numbers(pool), [...range(1, 11), 15, 35, ...range(51, 61)]);
  assert.equal((await thinnedReadings(pool)).length, 1);
  assert.deepEqual(await counts(pool), { quarantined: 19, thinned: 19 });
  const [refused] = await marks(pool);
  assert.deepEqual([refused!.range, refused!.status, refused!.messages], ['[11,31)', 'quarantined', 19]);
  assert.match(refused!.reason, /^refused by PostgreSQL: .*no_13/);
  const { rows } = await pool.query('select sequence::int, reason from holdfast.quarantine');
  assert.equal(rows.length, 1);
  assert.match(rows[0].reason, /no_13/);
  assert.equal(await ledger(pool), '{[1,61)}');
  assert.equal(writer.told().toString(), '{[1,61)}');
});

test('PostgreSQL refuses a kept row: the other kept rows stay (A, H)', async () => {
  const pool = await freshDatabase(server);
  await pool.query(`alter table holdfast.message add constraint no_fire check (texts[1] <> 'fire')`);
  const writer = await openWriter(pool);
  const kept = new Map([
    [3, door('open')],
    [500_000, door('fire')],
    [900_000, door('shut')],
  ]);
  await writer.write(
    item(thinnedOf(1, 1_000_000, { kept, summaries: [{ count: 5 }] })),
    item(counted(2e6, 1)),
  );
  assert.deepEqual(
    (await readings(pool)).map(({ sequence }) => sequence),
    [3, 900_000, 2e6],
  );
  assert.deepEqual(await counts(pool), { quarantined: 999_998 });
  assert.equal(await ledger(pool), '{[1,1000001),[2000000,2000001)}');
});

test('PostgreSQL is killed in the middle of thinned commits: every reading counted once (A, B, R)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const batches = range(0, 30).map(index =>
    thinnedOf(1 + index * 10, 10, {
      kept: new Map([[5 + index * 10, door('open')]]),
      summaries: [{ count: 9 }],
    }),
  );
  for (let kill = 0; kill < 2; kill++) {
    for (const batch of batches.slice(kill * 15, kill * 15 + 15)) writer.enqueue(item(batch));
    await server.kill();
    await server.start();
  }
  await writer.write(...batches.map(batch => item(batch)));
  assert.equal((await thinnedReadings(pool))[0]!.count, 270);
  assert.equal((await numbers(pool)).length, 30);
  assert.deepEqual(await counts(pool), { thinned: 270 });
  assert.equal(await ledger(pool), '{[1,301)}');
});

test('whatever overlaps, comes twice or is refused: each message has one fate, each reading is counted once (B)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  await pool.query('alter table holdfast.message add constraint no_13 check (numbers[1] <> 13)');
  const END = 60;
  const part = fc
    .record({
      what: fc.constantFrom<Batch['settlement']>('raw', 'thinned', 'lost'),
      lane: fc.constantFrom('live' as const, 'backfill' as const),
      from: fc.integer({ min: 1, max: END - 1 }),
      length: fc.integer({ min: 1, max: 30 }),
      keep: fc.array(fc.nat(29), { maxLength: 4 }),
      together: fc.boolean(),
    })
    .map(one => ({ ...one, count: Math.min(one.length, END - one.from) }));
  let run = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(part, { minLength: 1, maxLength: 8 }), async parts => {
      const log = logId((++run).toString(16).padStart(32, '0'));
      const telemetry = (sequence: number): Sent => [`devices/d${run}/telemetry`, { n: sequence }];
      const batchFor = ({ what, from, count, keep }: (typeof parts)[number]): Batch => {
        if (what === 'lost') return lostOf(from, count, log);
        if (what === 'raw') return batchOf(from, range(from, from + count).map(telemetry), log);
        const kept = new Map(
          [...new Set(keep.map(index => from + (index % count)))]
            .sort((a, b) => a - b)
            .map(sequence => [sequence, telemetry(sequence)] as const),
        );
        const summaries = kept.size < count ? [{ device: `d${run}`, count: count - kept.size }] : [];
        return thinnedOf(from, count, { kept, summaries, logId: log });
      };
      let together: ReturnType<typeof item>[] = [];
      for (const one of parts) {
        together.push(item(batchFor(one), { lane: one.lane }));
        if (one.together) continue;
        await writer.write(...together);
        together = [];
      }
      await writer.write(...together);

      const { rows } = await pool.query(
        `select l.*, l.late::int, l.thinned::int, l.lost::int, l.quarantined::int,
                (select coalesce(sum(upper(r) - lower(r)), 0)::int from unnest(l.settled) r) as size,
                (select count(*)::int from holdfast.message m where m.log = l.id) as stored,
                (select count(distinct sequence)::int from holdfast.message m where m.log = l.id) as sequences,
                (select coalesce(sum(s.count), 0)::int from holdfast.summary s where s.log = l.id) as summarised,
                (select coalesce(sum(k.messages), 0)::int from holdfast.ledger_mark k where k.log = l.id) as marked
           from holdfast.gateway_log l where log_id = $1`,
        [log],
      );
      const found = rows[0];
      const covered = new Set(parts.flatMap(({ from, count }) => range(from, from + count)));
      assert.equal(found.size, covered.size, 'all of it is settled');
      assert.equal(found.stored, found.sequences, 'no row twice');
      assert.equal(found.summarised, found.thinned, 'a summary for every thinned reading, once');
      assert.equal(
        found.stored + found.thinned + found.lost + found.quarantined,
        found.size,
        'every message has one fate',
      );
      assert.equal(found.marked, found.thinned + found.lost + found.quarantined);
      assert.ok(found.late <= found.stored);
    }),
    { numRuns: 40 },
  );
});

test('a run that claims to have lasted for ever is spread over a week (F)', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const batch: ThinnedBatch = { ...thinnedOf(1, 20_160, { summaries: [{}] }), receivedFrom: 0 };
  await writer.write(item(batch), item({ ...thinnedOf(30_000, 5, { summaries: [{}] }), receivedTo: 1e300 }));
  const { rows } = await pool.query(
    `select count(*)::int as minutes, sum(messages)::int as messages, max(minute) <= to_timestamp($1) as believed
       from holdfast.ledger_minute`,
    [NOW / 1000],
  );
  assert.deepEqual(rows, [{ minutes: 7 * 24 * 60 + 1, messages: 20_165, believed: true }]);
});

/** A run that says it arrived in the `spanMs` before now. */
const runOver = (firstSequence: number, count: number, spanMs: number, log: LogId): ThinnedBatch => ({
  ...thinnedOf(firstSequence, count, { logId: log, summaries: [{ count }] }),
  receivedFrom: NOW - spanMs,
  receivedTo: NOW - 1,
});

test('runs of a week are spread evenly over all their minutes, to the message, also where they overlap', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  const WEEK = 7 * 24 * 60;
  const a = logId('a'.repeat(32));
  const b = logId('b'.repeat(32));
  // Fewer messages than minutes; more; twice the same stretch in one transaction, and a part of it in the next one.
  await writer.write(
    item(runOver(1, 100, 7 * DAY_MS, a)),
    item(runOver(1, 25_001, 7 * DAY_MS, b)),
    item(runOver(25_002, 3, 7 * DAY_MS, b)),
  );
  await writer.write(item(runOver(30_000, 120, 2 * 60 * MINUTE_MS, b)));
  const { rows } = await pool.query(
    `select log_id, count(*)::int as minutes, sum(messages)::int as messages, min(messages)::int as least,
            max(messages)::int as most, (extract(epoch from min(minute)) / 60)::int - $1 as first,
            (extract(epoch from max(minute)) / 60)::int - $1 as last
       from holdfast.ledger_minute m join holdfast.gateway_log l on l.id = m.log group by log_id order by log_id`,
    [NOW / MINUTE_MS],
  );
  assert.deepEqual(rows, [
    { log_id: a, minutes: WEEK, messages: 100, least: 0, most: 1, first: -WEEK, last: -1 },
    { log_id: b, minutes: WEEK, messages: 25_124, least: 2, most: 5, first: -WEEK, last: -1 },
  ]);
  assert.deepEqual(await counts(pool, b), { thinned: 25_124 });
});

test('what a thinned run costs PostgreSQL counts its minutes, and what is sent of it does not grow with them (F)', async () => {
  const pool = await freshDatabase(server);
  const run = runOver(1, 100, 7 * DAY_MS, LOG_ID);
  assert.equal(rowsOf(run, NOW), 1 + 7 * 24 * 60);
  assert.equal(rowsOf(runOver(1, 100, 60 * MINUTE_MS, LOG_ID), NOW), 1 + 60);
  const dictionary = openDictionary(pool);
  const log = await dictionary.log(SITE, GATEWAY, LOG_ID);
  const one = item(run);
  const work = { item: { ...one, batch: run }, log, fresh: RangeSet.of(1, 101) };
  const context = { dictionary, partition: 0, epoch: 1, retentionMs: 90 * DAY_MS, now: () => NOW };
  const transaction = await buildTransaction([work], [one], context);
  assert.equal(transaction.minutes.length, 0);
  assert.equal(transaction.runs.length, 1);
});
