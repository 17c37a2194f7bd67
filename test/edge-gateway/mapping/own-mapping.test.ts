import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MessageProperties } from '../../../edge-gateway/log/frame-properties.ts';
import { compileMapping } from '../../../edge-gateway/mapping/compile.ts';
import { readMappingFile } from '../../../edge-gateway/mapping/mapping-file.ts';
import { tryMapping } from '../../../edge-gateway/mapping/try-mapping.ts';
import { limits } from '../../../protocol/limits.ts';
import { RECEIVED_AT } from '../frames.ts';

function compiled(text: string) {
  const file = readMappingFile(text, 'test');
  assert.ok(file.ok, JSON.stringify(file));
  const mapping = compileMapping(file.config);
  return (topic: string, payload: string | Uint8Array, properties?: MessageProperties) =>
    tryMapping(mapping, { topic, payload: Buffer.from(payload), receivedAt: RECEIVED_AT, properties });
}

const one = (device: string, metrics: object, time: string | null = null, kind = 'telemetry') => ({
  readings: [{ device, kind, time, metrics }],
  setAside: null,
});

test('device template, prefix, renames, selection, timestamp', () => {
  const factory = compiled(`
mappings:
  - topic: factory/{line}/{device}/state
    device: "{line}-{device}"
    prefix: "{line}."
    only: [t, motor.*, when]
    rename: { t: temperature }
    time: { field: meta.when, unit: s }
`);
  assert.deepEqual(
    factory(
      'factory/l1/d7/state',
      '{"t":21,"motor":{"rpm":900,"ids":[1,2]},"hum":40,"meta":{"when":1763712345},"ts":5}',
    ),
    one(
      'l1-d7',
      { temperature: 21, 'l1.motor.rpm': 900, 'l1.motor.ids.0': 1, 'l1.motor.ids.1': 2 },
      '2025-11-21T08:05:45.000Z',
    ),
  );
  assert.deepEqual(factory('factory/l1/d7/state', '[{"t":1},{"t":2}]').readings.length, 2);
  assert.match(factory('factory/l1/d7/state', '{"t":1,"meta":{"when":"x"}}').setAside!, /seconds since 1970/);
  assert.match(
    factory('factory/l1/d7', '1').setAside!,
    /fits no shape: .*factory\/\{line\}\/\{device\}\/state/,
  );
  assert.deepEqual(factory('factory/l 1/d:-7/state', '{"t":1}'), one('l:-201-d:-3A-7', { temperature: 1 }));
  assert.match(
    factory(`factory/${'l'.repeat(128)}/d/state`, '1').setAside!,
    /device name .*expected 1 to 128/,
  );
});

test('a selection is made before values are looked at, a rename must not make one metric of two', () => {
  const selected = compiled('mappings:\n  - { topic: a, device: d, except: [raw, log.*], rename: { x: y } }');
  const payload = `{"v":1,"raw":"${'x'.repeat(5000)}","log":{"a":"\\u0000"}}`;
  assert.deepEqual(selected('a', payload), one('d', { v: 1 }));
  assert.match(selected('a', '{"x":1,"y":2}').setAside!, /one metric twice/);
});

test('the first that matches has it: own mappings, then profiles, then the common shapes', () => {
  const site = compiled(`
profiles: [zigbee2mqtt]
mappings:
  - { topic: zigbee2mqtt/meter, device: main-meter }
  - { topic: zigbee2mqtt/+, device: never, ignore: true }
  - { topic: "devices/{id}/telemetry", device: "plant-{id}", bareName: "{id}" }
`);
  assert.deepEqual(site('zigbee2mqtt/meter', '{"state":"ON"}'), one('main-meter', { state: 'ON' }));
  assert.deepEqual(site('zigbee2mqtt/lamp', '{"state":"ON"}'), { readings: [], setAside: null });
  assert.deepEqual(site('zigbee2mqtt/hall/lamp', '{"state":"ON"}'), one('hall:lamp', { state: 'ON' }));
  assert.deepEqual(site('devices/p/telemetry', '5'), one('plant-p', { p: 5 }));
  assert.deepEqual(site('devices/p/status', 'on'), one('p', { status: 'on' }, null, 'status'));
  assert.match(site('other', '5').setAside!, /^topic fits no shape: expected devices.*, zigbee2mqtt\/…$/);
});

test('wildcards: + is one level, # any number at the end, and neither reaches the topics of the broker', () => {
  const any = compiled('mappings:\n  - { topic: "+/m/#", device: d }\n  - { topic: "#", device: rest }');
  for (const topic of ['a/m', 'a/m/b', 'a/m/b/c', '/m/'])
    assert.equal(any(topic, '1').readings[0]?.device, 'd', topic);
  for (const topic of ['m', 'a', 'a/b/m']) assert.equal(any(topic, '1').readings[0]?.device, 'rest', topic);
  assert.match(any('$SYS/m', '1').setAside!, /fits no shape/);
});

