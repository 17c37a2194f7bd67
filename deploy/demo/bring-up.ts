/** Brings the demo up: finds the servers, forgets earlier runs where asked to, starts the stack. */
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defaultCacheDirectory, findBinaries } from '../local/find-servers.ts';
import { isFree } from '../local/ports.ts';
import { serverNames } from '../local/server.ts';
import { type Stack, startStack } from '../local/stack.ts';
import { removeStackFolder } from '../local/unprivileged.ts';
import { type DemoArguments, demoSites } from './arguments.ts';
import { openDemoLinks } from './links.ts';
import { type Tool, writeTools } from './tools.ts';

/** Holds the lock of the running demo, its data and its tools. */
export const demoDirectory = resolve(
  process.env.HOLDFAST_DEMO_DIR || fileURLToPath(new URL('../../.holdfast', import.meta.url)),
);
const dataDirectory = join(demoDirectory, 'data');
const USUAL_PORT = 8080;

/**
 * Rejects with the reason when a part does not come up, or when `signal` is aborted: what was started is stopped then.
 *
 * @param say is told in one line as each part comes up
 */
export async function bringUp(
  options: DemoArguments,
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<{ stack: Stack; tools: Map<Tool, string>; close(): Promise<void> }> {
  if (options.fresh) {
    say('forgetting the data of earlier runs');
    removeStackFolder(dataDirectory);
  }
  const [first, second] = demoSites;
  const env = process.env;
  const brokers = {
    [first]: env.HOLDFAST_MQTT_URL,
    [second]: env[`HOLDFAST_MQTT_URL_${second.toUpperCase()}`],
  };
  const given = {
    mosquitto: brokers[first] && brokers[second],
    nats: env.HOLDFAST_NATS_URL,
    redis: env.HOLDFAST_REDIS_URL,
    postgres: env.HOLDFAST_POSTGRES_URL,
  };
  const binaries = await findBinaries({
    cacheDirectory: defaultCacheDirectory,
    report: say,
    need: serverNames.filter(name => !given[name]),
  });
  signal.throwIfAborted();
  const tools = await writeTools(binaries, join(demoDirectory, 'tools'));
  const port = options.port ?? ((await isFree(USUAL_PORT)) ? USUAL_PORT : 0);
  if (options.port === null && port === 0) say(`port ${USUAL_PORT} is taken, the dashboard gets a free one`);
  const links = await openDemoLinks(join(dataDirectory, 'gateways'));
  const starting = startStack({
    directory: dataDirectory,
    binaries,
    report: say,
    signal,
    sites: [
      { site: first, gateways: ['gateway-1'] },
      { site: second, gateways: ['gateway-1'] },
    ],
    urls: {
      ...(given.nats && { nats: given.nats }),
      ...(given.redis && { redis: given.redis }),
      ...(given.postgres && { postgres: given.postgres }),
      brokers: Object.fromEntries(
        Object.entries(brokers).filter((entry): entry is [string, string] => !!entry[1]),
      ),
    },
    ...(options.lan && { openToNetwork: { site: first } }),
    httpPort: port,
    cloudEnv: { HOLDFAST_DEMO_CONTROL_URL: links.controlUrl },
    // A server that somebody else runs may need its own name for TLS, or be several: no relay goes in front of it.
    ...(!given.nats && { gatewayNatsUrl: links.through }),
  });
  const stack = await starting.catch(async error => {
    await links.close();
    throw error;
  });
  const close = async () => {
    await stack.close();
    await links.close();
  };
  return { stack, tools, close };
}
