/**
 * The same sequences again, by both lanes and after a restart: one row each, whatever happens to the names and the ledger
 * that a writer has in its cache meanwhile (B).
 */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import fc from 'fast-check';
import type { Pool } from 'pg';
import { type Dictionary, openDictionary } from '../../cloud/history/dictionary.ts';
import { buildTransaction } from '../../cloud/history/transaction.ts';
import type { Server } from '../../deploy/local/servers.ts';
import { logId } from '../../protocol/ids.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import { LOG_ID } from '../edge-gateway/frames.ts';
import {
  batchOf,
  counted,
  DAY_MS,
  GATEWAY,
  item,
  ledger,
  NOW,
  openWriter,
  range,
  readings,
  SITE,
} from './history.ts';
import { eventually, freshDatabase, startTestPostgres } from './servers.ts';

let server: Server;
before(async () => {
  server = await startTestPostgres();
});

const numbers = async (pool: Pool) => (await readings(pool)).map(({ sequence }) => sequence);

/** As when another partition of the node empties the cache that they share, right after a look-up. */
function forgetting(dictionary: Dictionary, isNow: () => boolean): Dictionary {
  return {
    ...dictionary,
    async log(site, gateway, id) {
      const entry = await dictionary.log(site, gateway, id);
      if (isNow()) dictionary.forgetAll();
      return entry;
    },
  };
}

test('another partition empties the cache between two batches of the same sequences: one row each', async () => {
  const pool = await freshDatabase(server);
  const dictionary = openDictionary(pool);
  let lookUps = 0;
  const writer = await openWriter(pool, { dictionary: forgetting(dictionary, () => lookUps++ === 0) });
  await writer.write(item(counted(1, 5)), item(counted(3, 6), { lane: 'backfill' }));
  assert.deepEqual(await numbers(pool), range(1, 9));
  assert.equal(await ledger(pool), '{[1,9)}');
  assert.equal(lookUps, 2, 'at the first attempt');
  // The entry that is in the cache by now knows all of it, that of the first batch too.
  assert.equal((await dictionary.log(SITE, GATEWAY, LOG_ID)).settled.toString(), '{[1,9)}');
});

test('any batches by both lanes, with the cache emptied at any look-up: one row each', async () => {
  const pool = await freshDatabase(server);
  const logs = ['a', 'b'].map(digit => logId(digit.repeat(32)));
  const part = fc.record({
    log: fc.constantFrom(...logs),
    lane: fc.constantFrom('live' as const, 'backfill' as const),
    first: fc.integer({ min: 1, max: 30 }),
    count: fc.integer({ min: 1, max: 12 }),
    forget: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(part, { minLength: 2, maxLength: 12 }), async parts => {
      await pool.query('truncate holdfast.message, holdfast.gateway_log cascade');
      const forget = parts.map(one => one.forget);
      // A node that has just started: it knows nothing yet.
      const writer = await openWriter(pool, {
        dictionary: forgetting(openDictionary(pool), () => forget.shift() ?? false),
      });
      const items = parts.map(({ log, lane, first, count }) =>
        item(
          batchOf(
            first,
            range(first, first + count).map(n => ['devices/pump/telemetry', { n }] as const),
            log,
          ),
          { lane },
        ),
      );
      await writer.write(...items);
      await writer.close(1000);
      const { rows } = await pool.query(
        `select l.log_id, m.sequence::int, count(*)::int as rows from holdfast.message m
           join holdfast.gateway_log l on l.id = m.log group by 1, 2 order by 1, 2`,
      );
      const wanted = logs.flatMap(log => {
        const sequences = new Set(
          parts.filter(one => one.log === log).flatMap(({ first, count }) => range(first, first + count)),
        );
        return [...sequences].sort((a, b) => a - b).map(sequence => ({ log_id: log, sequence, rows: 1 }));
      });
      assert.deepEqual(rows, wanted);
    }),
    { numRuns: 40 },
  );
});

test('a transaction that has a sequence twice is not made, and settle takes none', async () => {
  const pool = await freshDatabase(server);
  const writer = await openWriter(pool);
  await writer.write(item(counted(1, 1)));
  const dictionary = openDictionary(pool);
  const log = await dictionary.log(SITE, GATEWAY, LOG_ID);
  const batch = counted(10, 10);
  const one = item(batch);
  const works = [RangeSet.of(10, 15), RangeSet.of(14, 20)].map(fresh => ({
    item: { ...one, batch },
    log,
    fresh,
  }));
  const context = { dictionary, partition: 0, epoch: writer.epoch, retentionMs: 90 * DAY_MS, now: () => NOW };
  await assert.rejects(buildTransaction(works, [one], context), /twice in one transaction/);
  const ranges = works.map(({ fresh }) => ({
    log: log.id,
    ranges: fresh.toString(),
    late: 0,
    thinned: 0,
    lost: 0,
    quarantined: 0,
    expired: 0,
  }));
  const settle = pool.query(`select holdfast.settle(0, $1, $2::jsonb, '[]', '[]', '[]', '[]')`, [
    writer.epoch,
    JSON.stringify(ranges),
  ]);
  await assert.rejects(settle, { code: 'HF002' });
  assert.equal(await ledger(pool), '{[1,2)}');
});

test('the node is killed before its last commit is answered, the next one reads the same by both lanes: one row each (D)', async () => {
  const pool = await freshDatabase(server);
  const first = await openWriter(pool);
  await first.write(item(counted(1, 3)));
  // Its commit has everything but the lock on its log when the next node starts and takes over.
  const blocker = await pool.connect();
  await blocker.query('begin; select from holdfast.gateway_log for update');
  first.enqueue(item(counted(4, 3)));
  await eventually('it waits in settle', async () => {
    const { rows } = await pool.query(`select query from pg_stat_activity where wait_event_type = 'Lock'`);
    return rows.some(({ query }) => /settle/.test(query));
  });
  const opening = openWriter(pool);
  await blocker.query('rollback');
  blocker.release();
  const second = await opening;
  await second.write(
    item(counted(1, 6), { lane: 'backfill' }),
    item(counted(4, 5)),
    item(counted(4, 3), { lane: 'backfill' }),
  );
  assert.deepEqual(await numbers(pool), range(1, 9));
  assert.equal(await ledger(pool), '{[1,9)}');
});
