import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  deviceId,
  gatewayId,
  isDeviceId,
  isLogId,
  isSiteId,
  logId,
  newLogId,
  siteId,
} from '../../protocol/ids.ts';
import {
  helloSubject,
  ingestFilter,
  ingestSubject,
  lanes,
  PARTITIONS_DEFAULT,
  parseHelloSubject,
  parseIngestSubject,
  partitionOf,
} from '../../protocol/subjects.ts';

const anySite = fc.stringMatching(/^[A-Za-z0-9_-]{1,64}$/).map(siteId);
const anyGateway = fc.stringMatching(/^[A-Za-z0-9_-]{1,64}$/).map(gatewayId);

test('names that could break out of a subject, a path or a topic are refused', () => {
  for (const text of [
    '',
    '.',
    'a.b',
    'a/b',
    '*',
    '>',
    'a b',
    '../x',
    'a\n',
    'é',
    'a'.repeat(65),
    '$SYS',
    '#',
    '+',
  ]) {
    assert.equal(isSiteId(text), false, JSON.stringify(text));
    assert.throws(() => siteId(text), RangeError);
    assert.throws(() => gatewayId(text), RangeError);
  }
  for (const text of ['', 'a/b', '*', '>', 'a b', 'a\n', '+', '#', 'é', '\u0000', 'a'.repeat(129)]) {
    assert.equal(isDeviceId(text), false, JSON.stringify(text));
    assert.throws(() => deviceId(text), RangeError);
  }
  assert.equal(deviceId('aa:bb.cc-1_2'), 'aa:bb.cc-1_2');
});

test('log ids are 32 hex digits that sort by time and never repeat', () => {
  for (const text of ['', 'x'.repeat(32), 'A'.repeat(32), '0'.repeat(31), '0'.repeat(33)]) {
    assert.equal(isLogId(text), false);
    assert.throws(() => logId(text), RangeError);
  }
  const early = newLogId(1_700_000_000_000);
  const late = newLogId(1_700_000_000_001);
  assert.ok(isLogId(early) && isLogId(late) && early < late);
  assert.equal(Number.parseInt(early.slice(0, 12), 16), 1_700_000_000_000);
  assert.notEqual(newLogId(5), newLogId(5));
});

test('ingest subjects read back, and fit their filter', () => {
  fc.assert(
    fc.property(anySite, anyGateway, fc.constantFrom(...lanes), (site, gateway, lane) => {
      const partition = partitionOf(site, PARTITIONS_DEFAULT);
      const subject = ingestSubject(partition, lane, site, gateway);
      assert.deepEqual(parseIngestSubject(subject), { partition, lane, site, gateway });
      assert.ok(subject.startsWith(ingestFilter(partition, lane).slice(0, -1)));
      assert.deepEqual(parseHelloSubject(helloSubject(site, gateway)), { site, gateway });
    }),
  );
});

test('other subjects are not taken for ours', () => {
  for (const subject of [
    '',
    'ingest',
    'ingest.1.live.site',
    'ingest.1.live.site.gateway.more',
    'ingest.x.live.site.gateway',
    'ingest.1.5.live.site.gateway',
    'ingest.1.slow.site.gateway',
    'ingest.1.live..gateway',
    'ingest.1.live.site.*',
    'other.1.live.site.gateway',
  ]) {
    assert.equal(parseIngestSubject(subject), null, subject);
  }
  for (const subject of [
    '',
    'hello',
    'hello.site',
    'hello.site.gateway.more',
    'hello.*.gateway',
    'bye.site.gateway',
  ]) {
    assert.equal(parseHelloSubject(subject), null, subject);
  }
});

test('the partition of a site never changes and lies in range', () => {
  // Wire and ownership hang on these: they must hold in every version.
  assert.deepEqual(
    ['north', 'south', 'plant-1', 'a'].map(name => partitionOf(siteId(name), 64)),
    [2, 52, 32, 3],
  );
  fc.assert(
    fc.property(anySite, fc.integer({ min: 1, max: 1024 }), (site, partitions) => {
      const partition = partitionOf(site, partitions);
      assert.ok(Number.isInteger(partition) && partition >= 0 && partition < partitions);
    }),
  );
});
