import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TypeEntry } from '../../cloud/registry/model.ts';
import { conversionBetween } from '../../cloud/registry/units.ts';

test('units convert as people expect, temperatures as temperatures', () => {
  const cases: [from: string, to: string, value: number, expected: number][] = [
    ['°F', '°C', 50, 10],
    ['degF', 'degC', -40, -40],
    ['K', '°C', 273.15, 0],
    ['celsius', 'K', 0, 273.15],
    ['psi', 'bar', 100, 6.89476],
    ['mbar', 'hPa', 1013.25, 1013.25],
    ['km/h', 'm/s', 36, 10],
    ['m3/h', 'l/s', 3.6, 1],
    ['mA', 'A', 420, 0.42],
    ['Wh', 'kWh', 1500, 1.5],
    ['mi', 'km', 50, 80.4672],
    ['%', '%', 12.5, 12.5],
  ];
  for (const [from, to, value, expected] of cases) {
    const found = conversionBetween(from, to);
    assert.ok(found.ok, `${from} to ${to}`);
    assert.equal(found.convert(value), expected, `${value} ${from} to ${to}`);
  }
});

test('what cannot be converted says why, whatever the text', () => {
  for (const [from, to] of [
    ['Pa', 'kg'],
    ['furlongs-per-cake', 'm'],
    ['', 'm'],
    ['constructor', 'm'],
    ['__proto__', 'm'],
    ['toString', '°C'],
  ] as const) {
    const found = conversionBetween(from, to);
    assert.ok(!found.ok, `${from} to ${to}`);
    assert.match(found.reason, /^".*" to ".*": ./);
  }
});

test('a value that no float holds once converted stays what it was', () => {
  const found = conversionBetween('km', 'nm');
  assert.ok(found.ok);
  assert.equal(found.convert(1e308), 1e308);
});

test('a type says in which metric a unit is wrong; a label needs to be no known unit', () => {
  const parsed = TypeEntry.safeParse({
    metrics: { t: { unit: '°C', reported: 'bar' }, n: { unit: 'cakes' } },
  });
  assert.ok(!parsed.success);
  assert.deepEqual(
    parsed.error.issues.map(({ path }) => path.join('.')),
    ['metrics.t.reported'],
  );
});
