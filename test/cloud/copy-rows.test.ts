/** The binary COPY format, read back by a real PostgreSQL. */
import assert from 'node:assert/strict';
import { pipeline } from 'node:stream/promises';
import { before, test } from 'node:test';
import fc from 'fast-check';
import type { Pool } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { COPY_MESSAGES, type CopyRow, copyBuffer } from '../../cloud/history/copy-rows.ts';
import type { Value } from '../../protocol/batch.ts';
import { anyFloat64 } from '../protocol/sample-batches.ts';
import { freshDatabase, startTestPostgres } from './servers.ts';

let pool: Pool;
before(async () => {
  pool = await freshDatabase(await startTestPostgres());
  await pool.query(`create table holdfast.all_days partition of holdfast.message default`);
});

const text = fc.string({ unit: 'binary', maxLength: 40 }).map(one => one.toWellFormed().replaceAll('\0', ''));
/** Milliseconds with some microseconds after the point, in the years whose microseconds a float holds exactly. */
const time = fc
  .tuple(fc.integer({ min: Date.UTC(1970, 0, 1), max: Date.UTC(2250, 0, 1) }), fc.constantFrom(0, 0.25, 0.5))
  .map(([ms, part]) => ms + part);
const value: fc.Arbitrary<Value> = fc.oneof(anyFloat64.filter(Number.isFinite), fc.boolean(), text);

const row: fc.Arbitrary<CopyRow> = fc
  .record({
    at: time,
    claimedAt: fc.option(time),
    sequence: fc.oneof(
      fc.nat(),
      fc.integer({ min: 0, max: 2 ** 48 - 1 }),
      fc.constantFrom(2 ** 31, 2 ** 32 - 1, 2 ** 32),
    ),
    log: fc.nat(2 ** 31 - 1),
    device: fc.nat(2 ** 31 - 1),
    shape: fc.nat(2 ** 31 - 1),
    element: fc.nat(1023),
    kind: fc.nat(3),
    values: fc.array(value, { maxLength: 12 }),
  })
  .map(fields => {
    const positions = [...fields.values.keys()].reverse();
    const isText = (position: number) => typeof fields.values[position] === 'string';
    return {
      ...fields,
      numbers: positions.filter(position => !isText(position)),
      texts: positions.filter(isText),
    };
  });

async function roundTrip(rows: readonly CopyRow[]): Promise<unknown[]> {
  const client = await pool.connect();
  try {
    await client.query('truncate holdfast.message');
    const buffer = copyBuffer(0);
    for (const one of rows) buffer.add(one);
    assert.equal(buffer.rows(), rows.length);
    await pipeline([buffer.finish()], client.query(copyFrom(COPY_MESSAGES)));
    // Each number as the bytes of its float.
    const found = await client.query(
      `select extract(epoch from at) * 1000 as at, extract(epoch from claimed_at) * 1000 as claimed, sequence, log,
              device, shape, element, kind, texts,
              (select array_agg(encode(float8send(n), 'hex') order by place)
                 from unnest(numbers) with ordinality as u (n, place)) as numbers
         from holdfast.message order by message.sequence`,
    );
    return found.rows.map(one => ({
      ...one,
      at: Number(one.at),
      claimed: one.claimed === null ? null : Number(one.claimed),
      sequence: Number(one.sequence),
    }));
  } finally {
    client.release();
  }
}

const floatBytes = (number: number): string => {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(number);
  return bytes.toString('hex');
};

const expected = ({ at, claimedAt, values, numbers, texts, ...rest }: CopyRow) => ({
  ...rest,
  at,
  claimed: claimedAt,
  numbers: numbers.length === 0 ? null : numbers.map(position => floatBytes(Number(values[position]))),
  texts: texts.length === 0 ? null : texts.map(position => values[position]),
});

test('whatever the rows, PostgreSQL reads what was written, bit by bit (I)', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(row, { selector: one => one.sequence, minLength: 1, maxLength: 60 }),
      async rows => {
        const sorted = rows.toSorted((a, b) => a.sequence - b.sequence);
        assert.deepEqual(await roundTrip(rows), sorted.map(expected));
      },
    ),
    { numRuns: 60 },
  );
});

test('the buffer grows as far as it must', async () => {
  const rows = Array.from(
    { length: 3000 },
    (_, index): CopyRow => ({
      at: Date.UTC(2026, 0, 1) + index,
      claimedAt: null,
      sequence: index,
      log: 1,
      device: 1,
      shape: 1,
      element: 0,
      kind: 0,
      values: ['ü'.repeat(index % 2000), index],
      numbers: [1],
      texts: [0],
    }),
  );
  const found = await roundTrip(rows);
  assert.equal(found.length, rows.length);
  for (const [index, one] of rows.entries()) assert.deepEqual(found[index], expected(one), `row ${index}`);
});

test('a time of the farthest year a device may claim is kept to the millisecond', async () => {
  const at = Date.UTC(9999, 11, 31);
  const one: CopyRow = {
    ...{
      at: Date.UTC(2026, 0, 1),
      claimedAt: at,
      sequence: 1,
      log: 1,
      device: 1,
      shape: 1,
      element: 0,
      kind: 0,
    },
    ...{ values: [], numbers: [], texts: [] },
  };
  assert.deepEqual(await roundTrip([one]), [expected(one)]);
});