test('device type: constant, or of a user property', () => {
  const typed = compiled(`
mappings:
  - { topic: a, device: d, deviceType: press }
  - { topic: b, device: d, deviceType: { userProperty: device-type } }
`);
  assert.deepEqual(typed('a', '1'), one('d', { value: 1, 'device.type': 'press' }));
  assert.deepEqual(typed('a', '{}'), { readings: [], setAside: null });
  const userProperties: [string, string][] = [
    ['other', 'x'],
    ['device-type', 'lathe'],
  ];
  assert.deepEqual(typed('b', '1', { userProperties }), one('d', { value: 1, 'device.type': 'lathe' }));
  assert.deepEqual(typed('b', '1'), one('d', { value: 1 }));
  assert.match(typed('b', '1', { userPropertiesLeftOut: true }).setAside!, /longer than 4096 bytes/);
  assert.match(
    typed('b', '1', { userProperties: [['device-type', 'a\0']] }).setAside!,
    /"device-type" is no text/,
  );
  const wide = JSON.stringify(Object.fromEntries(Array.from({ length: 256 }, (_, i) => [`m${i}`, i])));
  assert.match(typed('a', wide).setAside!, /more than 256 metrics/);
});

test('a content type for devices that cannot say theirs; what the message says goes first', () => {
  const binary = compiled(`
profiles: [senml]
mappings:
  - { topic: a, device: d, contentType: application/msgpack }
  - { topic: s, device: unused, contentType: application/senml+json }
`);
  assert.deepEqual(binary('a', Buffer.from('81a17605', 'hex')), one('d', { v: 5 }));
  assert.deepEqual(binary('a', '{"v":6}', { contentType: 'application/json' }), one('d', { v: 6 }));
  assert.deepEqual(binary('s', '[{"bn":"m:","n":"v","v":1}]'), one('m', { v: 1 }));
});

test('a message has a bounded number of elements, however a profile makes them (F)', () => {
  const shelly = compiled('profiles: [shelly]');
  const events = Array(limits.elementsPerMessageMax + 1).fill({ component: 'input:0', event: 'on' });
  const payload = JSON.stringify({ method: 'NotifyEvent', params: { events } });
  assert.match(shelly('shelly-1/events/rpc', payload).setAside!, /message of 1025 elements, at most 1024/);
});

test('device type and schema version of user properties come with any message of one device', () => {
  const site = compiled('profiles: [{ profile: senml }]');
  const userProperties: [string, string][] = [
    ['device-type', 'lathe'],
    ['schema-version', '2'],
  ];
  const about = { 'device.type': 'lathe', 'device.schemaVersion': '2' };
  assert.deepEqual(site('devices/d/telemetry', '{"a":1}', { userProperties }), one('d', { a: 1, ...about }));
  assert.deepEqual(
    site('devices/d/telemetry', '[{"a":1},{"a":2}]', { userProperties }).readings.map(r => r.metrics),
    [{ a: 1, ...about }, { a: 2 }],
  );
  assert.deepEqual(site('devices/d/telemetry', '{}', { userProperties }), { readings: [], setAside: null });
  assert.deepEqual(
    site('devices/d/telemetry', '{"device.type":"press"}', { userProperties }),
    one('d', { 'device.type': 'press', 'device.schemaVersion': '2' }),
    'the payload counts',
  );
  const pack = '[{"bn":"urn:a","v":1},{"bn":"urn:b","v":1}]';
  const senml = { contentType: 'application/senml+json', userProperties };
  assert.deepEqual(
    site('x', pack, senml).readings.map(r => r.metrics),
    [{ value: 1 }, { value: 1 }],
    'of two devices neither is meant',
  );
  const full = Object.fromEntries(
    Array.from({ length: limits.metricsPerElementMax }, (_, n) => [`m${n}`, n]),
  );
  const { readings, setAside } = site('devices/d/telemetry', JSON.stringify(full), { userProperties });
  assert.equal(setAside, null);
  assert.deepEqual(readings.at(-1)!.metrics, about, 'where there is no room it has a row of its own');
});

test('two versions of a payload side by side', () => {
  const site = compiled(`
mappings:
  - { topic: "m/{id}", device: "{id}", schemaVersion: "1", rename: { t: temperature } }
  - { topic: "m/{id}", device: "{id}", schemaVersion: "2" }
  - { topic: "n/{id}", device: "{id}", schemaVersion: "2", prefix: two. }
  - { topic: "n/{id}", device: "{id}" }
`);
  const version = (text: string): MessageProperties => ({ userProperties: [['schema-version', text]] });
  const metrics = (topic: string, properties?: MessageProperties) =>
    site(topic, '{"t":21}', properties).readings[0]?.metrics;
  assert.deepEqual(metrics('m/d', version('1')), { temperature: 21, 'device.schemaVersion': '1' });
  assert.deepEqual(metrics('m/d', version('2')), { t: 21, 'device.schemaVersion': '2' });
  assert.deepEqual(metrics('n/d', version('2')), { 'two.t': 21, 'device.schemaVersion': '2' });
  assert.deepEqual(metrics('n/d', version('3')), { t: 21, 'device.schemaVersion': '3' });
  assert.deepEqual(metrics('n/d'), { t: 21 });
  for (const properties of [version('3'), undefined]) {
    assert.match(
      site('m/d', '1', properties).setAside!,
      /schema-version is none of those that the mapping file has for this topic: 1, 2/,
    );
  }
  assert.match(site('m/d', '1', { userPropertiesLeftOut: true }).setAside!, /longer than 4096 bytes/);
});
