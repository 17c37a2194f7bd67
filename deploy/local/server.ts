/**
 * What a demo, a test or a benchmark sees of a server (broker, stream, cache, database), whether it was started
 * here, runs in a container, or was given by URL.
 */

export type ServerName = 'mosquitto' | 'nats' | 'redis' | 'postgres';

export const serverNames: readonly ServerName[] = ['mosquitto', 'nats', 'redis', 'postgres'];

export interface Server {
  readonly name: string;
  /** Address it listens on; clients on this machine use `url`. */
  readonly host: string;
  readonly port: number;
  /** The administrator's URL, credentials included. */
  readonly url: string;
  /** Given by URL from the environment: start, stop and kill do nothing. */
  readonly external: boolean;
  /** Undefined while stopped and for an external server. */
  pid(): number | undefined;
  /** Ends it gracefully and awaits the exit; SIGKILL when it takes longer than the server's own limit. */
  stop(): Promise<void>;
  /** SIGKILL at once, its children included; resolves when all of them are gone. */
  kill(): Promise<void>;
  /**
   * Starts it again on the same port with the same data and resolves when it answers. Does nothing while it runs.
   * Rejects with the tail of the output when it exits or stays mute.
   */
  start(): Promise<void>;
  /** The last 64 KiB of stdout and stderr, for messages to people. */
  output(): string;
  /** Calls back when the process ends though nobody asked it to. Returns the function that takes the listener off. */
  onUnexpectedExit(listener: (reason: string) => void): () => void;
}

/** The environment variables that point at servers which are already running somewhere. */
export const serverUrlVariables: Readonly<Record<ServerName, string>> = {
  mosquitto: 'HOLDFAST_MQTT_URL',
  nats: 'HOLDFAST_NATS_URL',
  redis: 'HOLDFAST_REDIS_URL',
  postgres: 'HOLDFAST_POSTGRES_URL',
};

const schemes: Readonly<Record<ServerName, { readonly names: readonly string[]; readonly port: number }>> = {
  mosquitto: { names: ['mqtt', 'mqtts', 'tcp', 'ssl'], port: 1883 },
  nats: { names: ['nats', 'tls'], port: 4222 },
  redis: { names: ['redis', 'rediss'], port: 6379 },
  postgres: { names: ['postgres', 'postgresql'], port: 5432 },
};

/** A server that somebody else runs. Throws with a message for the user when the URL is not one of this server's. */
export function externalServer(name: ServerName, url: string): Server {
  const expected = `${schemes[name].names.map(scheme => `${scheme}://`).join(' or ')}user:password@host:port`;
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (!parsed || !schemes[name].names.includes(parsed.protocol.slice(0, -1)) || parsed.hostname === '') {
    throw new Error(`${serverUrlVariables[name]} is not a URL like ${expected}`);
  }
  const nothing = () => Promise.resolve();
  return {
    name,
    host: parsed.hostname,
    port: parsed.port === '' ? schemes[name].port : Number(parsed.port),
    url,
    external: true,
    pid: () => undefined,
    stop: nothing,
    kill: nothing,
    start: nothing,
    output: () => '',
    onUnexpectedExit: () => () => undefined,
  };
}
