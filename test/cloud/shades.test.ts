import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rangesText } from '../../cloud/api/completeness.ts';
import { type HeardGateway, missingShades } from '../../cloud/api/shades.ts';
import { gatewayId, siteId } from '../../protocol/ids.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import { reportOf } from './reports.ts';

const NOW = Date.UTC(2026, 0, 15, 12);
const MINUTE = 60_000;
const all = { from: NOW - 60 * MINUTE, to: NOW + MINUTE };

const gateway = (more: {
  lastHelloAt?: number;
  silent?: boolean;
  oldest?: number | null;
  role?: 'active' | 'standby';
}): HeardGateway => {
  const { lastHelloAt = NOW, silent = false, oldest = null, role = 'active' } = more;
  return {
    site: siteId('demo'),
    gateway: gatewayId('edge-1'),
    lastHelloAt,
    silentSince: silent ? lastHelloAt : null,
    report: reportOf({ oldestUnsettledAt: oldest, role }),
  };
};
const shades = (gateways: HeardGateway[], range = all) =>
  missingShades(gateways, range, NOW).map(({ from, to, what }) => [
    (from - NOW) / MINUTE,
    (to - NOW) / MINUTE,
    what,
  ]);

test('a gateway that is up misses what it holds, unless that is only on its way', () => {
  assert.deepEqual(shades([gateway({})]), []);
  assert.deepEqual(shades([gateway({ oldest: NOW - 5000 })]), []);
  assert.deepEqual(shades([gateway({ oldest: NOW - 5 * MINUTE })]), [[-5, 0, 'missing']]);
});

test('from the last hello on everything is missing, until somebody who takes messages is heard', () => {
  const dead = gateway({ lastHelloAt: NOW - 10 * MINUTE, silent: true });
  assert.deepEqual(shades([dead]), [[-10, 0, 'missing']]);
  assert.deepEqual(shades([dead, gateway({})]), [], 'the other one of the site took over');
  assert.deepEqual(shades([dead, gateway({ role: 'standby' })]), [[-10, 0, 'missing']]);
  const deadStandby = gateway({ lastHelloAt: NOW - 10 * MINUTE, silent: true, role: 'standby' });
  assert.deepEqual(shades([deadStandby]), []);
});

test('what a dead box still holds stays missing; what two gateways miss is one stretch', () => {
  const dead = gateway({ lastHelloAt: NOW - 10 * MINUTE, silent: true, oldest: NOW - 20 * MINUTE });
  assert.deepEqual(shades([dead, gateway({})]), [[-20, -10, 'missing']]);
  assert.deepEqual(shades([dead, gateway({ oldest: NOW - 15 * MINUTE })]), [[-20, 0, 'missing']]);
  const later = gateway({ lastHelloAt: NOW - 3 * MINUTE, silent: true });
  assert.deepEqual(shades([dead, later]), [
    [-20, -10, 'missing'],
    [-3, 0, 'missing'],
  ]);
});

test('only what lies in the range', () => {
  const dead = gateway({ lastHelloAt: NOW - 10 * MINUTE, silent: true, oldest: NOW - 20 * MINUTE });
  assert.deepEqual(shades([dead], { from: NOW - 15 * MINUTE, to: NOW - 5 * MINUTE }), [[-15, -5, 'missing']]);
  assert.deepEqual(shades([dead], { from: NOW - 40 * MINUTE, to: NOW - 30 * MINUTE }), []);
});

test('ranges as text are bounded', () => {
  const holes = RangeSet.from([1, 4, 7].map(from => ({ from, to: from + 1 })));
  assert.equal(rangesText(holes), '[1,2),[4,5),[7,8)');
  assert.equal(rangesText(holes, 2), '[1,2),[4,5)…');
  assert.equal(rangesText(RangeSet.empty), '');
});
