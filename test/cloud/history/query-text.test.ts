/** Numbers, times and lines of an export: what is written is what is read, to the last bit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { microsOf } from '../../../cloud/history/query/micros.ts';
import {
  NUMBER_BYTES_MAX,
  openTimeWriter,
  TIME_BYTES_MAX,
  writeNumber,
} from '../../../cloud/history/query/number-text.ts';
import { widthFor } from '../../../cloud/history/query/widths.ts';
import { anyNumber } from './query-scene.ts';

const out = Buffer.alloc(100);

test('a number is the shortest decimal that is the same double', () => {
  const anyDouble = fc.oneof(
    anyNumber,
    fc.double({ noNaN: true }),
    fc.maxSafeInteger(),
    fc
      .tuple(fc.integer({ min: -(2 ** 31), max: 2 ** 31 }), fc.integer({ min: 0, max: 12 }))
      .map(([whole, digits]) => whole / 10 ** digits),
    fc
      .tuple(fc.maxSafeInteger(), fc.integer({ min: 0, max: 9 }))
      .map(([whole, digits]) => whole / 10 ** digits),
  );
  fc.assert(
    fc.property(anyDouble, fc.integer({ min: 0, max: 9 }), (value, guess) => {
      const end = writeNumber(out, 3, value, guess);
      const text = out.toString('latin1', 3, end);
      assert.ok(Object.is(Number(text), value), `${text} is not ${value}`);
      assert.ok(end - 3 <= NUMBER_BYTES_MAX);
      const own = Object.is(value, -0) ? '-0' : String(value);
      // Small ones are written without an exponent.
      if (!own.includes('e')) assert.equal(text, own);
    }),
    { numRuns: 20_000 },
  );
});

test('a time is ISO 8601, with microseconds where it has some', () => {
  const head = Buffer.from('before ');
  const writer = openTimeWriter(head, Buffer.from(' after'));
  const anyMicros = fc.oneof(
    fc.integer({ min: microsOf(Date.UTC(1990, 0)), max: microsOf(Date.UTC(2100, 0)) }),
    fc.integer({ min: 0, max: 200_000_000 }),
  );
  fc.assert(
    fc.property(anyMicros, fc.boolean(), (any, isWhole) => {
      const micros = isWhole ? any - (any % 1000) : any;
      const end = writer.write(out, 0, micros);
      const text = out.toString('latin1', head.length, end - 6);
      assert.equal(out.toString('latin1', 0, head.length), 'before ');
      assert.ok(text.length <= TIME_BYTES_MAX);
      assert.equal(out.toString('latin1', end - 6, end), ' after');
      const [, millis = '', rest = ''] = /^(.+\.\d{3})(\d{3})?Z$/.exec(text) ?? [];
      assert.equal(microsOf(Date.parse(`${millis}Z`)) + Number(rest), micros, text);
      assert.equal(rest === '', micros % 1000 === 0);
    }),
    { numRuns: 5000 },
  );
});

test('buckets are as narrow as the points allow, by the length of the range alone', () => {
  const from = microsOf(Date.UTC(2026, 0, 10));
  const width = (ms: number, points: number) => widthFor({ from, to: from + ms * 1000 + 1 }, points);
  const [SECOND, MINUTE, HOUR, DAY] = [1000, 60_000, 3_600_000, 86_400_000];
  assert.equal(width(DAY, 25), HOUR);
  assert.equal(width(DAY, 24), 2 * HOUR);
  assert.equal(width(DAY, 1000), 2 * MINUTE);
  assert.equal(width(365 * DAY, 1000), 12 * HOUR);
  assert.equal(width(10 * SECOND, 10_000), SECOND);
  assert.equal(width(DAY, 1), DAY, 'two buckets may always be touched');
  assert.equal(width(300 * 365 * DAY, 2), 7 * DAY * 2 ** 14);
});
