/** What the cloud takes from a hello, whoever wrote it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Hello } from '../../protocol/handshake.ts';
import { reportOf } from '../cloud/reports.ts';

const A = 'a'.repeat(32);
const B = 'b'.repeat(32);
const hello = (more: object = {}) => ({
  wireVersions: [1],
  logs: [A],
  ends: { [A]: 5 },
  report: reportOf(),
  ...more,
});
const withReason = (reason: string) => hello({ report: reportOf({ broker: { connected: false, reason } }) });

test('a reason is cut short and made clean, never refused (H)', () => {
  assert.equal(Hello.parse(withReason('not \0 here \ud800')).report.broker.reason, 'not \u2400 here \ufffd');
  assert.equal(Hello.parse(withReason('ordinary')).report.broker.reason, 'ordinary');
  assert.equal(
    Hello.parse(withReason(`${'x'.repeat(499)}\u{1f600}`)).report.broker.reason,
    `${'x'.repeat(499)}\ufffd`,
  );
  fc.assert(
    fc.property(
      fc.string({
        unit: fc.integer({ min: 0, max: 0xffff }).map(code => String.fromCharCode(code)),
        maxLength: 2000,
      }),
      text => {
        const reason = Hello.parse(withReason(text)).report.broker.reason!;
        assert.ok(reason.length <= 500 && reason.isWellFormed() && !reason.includes('\0'));
        assert.equal(
          Hello.parse(withReason(reason)).report.broker.reason,
          reason,
          'read back as it was written',
        );
      },
    ),
  );
});

test('ends of logs that it does not name are left out; more than 1000 logs are refused (F)', () => {
  assert.deepEqual(Hello.parse(hello({ ends: { [A]: 5, [B]: 7 } })).ends, { [A]: 5 });
  assert.deepEqual(Hello.parse(hello({ logs: [A, B] })).ends, { [A]: 5 });
  const logs = Array.from({ length: 1001 }, (_, index) => index.toString(16).padStart(32, '0'));
  const ends = Object.fromEntries(logs.map(log => [log, 1]));
  assert.equal(Object.keys(Hello.parse(hello({ logs: logs.slice(1), ends })).ends).length, 1000);
  assert.equal(Hello.safeParse(hello({ logs, ends })).success, false);
});

test('numbers that PostgreSQL has no place for are refused', () => {
  for (const end of [0, -1, 1.5, 2 ** 53, 1e300]) {
    assert.equal(Hello.safeParse(hello({ ends: { [A]: end } })).success, false, String(end));
  }
  for (const syncMs of [Number.POSITIVE_INFINITY, Number.NaN]) {
    assert.equal(Hello.safeParse(hello({ report: reportOf({ syncMs }) })).success, false, String(syncMs));
  }
  const text = JSON.stringify(hello({ report: reportOf({ syncMs: 7.25 }) })).replace('7.25', '1e999');
  assert.equal(Hello.safeParse(JSON.parse(text)).success, false, 'JSON can say more than a number holds');
  assert.equal(Hello.safeParse(hello({ wireVersions: Array.from({ length: 101 }, () => 1) })).success, false);
});
