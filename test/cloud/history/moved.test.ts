/** Compacted history of a device that goes by another name now, with a real PostgreSQL: it moves whole, and adds up (C). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDictionary } from '../../../cloud/history/dictionary.ts';
import { moveHistory } from '../../../cloud/registry/move-history.ts';
import { freshDatabase, startTestPostgres } from '../servers.ts';
import { compactEverything } from './compact-everything.ts';
import { storeMessages } from './messages.ts';

const pool = await freshDatabase(await startTestPostgres());
const dictionary = openDictionary(pool);
const T = Date.UTC(2026, 2, 1);

test('chunks and aggregates follow the name', async () => {
  const of = (device: string, minute: number, t: number) => ({
    device,
    log: 'one',
    at: T + minute * 60_000,
    metrics: { t },
  });
  await storeMessages(pool, dictionary, [
    of('old', 1, 1),
    of('old', 90, 2),
    of('new', 2, 3),
    of('new', 3, 8),
  ]);
  await compactEverything(pool);
  await storeMessages(pool, dictionary, [of('old', 95, 5)]);
  await pool.query(`insert into holdfast.device_alias (site, alias, device) values ('demo', 'old', 'new')`);

  for (const _ of ['once', 'and again']) {
    await moveHistory(pool);
    const { rows } = await pool.query(`select device, value from holdfast.reading order by value`);
    assert.deepEqual(
      rows.map(({ device, value }) => `${device} ${value}`),
      ['new 1', 'new 2', 'new 3', 'new 5', 'new 8'],
    );
    const { rows: hours } = await pool.query(
      `select d.name as device, count::int, minimum, maximum, mean, first, last
         from holdfast.aggregate a join holdfast.device d on d.id = a.device order by at`,
    );
    assert.deepEqual(hours, [
      { device: 'new', count: 3, minimum: 1, maximum: 8, mean: 4, first: 1, last: 8 },
      { device: 'new', count: 1, minimum: 2, maximum: 2, mean: 2, first: 2, last: 2 },
    ]);
  }
});
