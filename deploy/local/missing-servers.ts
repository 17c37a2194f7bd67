/** The one message for a machine on which a server is nowhere to be had. */
import { oldestVersion } from './binaries.ts';
import { type ServerName, serverUrlVariables } from './server.ts';

export interface Missing {
  readonly server: ServerName;
  readonly reasons: readonly string[];
}

const titles: Readonly<Record<ServerName, string>> = {
  mosquitto: 'Mosquitto',
  nats: 'nats-server',
  redis: 'Redis',
  postgres: 'PostgreSQL',
};

type System = 'Debian, Ubuntu' | 'Fedora' | 'macOS';

const installs: Readonly<
  Record<System, { command: string; packages: Readonly<Record<ServerName, string>> }>
> = {
  'Debian, Ubuntu': {
    command: 'sudo apt-get install',
    packages: {
      mosquitto: 'mosquitto mosquitto-clients',
      nats: 'nats-server',
      redis: 'redis-server',
      postgres: 'postgresql',
    },
  },
  Fedora: {
    command: 'sudo dnf install',
    packages: {
      mosquitto: 'mosquitto',
      nats: 'nats-server',
      redis: 'valkey-compat-redis',
      postgres: 'postgresql-server',
    },
  },
  macOS: {
    command: 'brew install',
    packages: { mosquitto: 'mosquitto', nats: 'nats-server', redis: 'redis', postgres: 'postgresql@17' },
  },
};

export function missingServersMessage(missing: readonly Missing[]): string {
  const servers = missing.map(({ server }) => server);
  return [
    'These servers are needed and were not found:',
    ...missing.flatMap(({ server, reasons }) => [
      `  ${titles[server]} ${oldestVersion[server]} or newer`,
      ...[...new Set(reasons)].map(reason => `    - ${reason}`),
    ]),
    'Install them:',
    ...Object.entries(installs).map(
      ([system, { command, packages }]) =>
        `  ${system}: ${command} ${servers.map(server => packages[server]).join(' ')}`,
    ),
    '  or start Docker',
    ...(servers.includes('nats')
      ? [
          '  (nats-server is one file; where the package is older, download it from its project and put it on the PATH)',
        ]
      : []),
    'or name running ones by URL:',
    ...servers.map(server => `  ${serverUrlVariables[server]}=${examples[server]}`),
  ].join('\n');
}

const examples: Readonly<Record<ServerName, string>> = {
  mosquitto: 'mqtt://user:password@host:1883',
  nats: 'nats://user:password@host:4222',
  redis: 'redis://user:password@host:6379',
  postgres: 'postgres://user:password@host:5432/database',
};
