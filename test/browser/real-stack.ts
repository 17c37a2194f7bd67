/** The real line for browser tests: the scene of the end-to-end tests with one site, and a device that publishes. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import mqtt from 'mqtt';
import type pg from 'pg';
import { type Link, openLink } from '../../deploy/local/link.ts';
import { type GatewayEntry, openScene } from '../end-to-end/scene.ts';

export type RealStack = {
  /** Of the dashboard, without a slash at the end. */
  readonly url: string;
  readonly postgres: pg.Pool;
  /** Between the gateway and the cloud. */
  readonly link: Link;
  /** Resolves with the broker's PUBACK; an object goes as JSON. */
  publish(topic: string, payload: object | string): Promise<void>;
  /** Resolves with the gateway's receipt: the message is on its disk. */
  publishToDisk(device: string, payload: object): Promise<void>;
  /** SIGKILL and a new start: what was in its log goes by the backfill lane then. */
  restartGateway(): Promise<void>;
  /** SIGKILL; resolves when the process is gone. */
  killCloud(): Promise<void>;
  /** On the same port as before. */
  startCloud(): Promise<void>;
};

const SITE = 'demo';

export async function startRealStack(t: TestContext): Promise<RealStack> {
  let link: Link | null = null;
  const scene = await openScene({
    sites: { [SITE]: ['gw-1'] },
    gatewayNatsUrl: async text => {
      const url = new URL(text);
      link = await openLink({ host: url.hostname, port: Number(url.port) });
      url.port = String(link.port);
      return url.href;
    },
  });
  t.after(async () => {
    await scene.close();
    await link?.close();
  });
  assert.ok(link);
  const broker = scene.stack.brokers.get(SITE);
  assert.ok(broker);
  const device = await mqtt.connectAsync(broker.deviceUrl, { protocolVersion: 5 });
  t.after(() => device.endAsync(true));
  const publish = async (topic: string, payload: object | string): Promise<void> => {
    const text = typeof payload === 'string' ? payload : JSON.stringify(payload);
    await device.publishAsync(topic, text, { qos: 1 });
  };

  // What is published before the gateway has subscribed for the first time reaches nobody.
  const deadline = Date.now() + 60_000;
  for (let connected = false; !connected; ) {
    assert.ok(Date.now() < deadline, 'the gateway did not connect to its broker');
    await publish('devices/first/telemetry', { up: 1 });
    const { sites } = await scene.get<{ sites: Array<{ gateways: GatewayEntry[] }> }>('/sites');
    connected = sites.some(({ gateways }) => gateways.some(gateway => gateway.broker.connected));
  }

  return {
    url: scene.stack.url,
    postgres: scene.postgres,
    link,
    publish,
    async publishToDisk(name, payload) {
      const responseTopic = `devices/${name}/receipts`;
      await device.subscribeAsync(responseTopic, { qos: 1 });
      const receipt = new Promise(resolve => device.once('message', resolve));
      const properties = { responseTopic };
      await device.publishAsync(`devices/${name}/telemetry`, JSON.stringify(payload), { qos: 1, properties });
      await receipt;
    },
    async restartGateway() {
      const gateway = scene.stack.gateways.get(`${SITE}/gw-1`);
      assert.ok(gateway);
      await gateway.kill();
      await gateway.start();
    },
    killCloud: () => scene.stack.cloud.kill(),
    startCloud: () => scene.stack.startCloud(),
  };
}
