/** A cloud node as a child process. */
import { type NodeProcess, nodeProcess } from './node-process.ts';

/** @param entry a module that runs `cloud/main.ts` and more; else that itself */
export const cloudProcess = (options: {
  name: string;
  env: Readonly<Record<string, string>>;
  entry?: URL;
}): NodeProcess => nodeProcess({ entry: new URL('../../cloud/main.ts', import.meta.url), ...options });

/** One on these servers, on a port of its own choice. */
export const cloudNodeOn = (
  { nats, redis, postgres }: Readonly<Record<'nats' | 'redis' | 'postgres', { readonly url: string }>>,
  name: string,
  env: Readonly<Record<string, string>> = {},
): NodeProcess =>
  cloudProcess({
    name,
    env: {
      HOLDFAST_NATS_URL: nats.url,
      HOLDFAST_REDIS_URL: redis.url,
      HOLDFAST_POSTGRES_URL: postgres.url,
      HOLDFAST_NODE: name,
      HOLDFAST_HTTP_PORT: '0',
      ...env,
    },
  });
