/** Messages of a device, as rules are tried on them: the same and in the same order, compacted or not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { millisOf, rangeOf } from '../../../cloud/history/query/micros.ts';
import { readMessages } from '../../../cloud/history/read-devices.ts';
import { anyWaves, DAY, DAY_MS, HOUR_MS, openQueryScene, SITE } from './query-scene.ts';

const scene = await openQueryScene();
const { pool } = scene;
const WANTED = ['t', 'both', 'on'];

interface Heard {
  readonly at: number;
  readonly log: string;
  readonly sequence: number;
  readonly element: number;
  readonly numbers: Record<string, number>;
}

async function messages(device: string, from: number, to: number): Promise<Heard[]> {
  const found: Heard[] = [];
  for await (const { at, log, sequence, element, metrics, values } of readMessages(
    pool,
    await scene.device(device),
    WANTED,
    from,
    to,
  )) {
    const numbers = Object.fromEntries(metrics.map((metric, i) => [metric, values[i] as number]));
    found.push({ at, log, sequence, element, numbers });
  }
  return found;
}

/** Every message has a reading, so the view has every message. */
async function expected(device: string, from: number, to: number): Promise<Heard[]> {
  const range = rangeOf(from, to);
  const { rows } = await pool.query<Heard>(
    `select us as at, l.log_id as log, sequence::float8, element,
            coalesce(json_object_agg(metric, value)
                       filter (where metric = any ($5) and value is not null and truth is null), '{}')
              as numbers
       from (select *, (extract(epoch from time - timestamptz '2000-01-01 00:00Z') * 1000000)::float8 as us
               from holdfast.reading) r
       join holdfast.gateway_log l on l.id = r.log
      where r.site = $1 and device = $2 and us >= $3 and us < $4
      group by r.log, us, l.log_id, sequence, element order by us, r.log, sequence, element`,
    [SITE, device, range.from, range.to, WANTED],
  );
  return rows.map(row => ({ ...row, at: millisOf(row.at) }));
}

test('messages come in the order of their times with the numbers asked for, compacted or not', async () => {
  await fc.assert(
    fc
      .asyncProperty(anyWaves, async waves => {
        for (const [wave] of waves) {
          await scene.store(wave);
          for (const [from, to] of [
            [DAY, DAY + 2 * DAY_MS],
            [DAY + 20, DAY + DAY_MS + 5 * HOUR_MS],
          ] as const) {
            for (const device of ['a', 'b']) {
              assert.deepEqual(await messages(device, from, to), await expected(device, from, to));
            }
          }
          await scene.compact(DAY + DAY_MS + HOUR_MS);
        }
        assert.deepEqual(
          await messages('a', DAY, DAY + 2 * DAY_MS),
          await expected('a', DAY, DAY + 2 * DAY_MS),
        );
      })
      .beforeEach(scene.empty),
    { numRuns: 20 },
  );
});

test('of a device that history does not know, and of no time at all, there are none', async () => {
  await scene.empty();
  await scene.store([{ device: 'a', log: 'one', at: DAY, metrics: { t: 1 } }]);
  assert.deepEqual(await messages('c', DAY, DAY + DAY_MS), []);
  assert.deepEqual(await messages('a', DAY + 1, DAY), []);
  assert.deepEqual(await messages('a', DAY - 10 * DAY_MS, DAY - 5 * DAY_MS), []);
  assert.equal((await messages('a', DAY, DAY)).length, 1);
});
