/** The pure parts of the intake: metadata, topic filters, what a session still has subscribed, shared subscriptions, clocks. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newClockWatch } from '../../edge-gateway/clock-watch.ts';
import { readGatewayConfig } from '../../edge-gateway/config.ts';
import { newMetadata } from '../../edge-gateway/intake/metadata.ts';
import { matchesFilter, metadataFilters } from '../../edge-gateway/intake/metadata-topics.ts';
import {
  gatewayOf,
  isOwnTopic,
  markTopic,
  readStatus,
  statusTopic,
} from '../../edge-gateway/intake/own-topics.ts';
import { shareRefusal } from '../../edge-gateway/intake/share-refusal.ts';
import { newSubscriptions } from '../../edge-gateway/intake/subscriptions.ts';
import { NO_MAPPING, readMappingFile } from '../../edge-gateway/mapping/mapping-file.ts';
import { gatewayId, siteId } from '../../protocol/ids.ts';

const bytes = (text: string) => Buffer.from(text);
const T = 'devices/d/status';
const isStatus = (topic: string) => topic.endsWith('/status');

function stored(metadata: ReturnType<typeof newMetadata>): string[] {
  const found: string[] = [];
  metadata.caughtUp((topic, payload) => {
    found.push(`${topic}=${Buffer.from(payload)}`);
    return true;
  });
  return found;
}

test('a retained status is stored once, when it is news', () => {
  const first = newMetadata(isStatus, null);
  first.heard(T, bytes('online'), true);
  assert.equal(first.open, 1);
  assert.deepEqual(stored(first), [`${T}=online`]);
  assert.deepEqual(stored(first), []);
  first.heard(T, bytes('online'), true);
  assert.equal(first.open, 0, 'the same again is no news');

  const next = newMetadata(isStatus, first.toKeep());
  next.heard(T, bytes('online'), true);
  assert.equal(next.open, 0, 'nor after a restart');
  next.heard(T, bytes('offline'), true);
  assert.deepEqual(stored(next), [`${T}=offline`]);
  assert.equal(next.toKeep() === null, false);
  assert.equal(next.toKeep(), null, 'nothing new to keep');
});

test('a retained status that comes through the session too is stored there, and not again', () => {
  const metadata = newMetadata(isStatus, null);
  metadata.heard(T, bytes('offline'), true);
  metadata.cameLive(T, bytes('online'));
  assert.equal(metadata.open, 1, 'an older one in the queue is not it');
  metadata.cameLive(T, bytes('offline'));
  assert.deepEqual(stored(metadata), []);
  metadata.heard(T, bytes('online'), false);
  assert.equal(metadata.open, 0, 'a live one is the reading itself');
  metadata.heard('devices/e/status', bytes('online'), true);
  metadata.othersStore();
  assert.deepEqual(stored(metadata), [], 'another gateway has stored it');
});

test('no room for it now: it stays open', () => {
  const metadata = newMetadata(isStatus, null);
  metadata.heard(T, bytes('online'), true);
  assert.equal(
    metadata.caughtUp(() => false),
    0,
  );
  assert.deepEqual(stored(metadata), [`${T}=online`]);
});

test('metadata is kept, never stored; an empty payload takes it away; devices of a bridge are counted', () => {
  const metadata = newMetadata(isStatus, null);
  const list = '[{"type":"Coordinator"},{"type":"Router"},{"type":"EndDevice"}]';
  metadata.heard('zigbee2mqtt/bridge/devices', bytes(list), true);
  assert.deepEqual(stored(metadata), []);
  assert.equal(metadata.stats.zigbeeDevices, 2);
  assert.equal(Buffer.from(metadata.topics.get('zigbee2mqtt/bridge/devices')!).toString(), list);
  const next = newMetadata(isStatus, metadata.toKeep());
  assert.equal(next.stats.topics, 1);
  next.heard('zigbee2mqtt/bridge/devices', bytes(''), true);
  assert.deepEqual([next.stats.topics, next.stats.bytes], [0, 0]);
});

test('bounds: topics, bytes and the size of one are kept, what is beyond is counted (F)', () => {
  const metadata = newMetadata(isStatus, null);
  for (let i = 0; i < 12_000; i++) metadata.heard(`devices/${i}/status`, bytes('online'), true);
  assert.equal(metadata.open, 10_000);
  assert.equal(metadata.stats.leftOut, 2000);
  const large = newMetadata(isStatus, null);
  for (let i = 0; i < 20; i++) large.heard(`x/${i}`, Buffer.alloc(1024 * 1024 - 1, i), true);
  assert.equal(large.stats.topics, 7);
  assert.ok(large.stats.bytes <= 8 * 1024 * 1024);
  large.heard('x/0', Buffer.alloc(1024 * 1024 + 1), true);
  assert.equal(large.stats.topics, 6, 'what does not fit any more is not kept as it was');
  assert.equal(large.stats.leftOut, 14);
});

test('a file that is damaged counts as empty (I)', () => {
  for (const kept of [
    '',
    '{',
    '[]',
    '{"version":2}',
    '{"version":1,"topics":[[1,2]]}',
    '{"version":1,"topics":[["a","*"]]}',
  ])
    assert.equal(newMetadata(isStatus, kept).stats.topics, 0, kept);
});

test('the topics of retained metadata come from the mapping file', () => {
  assert.deepEqual(metadataFilters(NO_MAPPING), ['devices/+/status']);
  const text = `
profiles:
  - { profile: zigbee2mqtt, base: home/z }
  - tasmota
  - shelly
mappings:
  - { topic: "plant/{line}/{device}/alive", device: "{device}", kind: status }
  - { topic: "plant/{line}/{device}/state", device: "{device}" }
`;
  const read = readMappingFile(text, 'site.yaml');
  assert.ok(read.ok);
  const filters = metadataFilters(read.config);
  for (const topic of [
    'devices/x/status',
    'home/z/bridge/devices',
    'home/z/lamp/availability',
    'home/z/living room/lamp/availability',
    'tasmota/discovery/AA/config',
    'tele/plug/LWT',
    'shellies/plug/online',
    'shellyplus1-1/online',
    'plant/l1/d7/alive',
  ]) {
    assert.ok(
      filters.some(filter => matchesFilter(filter, topic)),
      topic,
    );
  }
  for (const topic of [
    'plant/l1/d7/state',
    'devices/x/telemetry',
    'home/z/lamp',
    'holdfast/gateways/s/g/status',
  ]) {
    assert.ok(!filters.some(filter => matchesFilter(filter, topic)), topic);
  }
});

test('topic filters match as MQTT 5 says', () => {
  const cases: [string, string, boolean][] = [
    ['#', 'a/b', true],
    ['#', '$SYS/x', false],
    ['a/#', 'a', true],
    ['a/+', 'a', false],
    ['+', 'a/b', false],
    ['+/b', 'a/b', true],
    ['+/b', '$a/b', false],
    ['a/b', 'a/b/c', false],
    ['a/+/c', 'a//c', true],
  ];
  for (const [filter, topic, expected] of cases)
    assert.equal(matchesFilter(filter, topic), expected, `${filter} ${topic}`);
});

test('what a session has from a configuration before is remembered until it is taken off', () => {
  let content: string | null = null;
  const file = {
    read: () => content,
    write(text: string) {
      content = text;
    },
  };
  const of = (topics: string[], clientId = 'c', shareGroup: string | null = null) =>
    newSubscriptions({ clientId, topics, alone: ['mark'], shareGroup, file });
  const first = of(['#']);
  assert.deepEqual(first.stale(), []);
  first.asking();
  first.settled();
  const second = of(['devices/#']);
  assert.deepEqual(second.stale(), ['#']);
  second.asking();
  assert.deepEqual(of(['devices/#']).stale(), ['#'], 'a crash in between forgets nothing');
  second.settled();
  assert.deepEqual(of(['devices/#']).stale(), []);
  assert.deepEqual(of(['a'], 'another session').stale(), []);
  const shared = of(['devices/#'], 'c', 'g');
  assert.deepEqual(Object.keys(shared.wanted), ['$share/g/devices/#', 'mark']);
  assert.equal(
    shared.wanted['$share/g/devices/#']!.nl,
    false,
    'a protocol error otherwise (MQTT 5, 3.8.3.1)',
  );
  assert.deepEqual(shared.stale(), ['devices/#']);
  content = 'damaged';
  assert.deepEqual(of(['a']).stale(), []);
});

test('shared subscriptions are refused with Mosquitto, and not before the broker is known', () => {
  const refusal = (sharing: boolean, brokerVersion: string | null, known: boolean) =>
    shareRefusal({ sharing, brokerVersion, known });
  assert.equal(refusal(false, 'mosquitto version 2.0.18', true), null);
  assert.match(refusal(true, null, false)!, /waiting to learn/);
  assert.match(
    refusal(true, 'mosquitto version 2.0.18', true)!,
    /HOLDFAST_STANDBY_GROUP.*HOLDFAST_MQTT_SHARE_ANYWAY=yes/,
  );
  assert.equal(refusal(true, null, true), null);
  assert.equal(refusal(true, 'another broker 5.1', true), null);
});

test('a gateway either stands by or shares', () => {
  const environment = {
    HOLDFAST_SITE: 's',
    HOLDFAST_GATEWAY: 'g',
    HOLDFAST_MQTT_URL: 'mqtt://localhost',
    HOLDFAST_NATS_URL: 'nats://localhost:4222',
    HOLDFAST_DATA_DIR: '/tmp/none',
  };
  const read = (extra: Record<string, string>) => readGatewayConfig({ ...environment, ...extra });
  const alone = read({});
  assert.ok(alone.ok);
  assert.deepEqual([alone.config.standbyGroup, alone.config.shareGroup], [null, null]);
  assert.equal(alone.config.presenceUrl, 'mqtt://localhost');
  assert.ok(read({ HOLDFAST_STANDBY_GROUP: 'a' }).ok);
  assert.equal(read({ HOLDFAST_STANDBY_GROUP: 'a/b' }).ok, false);
  const both = read({ HOLDFAST_STANDBY_GROUP: 'a', HOLDFAST_MQTT_SHARE_GROUP: 'a' });
  assert.ok(!both.ok && both.problems[0]!.startsWith('HOLDFAST_MQTT_SHARE_GROUP'));
});

test('own topics and what stands there', () => {
  const topic = statusTopic(siteId('s'), gatewayId('g'));
  assert.ok(isOwnTopic(topic) && isOwnTopic(markTopic(siteId('s'), gatewayId('g'))));
  assert.ok(!isOwnTopic('devices/holdfast/gateways/x'));
  assert.equal(gatewayOf(topic), 'g');
  assert.equal(gatewayOf(markTopic(siteId('s'), gatewayId('g'))), null);
  assert.equal(
    readStatus(bytes('{"status":"online","role":"active","group":"g","since":1}'))?.role,
    'active',
  );
  for (const forged of ['', 'online', '{"status":"x","group":null}', '[]', 'null'])
    assert.equal(readStatus(bytes(forged)), null, forged);
});

test('a wall clock that is set is seen, one that is slewed is not', () => {
  const watch = newClockWatch();
  assert.equal(watch.check(1_000_000, 0), 0);
  for (let s = 1; s <= 100; s++) assert.equal(watch.check(1_000_000 + s * 1005, s * 1000), 0, 'slewed');
  const wall = 1_000_000 + 100 * 1005;
  assert.equal(watch.check(wall + 1000 - 3_600_000, 101_000), -3_600_000);
  assert.equal(watch.check(wall + 2000 - 3_600_000, 102_000), 0, 'once');
  assert.ok(watch.check(1_800_000_000_000, 103_000) > 0);
  assert.equal(watch.jumps, 2);
});
