/** What the site page reads and says of gateways and their logs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freshness } from '../../cloud/dashboard/format.ts';
import {
  logStartedAt,
  readCompleteness,
  readRanges,
  readSites,
  silentSites,
} from '../../cloud/dashboard/site-model.ts';
import {
  fatesOf,
  forecastWords,
  ledgerWords,
  linkWords,
  rangeWords,
  waitingWords,
} from '../../cloud/dashboard/site-words.ts';

const NOW = Date.UTC(2026, 0, 15, 12);

function gatewayOf(fields: object) {
  const gateway = readSites({
    sites: [{ site: 'plant', twins: 1, gateways: [{ gateway: 'gw', ...fields }] }],
  })[0]?.gateways[0];
  assert.ok(gateway);
  return gateway;
}

test('the forecast in words', () => {
  const table: Array<[full: number | null, drained: number | null, waiting: number, words: string]> = [
    [273_600, null, 9, 'full in 3 d 4 h at this rate'],
    [0, null, 9, 'full now'],
    [null, 40, 9, 'drained in 40 s'],
    [null, 0, 0, 'does not fill'],
    [null, 0, 3, 'does not fill'],
    [null, null, 0, 'does not fill'],
    [null, null, 9, 'does not fill, and does not drain yet'],
  ];
  for (const [fullInSeconds, drainedInSeconds, waiting, words] of table) {
    assert.equal(forecastWords({ fullInSeconds, drainedInSeconds }, waiting), words);
  }
});

test('the link in words: only a page that is up to date says that a gateway is up', () => {
  const up = gatewayOf({ link: 'up', silentSinceMs: null, lastHelloAt: NOW - 2_000 });
  assert.equal(linkWords(up, NOW, true), 'up, heard 2 s ago');
  assert.equal(linkWords(up, NOW, false), 'last heard 2 s ago');
  const silent = gatewayOf({ link: 'silent', silentSinceMs: NOW - 120_000, lastHelloAt: NOW - 120_000 });
  assert.match(linkWords(silent, NOW, true), /^silent since \S+.*, for 2 min$/);
});

test('what waits, in words', () => {
  assert.equal(waitingWords(gatewayOf({ unsettledMessages: 0 }), NOW), 'nothing');
  assert.equal(waitingWords(gatewayOf({ unsettledMessages: 1, oldestUnsettledAt: null }), NOW), '1 message');
  const waiting = gatewayOf({ unsettledMessages: 1_234, oldestUnsettledAt: NOW - 90_000 });
  assert.match(waitingWords(waiting, NOW), /^1,234 messages, the oldest from .*\(1 min ago\)$/);
  assert.equal(waitingWords(gatewayOf({}), NOW), '–');
});

test('a site is silent when all its gateways are, since the last word of any', () => {
  const [up, silent] = [
    { gateway: 'a', link: 'up', silentSinceMs: null },
    { gateway: 'b', link: 'silent', silentSinceMs: NOW - 5_000 },
  ];
  const sites = readSites({
    sites: [
      { site: 'one', gateways: [up, silent] },
      { site: 'two', gateways: [silent, { ...silent, gateway: 'c', silentSinceMs: NOW - 9_000 }] },
      { site: 'constructor', gateways: [] },
    ],
  });
  assert.deepEqual([...silentSites(sites)], [['two', NOW - 5_000]]);
});

test('a value behind a silent gateway is stale, however young it is', () => {
  assert.equal(freshness(NOW - 1_000, NOW), 'fresh');
  assert.equal(freshness(NOW - 1_000, NOW, NOW - 500), 'stale');
  assert.equal(freshness(null, NOW, NOW - 500), 'none');
});

test('the ledger is read and said in the order of the bar', () => {
  const logId = `${(NOW - 60_000).toString(16).padStart(12, '0')}${'ab'.repeat(10)}`;
  const { gateways, truncated } = readCompleteness(
    {
      gateways: [
        {
          gateway: 'gw',
          logs: [
            { logId, live: 1_200, late: 30, missing: 5, missingRanges: '[7,11),[20,21)…', lastSeenAt: NOW },
          ],
          totals: { live: 1_200, late: -4 },
        },
        'no gateway',
      ],
      truncated: true,
    },
    NOW,
  );
  assert.equal(truncated, true);
  const log = gateways[0]?.logs[0];
  assert.ok(log);
  assert.equal(log.startedAt, NOW - 60_000);
  assert.equal(ledgerWords(log.counts), '1,200 live, 30 late, 5 missing');
  assert.deepEqual(log.missing.ranges.map(rangeWords), ['7 to 10 (4 messages)', '20']);
  assert.equal(log.missing.more, true);
  assert.deepEqual(fatesOf(gateways[0]?.totals ?? new Map()), [['live', 1_200]]);
});

test('H: ledgers, sites and ranges of another shape are left out', () => {
  assert.deepEqual(readRanges('[9,5),[x,1),nothing'), { ranges: [], more: false });
  assert.deepEqual(readCompleteness('x', NOW), { gateways: [], truncated: false });
  assert.deepEqual(readSites({ sites: ['x', { site: 4 }] }), []);
  assert.equal(logStartedAt('0'.repeat(32), NOW), null);
  assert.equal(logStartedAt('f'.repeat(32), NOW), null);
  const odd = gatewayOf({ dataBudget: { bytesMax: 'many' }, forecast: 3, role: 'toString', broker: [] });
  assert.deepEqual([odd.dataBudget, odd.forecast, odd.role, odd.broker], [null, null, null, null]);
});
