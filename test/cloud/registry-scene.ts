/** The registry's API on a database, and the commands of `holdfast` that talk to it. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { NatsConnection } from '@nats-io/transport-node';
import type pg from 'pg';
import { changeAccess, getJson } from '../../cloud/api/http.ts';
import { quarantined } from '../../cloud/api/records.ts';
import { openDictionary } from '../../cloud/history/dictionary.ts';
import { type RegistryApi, registerRegistryApi } from '../../cloud/registry/api.ts';
import { openRegistry, type Registry } from '../../cloud/registry/registry.ts';
import { listen, newApp } from '../../cloud/web-server.ts';
import { atEnd, silentLogger } from './servers.ts';

const ADMIN_TOKEN = 'the token of these tests';
const DAY_MS = 86_400_000;

export interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: answers of any shape, looked into by the tests
  readonly body: any;
}

export interface RegistryScene {
  readonly registry: Registry;
  readonly api: RegistryApi;
  /** What went wrong on the server's side. */
  readonly failures: string[];
  ask(method: string, path: string, body?: unknown): Promise<Answer>;
  /** `holdfast <command> …` as a process. */
  command(command: string, ...args: string[]): Promise<{ code: number; stdout: string; stderr: string }>;
}

export async function openRegistryScene(options: {
  readonly pool: pg.Pool;
  readonly nats?: NatsConnection;
  readonly publish?: (subject: string, batch: Uint8Array) => Promise<void>;
  readonly partitions?: number;
}): Promise<RegistryScene> {
  const { pool, nats = null, publish = async () => {} } = options;
  const registry = openRegistry({ pool, nats, logger: silentLogger });
  atEnd(async () => registry.close());
  await registry.refresh();
  const app = newApp();
  const failures: string[] = [];
  const onError = (route: string, error: unknown) =>
    void failures.push(`${route}: ${(error as Error).message}`);
  const api = registerRegistryApi({
    app,
    pool,
    registry,
    dictionary: openDictionary(pool),
    stream: {
      publish: async (subject, batch) => {
        await publish(subject, batch as Uint8Array);
        return { stream: 'ingest', seq: 0, duplicate: false, domain: '' };
      },
    },
    partitions: options.partitions ?? 64,
    retentionMs: 90 * DAY_MS,
    access: changeAccess(ADMIN_TOKEN, '127.0.0.1'),
    onError,
  });
  getJson(
    app,
    '/quarantine',
    ({ query }) => quarantined(pool, { site: query.get('site') ?? undefined, limit: 50 }),
    onError,
  );
  const listening = await listen(app, '127.0.0.1', 0);
  if (listening.outcome === 'refused') throw new Error(listening.reason);
  atEnd(async () => listening.close());
  const url = `http://127.0.0.1:${listening.port}`;
  return {
    registry,
    api,
    failures,
    async ask(method, path, body) {
      const response = await fetch(url + path, {
        method,
        headers: { 'content-type': 'application/json', authorization: `Bearer ${ADMIN_TOKEN}` },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      return { status: response.status, body: text === '' ? undefined : JSON.parse(text) };
    },
    command(command, ...args) {
      const entry = fileURLToPath(new URL(`../../cloud/commands/${command}-command.ts`, import.meta.url));
      const env = { ...process.env, HOLDFAST_URL: url, HOLDFAST_ADMIN_TOKEN: ADMIN_TOKEN };
      return new Promise(resolve => {
        execFile(
          process.execPath,
          ['--disable-warning=ExperimentalWarning', entry, ...args],
          { env },
          (error, stdout, stderr) => resolve({ code: error ? Number(error.code ?? -1) : 0, stdout, stderr }),
        );
      });
    },
  };
}
