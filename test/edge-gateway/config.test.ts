import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readGatewayConfig } from '../../edge-gateway/config.ts';

const good = {
  HOLDFAST_SITE: 'demo',
  HOLDFAST_GATEWAY: 'edge-1',
  HOLDFAST_MQTT_URL: 'mqtt://user:secret@127.0.0.1:1883',
  HOLDFAST_NATS_URL: 'nats://127.0.0.1:4222',
  HOLDFAST_DATA_DIR: '/var/lib/holdfast',
};

test('what has to be given is enough', () => {
  const read = readGatewayConfig(good);
  assert.ok(read.ok);
  assert.deepEqual(read.config.topics, ['#']);
  assert.equal(read.config.batchMessagesMax, 2000);
  assert.equal(read.config.mappingFile, null);
});

test('topic filters are split at commas', () => {
  const read = readGatewayConfig({ ...good, HOLDFAST_MQTT_TOPICS: 'devices/#, sensors/+/+' });
  assert.deepEqual(read.ok && read.config.topics, ['devices/#', 'sensors/+/+']);
});

test('the terms of a metered link are read', () => {
  const read = readGatewayConfig({
    ...good,
    HOLDFAST_LINK_BUDGET: '50MB/day',
    HOLDFAST_BACKFILL_HOURS: '22:00-06:00',
    HOLDFAST_LINK_BYTES_PER_SECOND: '20000',
  });
  assert.deepEqual(read.ok && read.config.link, {
    budget: { bytesMax: 50_000_000, per: 'day' },
    backfillHours: [{ from: 1320, to: 360 }],
    bytesPerSecond: 20_000,
    gatherMsMax: 300_000,
  });
});

test('every wrong key is named, all of them at once', () => {
  const wrong: [string, string | undefined][] = [
    ['HOLDFAST_SITE', undefined],
    ['HOLDFAST_SITE', 'my site'],
    ['HOLDFAST_GATEWAY', 'a/b'],
    ['HOLDFAST_MQTT_URL', '127.0.0.1:1883'],
    ['HOLDFAST_MQTT_URL', 'http://127.0.0.1'],
    ['HOLDFAST_NATS_URL', ''],
    ['HOLDFAST_DATA_DIR', undefined],
    ['HOLDFAST_BUFFER_BYTES_MAX', '1000'],
    ['HOLDFAST_BUFFER_BYTES_MAX', 'large'],
    ['HOLDFAST_MQTT_RECEIVE_MAXIMUM', '65536'],
    ['HOLDFAST_MQTT_RECEIVE_MAXIMUM', '0'],
    ['HOLDFAST_BATCH_MESSAGES_MAX', '4097'],
    ['HOLDFAST_FLUSH_INTERVAL_MS', '-1'],
    ['HOLDFAST_LOG_LEVEL', 'loud'],
    ['HOLDFAST_MAPPING_FILE', ''],
    ['HOLDFAST_LINK_BUDGET', '50MB'],
    ['HOLDFAST_BACKFILL_HOURS', '22-06'],
    ['HOLDFAST_LINK_BYTES_PER_SECOND', '5'],
    ['HOLDFAST_LINK_GATHER_SECONDS_MAX', '0'],
    ['HOLDFAST_METRICS_PORT', '70000'],
  ];
  for (const [key, value] of wrong) {
    const read = readGatewayConfig({ ...good, [key]: value });
    assert.ok(!read.ok, `${key}=${value}`);
    assert.equal(read.problems.length, 1, `${key}=${value}`);
    assert.match(read.problems[0]!, new RegExp(`^${key}: .`));
  }
  const none = readGatewayConfig({});
  assert.ok(!none.ok);
  assert.deepEqual(none.problems.map(problem => problem.split(':')[0]).sort(), Object.keys(good).sort());
});
