/** A second program that calls itself by a gateway's name, as a cloned disk or a wrong setting makes one. */
import { type NodeProcess, nodeProcess } from '../local/node-process.ts';
import { freePort } from '../local/ports.ts';
import type { GatewayName } from '../local/stack.ts';

/**
 * Another process of a gateway's name and rights, on a data folder of its own.
 * @param options.mqttUrl null: it finds no broker, and only sends what the folder holds
 */
export async function startLookalike(
  { site, gateway }: GatewayName,
  options: { name: string; mqttUrl: string | null; natsUrl: string; dataDirectory: string },
): Promise<NodeProcess> {
  const lookalike = nodeProcess({
    name: options.name,
    entry: new URL('../../edge-gateway/main.ts', import.meta.url),
    env: {
      HOLDFAST_SITE: site,
      HOLDFAST_GATEWAY: gateway,
      HOLDFAST_MQTT_URL: options.mqttUrl ?? `mqtt://127.0.0.1:${await freePort()}`,
      HOLDFAST_NATS_URL: options.natsUrl,
      HOLDFAST_DATA_DIR: options.dataDirectory,
    },
  });
  await lookalike.start();
  return lookalike;
}
