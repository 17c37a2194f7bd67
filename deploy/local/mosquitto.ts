/**
 * A private Mosquitto for one site. Its acknowledgement to a device is the broker's own promise; what it costs to
 * keep that promise is in the saving options below (invariant A).
 *
 * Mosquitto keeps its state in memory and rewrites the whole file at each save, inside its only thread. The file
 * holds retained messages, sessions, and what is queued for clients: small while the gateway keeps up, hundreds of
 * megabytes after it has been away for long. Saving by a count of changes therefore makes the broker slowest when
 * the gateway is away. Measured on 2 cores, 100,000 QoS 1 messages of 85 bytes, messages/s while the subscriber
 * keeps up / is away: every 100 changes 4,300 / 1,600; 1,000 changes 22,000 / 8,400; 10,000 changes 28,000 / 33,000;
 * every 5 s 26,000 / 41,000. A fixed time also bounds the loss at low rates, where a count is never reached.
 */
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Binaries, binary } from './binaries.ts';
import { bindAddress, commandLine } from './command-line.ts';
import { makeOwnFolder } from './own-folder.ts';
import { onPort } from './ports.ts';
import { launchServer } from './process.ts';
import { mosquittoPasswordLine } from './secrets.ts';
import type { Server } from './server.ts';
import { talk } from './tcp-probe.ts';

export interface MosquittoUser {
  readonly user: string;
  readonly password: string;
}

export interface MosquittoOptions {
  readonly binaries: Binaries;
  readonly directory: string;
  readonly port?: number;
  /** Address to listen on; 127.0.0.1. With another one, such as 0.0.0.0, the network reaches the broker. */
  readonly host?: string;
  /** At least one; nobody else is let in. The URL carries the first. */
  readonly users: readonly MosquittoUser[];
  /** When to write the broker's state to disk, which is what a power cut or a kill takes back; `{ seconds: 5 }`. */
  readonly save?: { readonly changes: number } | { readonly seconds: number };
  /** Whoever a client says it is, its user is its client id. */
  readonly userIsClientId?: boolean;
  /** What may wait for one client that is away; beyond it Mosquitto drops the newest. 256 MiB. */
  readonly queuedBytesMax?: number;
}

const loopback = '127.0.0.1';

export function startMosquitto(options: MosquittoOptions): Promise<Server> {
  const program = binary(options.binaries, 'mosquitto');
  const administrator = options.users[0];
  if (!administrator) throw new Error('mosquitto needs at least one user');
  const directory = resolve(options.directory);
  const host = options.host ?? loopback;
  const reachedAt = host === '0.0.0.0' ? loopback : host;
  makeOwnFolder(directory);
  makeOwnFolder(join(directory, 'data'));
  const passwordFile = join(directory, 'passwords');
  const configFile = join(directory, 'mosquitto.conf');
  const lines = options.users.map(({ user, password }) => mosquittoPasswordLine(user, password));
  writeFileSync(passwordFile, `${lines.join('\n')}\n`, { mode: 0o600 });

  return onPort(options.port, port => {
    writeFileSync(
      configFile,
      mosquittoConfig(options, { host: bindAddress(program, host), port, directory, passwordFile }),
      {
        mode: 0o600,
      },
    );
    return launchServer({
      ...commandLine({
        binary: program,
        name: 'mosquitto',
        args: ['-c', configFile],
        directory,
        publish: { host, port },
      }),
      name: 'mosquitto',
      host,
      port,
      url: `mqtt://${encodeURIComponent(administrator.user)}:${encodeURIComponent(administrator.password)}@${reachedAt}:${port}`,
      directory,
      stopSignal: 'SIGTERM',
      stopTimeoutMs: 15_000,
      readyTimeoutMs: 60_000,
      answers: () =>
        talk(
          reachedAt,
          port,
          connectPacket(administrator),
          received => received.length >= 4 && received[3] === 0,
        ),
    });
  });
}

interface Place {
  readonly host: string;
  readonly port: number;
  readonly directory: string;
  readonly passwordFile: string;
}

function mosquittoConfig(options: MosquittoOptions, place: Place): string {
  const save = options.save ?? { seconds: 5 };
  return [
    `listener ${place.port} ${place.host}`,
    ...(options.userIsClientId ? ['use_username_as_clientid true'] : []),
    'allow_anonymous false',
    `password_file ${place.passwordFile}`,
    // Started as root it would become the user mosquitto, who may not exist and cannot read this folder.
    ...(process.getuid?.() === 0 ? ['user root'] : []),
    'set_tcp_nodelay true',
    'max_packet_size 16777216',
    // 12 hours: sleepy devices are let in, a dead connection still ends some day.
    'max_keepalive 43200',
    // No limit but the client's own receive maximum, on which the gateway's flow control rests.
    'max_inflight_messages 0',
    // Bytes are the bound (invariant F); a count alone would be far too small or no bound at all.
    'max_queued_messages 0',
    `max_queued_bytes ${options.queuedBytesMax ?? 256 * 1024 * 1024}`,
    'persistence true',
    `persistence_location ${join(place.directory, 'data')}/`,
    'persistent_client_expiration 14d',
    ...('changes' in save
      ? ['autosave_on_changes true', `autosave_interval ${save.changes}`]
      : ['autosave_on_changes false', `autosave_interval ${save.seconds}`]),
    'log_dest stderr',
    'log_type error',
    'log_type warning',
    'log_type notice',
    '',
  ].join('\n');
}

/** MQTT 3.1.1 CONNECT with a clean session. */
function connectPacket({ user, password }: MosquittoUser): Buffer {
  const text = (value: string) => {
    const bytes = Buffer.from(value, 'utf8');
    return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes]);
  };
  const body = Buffer.concat([
    text('MQTT'),
    Buffer.from([4, 0b1100_0010, 0, 10]),
    text(`holdfast-probe-${process.pid}`),
    text(user),
    text(password),
  ]);
  const length = body.length < 128 ? [body.length] : [(body.length % 128) | 0x80, body.length >> 7];
  return Buffer.concat([Buffer.from([0x10, ...length]), body]);
}
