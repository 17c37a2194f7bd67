/** What the intake knows of mapped messages: whose topic it is, and whether the same again is a retry. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MessageProperties } from '../../../edge-gateway/log/frame-properties.ts';
import { compileFacts } from '../../../edge-gateway/mapping/compile.ts';
import { readMappingFile } from '../../../edge-gateway/mapping/mapping-file.ts';
import { receiptFor } from '../../../edge-gateway/receipt.ts';
import { newRedelivery } from '../../../edge-gateway/redelivery.ts';
import { frame } from '../frames.ts';
import { encoded } from './sparkplug/encoded.ts';

const file = readMappingFile(
  `
profiles: [zigbee2mqtt, { profile: tasmota, timeZone: Europe/Berlin }, shelly, owntracks, { profile: senml, topics: [packs] }, sparkplug]
mappings:
  - { topic: "factory/{line}/{machine}/state", device: "{line}-{machine}", receipts: "factory/{line}/{machine}/answers", time: { field: when, unit: ms } }
  - { topic: "v/{id}", device: "two-{id}", schemaVersion: "2" }
  - { topic: "v/{id}", device: "one-{id}" }
  - { topic: silent/#, ignore: true }
`,
  'test',
);
assert.ok(file.ok, JSON.stringify(file));
const facts = compileFacts(file.config);

const receipt = (topic: string, responseTopic: string, properties?: MessageProperties) =>
  receiptFor({ topic, properties: { responseTopic } }, facts.ownerOf({ topic, properties })).outcome;

test('receipts of mapped topics go below the device, or where its mapping says that it listens', () => {
  assert.equal(receipt('factory/l1/m7/state', 'devices/l1-m7/receipts'), 'due');
  assert.equal(receipt('factory/l1/m7/state', 'factory/l1/m7/answers/1'), 'due');
  assert.equal(receipt('owntracks/jane/phone', 'devices/jane:phone/r'), 'due');
  assert.equal(receipt('spBv1.0/g/DDATA/n/d', 'devices/g:n:d/r'), 'due');
  assert.equal(receipt('devices/x/telemetry', 'devices/x/r'), 'due');
  const version: MessageProperties = { userProperties: [['schema-version', '2']] };
  assert.equal(receipt('v/a', 'devices/two-a/r', version), 'due');
});

test('and to nobody else (S)', () => {
  const refused: [topic: string, asked: string][] = [
    ['factory/l1/m7/state', 'devices/l1-m8/receipts'],
    ['factory/l1/m7/state', 'factory/l1/m8/answers/1'],
    ['factory/l1/m7/state', 'factory/l1/m7/answers'],
    ['factory/l1/m7/state', 'factory/l1/m7/answers/'],
    ['factory/l1/m7/state', 'factory/l1/m7/set'],
    ['v/a', 'devices/two-a/r'],
    ['silent/a', 'devices/a/r'],
    ['packs', 'devices/packs/r'],
    ['nobody/knows', 'devices/nobody/r'],
    ['spBv1.0/g/NCMD/n', 'devices/g:n/r'],
    ['spBv1.0/g/DDATA/n/d', 'spBv1.0/g/NCMD/n'],
  ];
  for (const [topic, asked] of refused) assert.equal(receipt(topic, asked), 'refused', `${topic} → ${asked}`);
});

const own = (topic: string, payload: string | Buffer, properties: MessageProperties = {}) =>
  facts.hasOwnTime(frame(1, topic, payload, { properties }));
const cbor = { contentType: 'application/cbor' };
const TIMED = encoded(5, [{ name: 'a', type: 'Int32', value: 1 }]);

test("a device's own time is known in every profile and format", () => {
  const timed: [topic: string, payload: string | Buffer, properties?: MessageProperties][] = [
    ['devices/x/telemetry', '{"ts":1763712345678,"a":1}'],
    ['devices/x/telemetry', Buffer.from('a26274731b0000019aa5a0894e616101', 'hex'), cbor],
    ['factory/l/m/state', '{"when":1763712345678,"a":1}'],
    ['zigbee2mqtt/lamp', '{"state":"ON","last_seen":"2025-11-21T09:05:45+01:00"}'],
    ['tele/attic/SENSOR', '{"Time":"2025-11-21T09:05:45","A":1}'],
    [
      'shellyplus1-a/events/rpc',
      '{"method":"NotifyStatus","params":{"ts":1736603810.49,"switch:0":{"output":false}}}',
    ],
    ['owntracks/jane/phone', '{"_type":"location","lat":49.1,"lon":13.4,"tst":1763712345}'],
    ['packs', '[{"bn":"urn:a:","bt":1763712345,"n":"v","v":1},{"n":"w","t":-5,"v":2}]'],
    ['spBv1.0/g/DDATA/n/d', TIMED],
  ];
  for (const [topic, payload, properties] of timed)
    assert.equal(own(topic, payload, properties), true, topic);
});

test('when unsure it is not, and the message is stored', () => {
  const unsure: [topic: string, payload: string | Buffer, properties?: MessageProperties][] = [
    ['factory/l/m/state', '{"ts":1763712345678,"a":1}'],
    ['factory/l/m/state', '{"when":12,"a":1}'],
    ['factory/l/m/state', '[{"when":1763712345678,"a":1},{"a":2}]'],
    ['factory/l/m/state', '{"when":1763712345678}'],
    ['factory/l/m/state', '{'],
    ['zigbee2mqtt/lamp', '{"state":"ON"}'],
    ['zigbee2mqtt/lamp/availability', '{"state":"online"}'],
    ['owntracks/jane/phone', '{"_type":"lwt","tst":1763712345}'],
    ['packs', '[{"n":"urn:a","v":1}]'],
    ['packs', '[{"bn":"urn:a:","bt":-5,"n":"v","v":1}]'],
    ['packs', '[{"bn":"urn:a:","bt":1763712345,"n":"v","v":1},{"bn":"urn:b","bt":0,"v":2}]'],
    ['spBv1.0/g/NDEATH/n', encoded(null, [])],
    ['spBv1.0/g/DDEATH/n/d', TIMED],
    ['spBv1.0/g/NBIRTH/n', TIMED],
    ['spBv1.0/g/DBIRTH/n/d', TIMED],
    ['spBv1.0/g/NDATA/n', encoded(null, [])],
    ['spBv1.0/g/NDATA/n', Buffer.of(0xff)],
    ['silent/a', '{"ts":1763712345678}'],
    ['nobody', '{"ts":1763712345678}'],
    ['devices/x/telemetry', Buffer.of(0xff), cbor],
    ['devices/x/telemetry', '1', { contentType: 'image/png' }],
  ];
  for (const [topic, payload, properties] of unsure) {
    assert.equal(own(topic, payload, properties), false, `${topic} ${payload}`);
  }
});

test('a retry of a mapped device collapses, two equal readings without a time do not', () => {
  const redelivery = newRedelivery({ receiveMaximum: 8, window: 8, hasOwnTime: facts.hasOwnTime });
  const location = frame(1, 'owntracks/jane/phone', '{"_type":"location","lat":49.1,"tst":1763712345}');
  redelivery.remember(location);
  assert.equal(redelivery.isKnown({ ...location, packetId: 77 }), true);
  const lamp = frame(2, 'zigbee2mqtt/lamp', '{"state":"ON"}');
  redelivery.remember(lamp);
  assert.equal(redelivery.isKnown({ ...lamp, packetId: 78 }), false);
});
