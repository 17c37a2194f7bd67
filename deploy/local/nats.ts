/**
 * A private nats-server with JetStream. `sync_interval: always` makes its acknowledgement mean "on disk": without it
 * an acknowledged message is gone after a power cut (invariant A).
 */
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Binaries, binary } from './binaries.ts';
import { bindAddress, commandLine } from './command-line.ts';
import { makeOwnFolder } from './own-folder.ts';
import { onPort } from './ports.ts';
import { launchServer } from './process.ts';
import type { Server } from './server.ts';
import { talk } from './tcp-probe.ts';

export interface NatsUser {
  readonly user: string;
  readonly password: string;
  /** Subjects allowed, everything else refused; without it the user may do all. */
  readonly permissions?: { readonly publish: readonly string[]; readonly subscribe: readonly string[] };
}

export interface NatsOptions {
  readonly binaries: Binaries;
  readonly directory: string;
  readonly port?: number;
  /** At least one; the URL carries the first. */
  readonly users: readonly NatsUser[];
  /** What all streams together may take on disk; 4 GiB. */
  readonly storeBytesMax?: number;
}

const host = '127.0.0.1';

export function startNats(options: NatsOptions): Promise<Server> {
  const program = binary(options.binaries, 'nats-server');
  const administrator = options.users[0];
  if (!administrator) throw new Error('nats-server needs at least one user');
  const directory = resolve(options.directory);
  makeOwnFolder(directory);
  const configFile = join(directory, 'nats-server.json');

  return onPort(options.port, port => {
    // nats-server reads JSON as a form of its own configuration language.
    const config = {
      listen: `${bindAddress(program, host)}:${port}`,
      server_name: 'holdfast-local',
      max_payload: 2 * 1024 * 1024,
      jetstream: {
        store_dir: join(directory, 'jetstream'),
        max_memory_store: 64 * 1024 * 1024,
        max_file_store: options.storeBytesMax ?? 4 * 1024 * 1024 * 1024,
        sync_interval: 'always',
      },
      authorization: {
        users: options.users.map(({ user, password, permissions }) => ({
          user,
          password,
          ...(permissions && {
            permissions: {
              publish: allowOnly(permissions.publish),
              subscribe: allowOnly(permissions.subscribe),
            },
          }),
        })),
      },
    };
    writeFileSync(configFile, JSON.stringify(config, null, 2), { mode: 0o600 });
    const credentials = JSON.stringify({
      user: administrator.user,
      pass: administrator.password,
      verbose: false,
      pedantic: false,
    });
    return launchServer({
      ...commandLine({
        binary: program,
        name: 'nats',
        args: ['--config', configFile],
        directory,
        publish: { host, port },
      }),
      name: 'nats',
      host,
      port,
      url: `nats://${encodeURIComponent(administrator.user)}:${encodeURIComponent(administrator.password)}@${host}:${port}`,
      directory,
      stopSignal: 'SIGTERM',
      stopTimeoutMs: 15_000,
      // It reads its streams before it answers.
      readyTimeoutMs: 120_000,
      answers: () =>
        talk(host, port, `CONNECT ${credentials}\r\nPING\r\n`, received => received.includes('PONG\r\n')),
    });
  });
}

/** An empty list of allowed subjects would mean all of them. */
function allowOnly(subjects: readonly string[]): object {
  return subjects.length > 0 ? { allow: subjects } : { deny: '>' };
}
