/**
 * A private Redis for live state. It keeps nothing on disk: what is in it is rebuilt from history (invariant R), and
 * at its memory bound it refuses writes instead of forgetting keys (invariant F).
 */
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Binaries, binary } from './binaries.ts';
import { bindAddress, commandLine } from './command-line.ts';
import { makeOwnFolder } from './own-folder.ts';
import { onPort } from './ports.ts';
import { launchServer } from './process.ts';
import { keptPassword } from './secrets.ts';
import type { Server } from './server.ts';
import { talk } from './tcp-probe.ts';

export interface RedisOptions {
  readonly binaries: Binaries;
  readonly directory: string;
  readonly port?: number;
  /** Beyond it writes are refused; 512 MiB. */
  readonly memoryBytesMax?: number;
}

const host = '127.0.0.1';

/** The URL carries the generated password of the user `default`. */
export function startRedis(options: RedisOptions): Promise<Server> {
  const program = binary(options.binaries, 'redis-server');
  const directory = resolve(options.directory);
  makeOwnFolder(directory);
  const password = keptPassword(join(directory, 'password'));
  const configFile = join(directory, 'redis.conf');

  return onPort(options.port, port => {
    writeFileSync(
      configFile,
      [
        `bind ${bindAddress(program, host)}`,
        `port ${port}`,
        'protected-mode yes',
        `requirepass ${password}`,
        'daemonize no',
        'save ""',
        'appendonly no',
        `dir ${JSON.stringify(directory)}`,
        `maxmemory ${options.memoryBytesMax ?? 512 * 1024 * 1024}`,
        'maxmemory-policy noeviction',
        '',
      ].join('\n'),
      { mode: 0o600 },
    );
    return launchServer({
      ...commandLine({
        binary: program,
        name: 'redis',
        args: [configFile],
        directory,
        publish: { host, port },
      }),
      name: 'redis',
      host,
      port,
      url: `redis://default:${password}@${host}:${port}`,
      directory,
      stopSignal: 'SIGTERM',
      stopTimeoutMs: 5_000,
      readyTimeoutMs: 30_000,
      answers: () =>
        talk(host, port, `AUTH ${password}\r\nPING\r\n`, received => received.includes('+OK\r\n+PONG\r\n')),
    });
  });
}
