/**
 * Compaction with a real PostgreSQL: whatever is in `message` is the same in `reading` before and after, to the bit, in one place
 * only, and its numbers are in the aggregates once (B, C).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { openDictionary } from '../../../cloud/history/dictionary.ts';
import { freshDatabase, startTestPostgres } from '../servers.ts';
import { compactEverything } from './compact-everything.ts';
import { type StoredMessage, storeMessages } from './messages.ts';

const server = await startTestPostgres();
const pool = await freshDatabase(server);
const dictionary = openDictionary(pool);
const DAY = Date.UTC(2026, 0, 10);
const NOW = DAY + 86_400_000 * 3;
const HOUR = 3_600_000;

/** All that people can see of history, as text: floats to the last bit. */
async function readings(): Promise<string[]> {
  const { rows } = await pool.query<{ line: string }>(
    `select concat_ws(' ', site, device, metric, time, value, text, truth, kind, claimed_at, log, sequence, element) as line
       from holdfast.reading order by log, sequence, element, metric, device, time, value`,
  );
  return rows.map(({ line }) => line);
}

async function aggregated() {
  const { rows } = await pool.query(
    `select d.name as device, m.name as metric, a.at, a.count::int, a.minimum, a.maximum, a.mean, a.first, a.last
       from holdfast.aggregate a join holdfast.device d on d.id = a.device join holdfast.metric m on m.id = a.metric
      where seconds = 3600 order by 1, 2, 3`,
  );
  return rows;
}

/** The same out of what is read: what the aggregates must say. */
async function truth() {
  const { rows } = await pool.query(
    `select device, metric, date_trunc('hour', time, 'UTC') as at, count(*)::int, min(value) as minimum, max(value) as maximum,
            holdfast.as_float8(avg(value::numeric)) as mean,
            (array_agg(value order by time, value))[1] as first, (array_agg(value order by time desc, value desc))[1] as last
       from holdfast.reading where value is not null group by 1, 2, 3 order by 1, 2, 3`,
  );
  return rows;
}

async function empty(): Promise<void> {
  await pool.query('truncate holdfast.message, holdfast.chunk, holdfast.aggregate');
}

const close = (a: number, b: number) => Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b), 1e-300);

async function assertAggregates(): Promise<void> {
  const [found, expected] = [await aggregated(), await truth()];
  // As JSON, to which 0 and -0 are the same.
  const withoutMean = (rows: { mean: number }[]) => JSON.stringify(rows.map(({ mean: _, ...rest }) => rest));
  assert.equal(withoutMean(found), withoutMean(expected));
  for (const [i, { mean }] of found.entries())
    assert.ok(close(mean, expected[i].mean), `${mean} ${expected[i].mean}`);
}

const number = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: -5000, max: 5000 }).map(whole => whole / 100) },
  { weight: 2, arbitrary: fc.integer({ min: -3, max: 3 }) },
  { weight: 1, arbitrary: fc.double({ noNaN: true, noDefaultInfinity: true }) },
  { weight: 1, arbitrary: fc.constantFrom(0, -0, 2 ** 53, -(2 ** 53), 1e300, 5e-324, 0.1 + 0.2, 1e-9) },
);
const message = fc.record({
  device: fc.constantFrom('a', 'b', 'c'),
  log: fc.constantFrom('one', 'two'),
  // Days, hours and clusters of the same time.
  at: fc
    .tuple(
      fc.nat(1),
      fc.constantFrom(0, 1, 5, 23),
      fc.oneof(fc.nat(50), fc.nat(3_599_999)),
      fc.constantFrom(0, 0, 0.25),
    )
    .map(([day, hour, ms, part]) => DAY + day * 86_400_000 + hour * HOUR + ms + part),
  element: fc.constantFrom(0, 0, 0, 1, 700),
  kind: fc.constantFrom(0, 0, 1, 3),
  claimedAt: fc.option(fc.constantFrom(DAY + 1e10, Date.UTC(9999, 0, 1)), { freq: 8 }),
  metrics: fc.oneof(
    fc.record({ t: number }),
    fc.record({ t: number, h: number, on: fc.boolean() }),
    fc.record({ t: number, mode: fc.constantFrom('auto', 'off', '', 'ü"{},\\ NULL'), note: fc.string() }),
    fc.record({ mode: fc.string({ unit: 'binary' }) }),
  ),
});

test('whatever is compacted, however often, and whatever comes late: the view and the aggregates say the same', async () => {
  await fc.assert(
    fc
      .asyncProperty(
        fc.array(fc.array(message, { maxLength: 60 }), { minLength: 1, maxLength: 3 }),
        fc.constantFrom(DAY + HOUR, DAY + 6 * HOUR, NOW),
        async (waves, nowMs) => {
          for (const wave of waves) {
            await storeMessages(pool, dictionary, wave as StoredMessage[]);
            const before = await readings();
            await compactEverything(pool, nowMs);
            assert.deepEqual(await readings(), before);
          }
          await compactEverything(pool, NOW);
          assert.equal((await pool.query('select from holdfast.message')).rowCount, 0);
          await assertAggregates();
          const { rows } = await pool.query<{ line: string }>(
            `select concat_ws(' ', site, device, metric, time, value, text, truth, kind, claimed_at, log, sequence, element) as line
               from holdfast.readings(null, null, null, '-infinity', 'infinity')
              order by log, sequence, element, metric, device, time, value`,
          );
          assert.deepEqual(
            rows.map(({ line }) => line),
            await readings(),
          );
        },
      )
      .beforeEach(empty),
    { numRuns: 60 },
  );
});
