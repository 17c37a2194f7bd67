/** A gateway process with a mapping file, from a real broker to the cloud: properties and all travel over the disk. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import mqtt, { type IClientPublishOptions, type MqttClient } from 'mqtt';
import type { NodeProcess } from '../../../deploy/local/node-process.ts';
import { openScene, type Scene, until } from '../../end-to-end/scene.ts';

const SITE = 'plant';
let scene: Scene;
let device: MqttClient;
let gateway: NodeProcess;

interface TwinView {
  readonly device: string;
  readonly metrics: Readonly<Record<string, { readonly value: unknown }>>;
}

before(async () => {
  scene = await openScene({ sites: { [SITE]: ['gw-1'] } });
  await scene.stack.gateways.get(`${SITE}/gw-1`)!.stop();
  const file = join(scene.directory, 'site.yaml');
  writeFileSync(
    file,
    `
profiles: [zigbee2mqtt, senml]
mappings:
  - topic: factory/{line}/{device}/state
    device: "{line}-{device}"
    deviceType: { userProperty: device-type }
protobuf:
  - { schema: motor.proto, message: Motor }
`,
  );
  writeFileSync(
    join(scene.directory, 'motor.proto'),
    'syntax = "proto3";\nmessage Motor { uint32 rpm = 1; }\n',
  );
  gateway = scene.gateway(SITE, 'gw-1', { HOLDFAST_MAPPING_FILE: file });
  await gateway.start();
  await until('the gateway is at its broker', 20_000, () => gateway.output().includes('broker: connected'));
  device = await mqtt.connectAsync(scene.stack.brokers.get(SITE)!.deviceUrl, { protocolVersion: 5 });
});
after(async () => {
  await device?.endAsync(true);
  await scene?.close();
});

const publish = (
  topic: string,
  payload: string | Buffer,
  properties: IClientPublishOptions['properties'] = {},
) => device.publishAsync(topic, payload, { qos: 1, properties });

test('profiles, own mappings, content types and user properties of real packets', async () => {
  await publish('zigbee2mqtt/Living Room/lamp', '{"state":"ON","brightness":215}');
  await publish('zigbee2mqtt/Living Room/lamp/availability', '{"state":"online"}');
  await publish('zigbee2mqtt/bridge/devices', '[{"ieee_address":"0x0"}]');
  await publish('factory/l1/d7/state', Buffer.from('81a17415', 'hex'), {
    contentType: 'application/msgpack',
    userProperties: { trace: ['a', 'b'], 'device-type': 'press' },
    messageExpiryInterval: 60,
  });
  await publish('any', '[{"bn":"urn:dev:ow:10:","n":"voltage","v":120.1}]', {
    contentType: 'application/senml+json',
  });
  await publish('devices/m/telemetry', Buffer.of(0x08, 7), {
    contentType: 'application/protobuf',
    userProperties: { 'schema-version': '2' },
  });
  await publish('any', '1', { contentType: 'image/png' });

  const expected = {
    'Living:_Room:lamp': { state: 'ON', brightness: 215, status: 'online' },
    'l1-d7': { t: 21, 'device.type': 'press' },
    'urn:dev:ow:10': { voltage: 120.1 },
    m: { rpm: 7, 'device.schemaVersion': '2' },
  };
  const values = async () => {
    const { twins } = await scene.get<{ twins: TwinView[] }>(`/twins?site=${SITE}`);
    return Object.fromEntries(
      twins.map(twin => [
        twin.device,
        Object.fromEntries(Object.entries(twin.metrics).map(([name, { value }]) => [name, value])),
      ]),
    );
  };
  await until('all twins are there', 10_000, async () => {
    const twins = await values();
    return Object.entries(expected).every(
      ([name, metrics]) => Object.keys(twins[name] ?? {}).length === Object.keys(metrics).length,
    );
  });
  assert.deepEqual(await values(), expected);
  const quarantined = await until('the unknown content type is set aside', 10_000, async () => {
    const { rows } = await scene.postgres.query('SELECT * FROM quarantine');
    return rows.length > 0 && rows;
  });
  assert.deepEqual(
    quarantined.map(({ topic }: { topic: string }) => topic),
    ['any'],
  );
  assert.match(quarantined[0].reason, /content type "image\/png" is not known: expected application\/json/);
});

test('a message whose expiry passes while no gateway is there is dropped by the broker, and no other', async () => {
  await gateway.stop();
  await publish('devices/late/telemetry', '{"expired":1}', { messageExpiryInterval: 1 });
  await publish('devices/late/telemetry', '{"lasting":1}', { messageExpiryInterval: 600 });
  await publish('devices/late/telemetry', '{"forever":1}');
  const publishedAt = Date.now();
  await until('the expiry has passed', 5000, () => Date.now() - publishedAt > 2100);
  await gateway.start();
  const metrics = await until('the last of them is there', 20_000, async () => {
    const twin = await scene.get<TwinView>(`/twins/${SITE}/late`);
    return twin.metrics.forever && Object.keys(twin.metrics);
  });
  assert.deepEqual(metrics.toSorted(), ['forever', 'lasting']);
});
