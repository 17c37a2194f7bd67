import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readCloudConfig } from '../../cloud/config.ts';

const good = {
  HOLDFAST_NATS_URL: 'nats://127.0.0.1:4222',
  HOLDFAST_REDIS_URL: 'redis://127.0.0.1:6379',
  HOLDFAST_POSTGRES_URL: 'postgres://127.0.0.1:5432/holdfast',
};

test('the three servers are enough; days become seconds and milliseconds', () => {
  const read = readCloudConfig({ ...good, HOLDFAST_RETENTION_DAYS: '2', HOLDFAST_TWIN_TTL_DAYS: '0.5' });
  assert.ok(read.ok);
  assert.equal(read.config.partitions, 64);
  assert.equal(read.config.retentionMs, 2 * 86_400_000);
  assert.equal(read.config.twinTtlSeconds, 43_200);
  assert.notEqual(read.config.node, '');
});

test('every wrong key is named, all of them at once', () => {
  const wrong: [string, string | undefined][] = [
    ['HOLDFAST_NATS_URL', undefined],
    ['HOLDFAST_REDIS_URL', ''],
    ['HOLDFAST_POSTGRES_URL', undefined],
    ['HOLDFAST_HTTP_PORT', '65536'],
    ['HOLDFAST_HTTP_PORT', 'http'],
    ['HOLDFAST_PARTITIONS', '0'],
    ['HOLDFAST_PARTITIONS', '1025'],
    ['HOLDFAST_PARTITIONS', '1.5'],
    ['HOLDFAST_STREAM_BYTES_MAX', '5'],
    ['HOLDFAST_STREAM_REPLICAS', '6'],
    ['HOLDFAST_HISTORY_QUEUE_BYTES_MAX', '0'],
    ['HOLDFAST_HISTORY_COMMIT_INTERVAL_MS', '-1'],
    ['HOLDFAST_RETENTION_DAYS', '0'],
    ['HOLDFAST_TWIN_TTL_DAYS', 'for ever'],
    ['HOLDFAST_ADMIN_TOKEN', 'too short'],
    ['HOLDFAST_LOG_LEVEL', 'loud'],
  ];
  for (const [key, value] of wrong) {
    const read = readCloudConfig({ ...good, [key]: value });
    assert.ok(!read.ok, `${key}=${value}`);
    assert.equal(read.problems.length, 1, `${key}=${value}`);
    assert.match(read.problems[0]!, new RegExp(`^${key}: .`));
  }
  const none = readCloudConfig({});
  assert.ok(!none.ok);
  assert.deepEqual(none.problems.map(problem => problem.split(':')[0]).sort(), Object.keys(good).sort());
});
