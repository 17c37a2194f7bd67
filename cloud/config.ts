/** The cloud node's configuration, from the environment. Every key has a default but the three servers. */
import { hostname } from 'node:os';
import { z } from 'zod';
import { isNatsAddress, NATS_ADDRESS_RULE } from '../protocol/nats-address.ts';
import { PARTITIONS_DEFAULT } from '../protocol/subjects.ts';
import type { Retention } from './history/retention.ts';
import type { TimescaleWish } from './history/timescale.ts';

const MiB = 1024 * 1024;
const DAY_MS = 86_400_000;
const whole = z.coerce.number().int();

export const roles = ['actors', 'push', 'api'] as const;
export type Role = (typeof roles)[number];
const isRole = (text: string): text is Role => (roles as readonly string[]).includes(text);

const Environment = z.object({
  /** nats://user:password@host:port, or several with commas. */
  HOLDFAST_NATS_URL: z.string().refine(isNatsAddress, NATS_ADDRESS_RULE),
  /** redis://[:password@]host:port */
  HOLDFAST_REDIS_URL: z.string().min(1),
  /** postgres://user:password@host:port/database */
  HOLDFAST_POSTGRES_URL: z.string().min(1),
  HOLDFAST_HTTP_HOST: z.string().default('127.0.0.1'),
  /** 0 takes a free port. */
  HOLDFAST_HTTP_PORT: whole.min(0).max(65_535).default(8080),
  /** Name of this node, shown as the owner of partitions. */
  HOLDFAST_NODE: z.string().default(() => `${hostname()}-${process.pid}`),
  /** What this node does: `actors` takes partitions, `push` serves dashboards, `api` answers over HTTP. */
  HOLDFAST_ROLES: z
    .string()
    .default(roles.join(','))
    .transform(text => new Set(text.split(',').map(word => word.trim())))
    .refine(
      (names): names is Set<Role> => names.size > 0 && [...names].every(isRole),
      `one or more of ${roles.join(', ')}, with commas`,
    ),
  /** Read once, when the history is made; later starts take the history's own. */
  HOLDFAST_PARTITIONS: whole.min(1).max(1024).default(PARTITIONS_DEFAULT),
  HOLDFAST_STREAM_BYTES_MAX: whole.min(MiB).default(1024 * MiB),
  /** Copies of the ingest stream: 1, or 3 on a NATS cluster. */
  HOLDFAST_STREAM_REPLICAS: whole.min(1).max(5).default(1),
  /** Decoded batches that wait for Postgres; beyond it the stream absorbs. */
  HOLDFAST_HISTORY_QUEUE_BYTES_MAX: whole.min(MiB).default(256 * MiB),
  HOLDFAST_HISTORY_COMMIT_INTERVAL_MS: whole.min(0).default(100),
  /** How long history keeps every reading, the hours of their aggregates, and the days. */
  HOLDFAST_RETENTION_DAYS: z.coerce.number().positive().default(90),
  HOLDFAST_RETENTION_MINUTELY_DAYS: whole.min(1).max(36_500).default(90),
  HOLDFAST_RETENTION_HOURLY_DAYS: whole.min(1).max(36_500).default(365),
  HOLDFAST_RETENTION_DAILY_DAYS: whole.min(1).max(36_500).default(365),
  HOLDFAST_RETENTION_INCIDENT_DAYS: whole.min(31).max(36_500).default(730),
  /** An hour is over that long after its end, and is compacted. */
  HOLDFAST_COMPACT_AFTER_MINUTES: z.coerce.number().min(0).default(10),
  /** `off`: history stays on plain tables, though the server has TimescaleDB. */
  HOLDFAST_TIMESCALE: z.enum(['auto', 'off']).default('auto'),
  HOLDFAST_TWIN_TTL_DAYS: z.coerce.number().positive().default(30),
  /** A twin that its gateway has not heard for that long leaves memory, and comes back with its next reading. */
  HOLDFAST_TWIN_IDLE_MINUTES: z.coerce.number().positive().default(60),
  /** Who sends it may change things over the API; without one only who comes over loopback may. */
  HOLDFAST_ADMIN_TOKEN: z.string().min(16, 'must have at least 16 characters').optional(),
  /** `allow`: webhooks may go to addresses of the private network, and of this machine. */
  HOLDFAST_WEBHOOK_PRIVATE: z.enum(['refuse', 'allow']).default('refuse'),
  /** Where the demo's links are cut and restored (deploy/demo/links.ts); absent everywhere else. */
  HOLDFAST_DEMO_CONTROL_URL: z.url({ protocol: /^http$/ }).optional(),
  HOLDFAST_LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal']).default('info'),
});

export interface CloudConfig {
  natsUrl: string;
  redisUrl: string;
  postgresUrl: string;
  httpHost: string;
  httpPort: number;
  node: string;
  roles: ReadonlySet<Role>;
  partitions: number;
  streamBytesMax: number;
  streamReplicas: number;
  historyQueueBytesMax: number;
  commitIntervalMs: number;
  retentionMs: number;
  /** Days. */
  retention: Retention;
  /** Of incidents, from their end. */
  incidentRetentionMs: number;
  compactAfterMs: number;
  timescale: TimescaleWish;
  twinTtlSeconds: number;
  twinIdleMs: number;
  /** Null: changes over loopback only. */
  adminToken: string | null;
  /** Whether webhooks may go to private addresses. */
  webhookPrivate: boolean;
  /** Null: this is no demo. */
  demoControlUrl: string | null;
  logLevel: string;
}

/** @returns the configuration, or one line per key that is wrong. */
export function readCloudConfig(
  environment: Record<string, string | undefined>,
): { ok: true; config: CloudConfig } | { ok: false; problems: string[] } {
  const parsed = Environment.safeParse(environment);
  if (!parsed.success) {
    return {
      ok: false,
      problems: parsed.error.issues.map(issue => `${issue.path.join('.')}: ${issue.message}`),
    };
  }
  const env = parsed.data;
  return {
    ok: true,
    config: {
      natsUrl: env.HOLDFAST_NATS_URL,
      redisUrl: env.HOLDFAST_REDIS_URL,
      postgresUrl: env.HOLDFAST_POSTGRES_URL,
      httpHost: env.HOLDFAST_HTTP_HOST,
      httpPort: env.HOLDFAST_HTTP_PORT,
      node: env.HOLDFAST_NODE,
      roles: env.HOLDFAST_ROLES,
      partitions: env.HOLDFAST_PARTITIONS,
      streamBytesMax: env.HOLDFAST_STREAM_BYTES_MAX,
      streamReplicas: env.HOLDFAST_STREAM_REPLICAS,
      historyQueueBytesMax: env.HOLDFAST_HISTORY_QUEUE_BYTES_MAX,
      commitIntervalMs: env.HOLDFAST_HISTORY_COMMIT_INTERVAL_MS,
      retentionMs: env.HOLDFAST_RETENTION_DAYS * DAY_MS,
      retention: {
        raw: Math.ceil(env.HOLDFAST_RETENTION_DAYS),
        minutely: env.HOLDFAST_RETENTION_MINUTELY_DAYS,
        hourly: env.HOLDFAST_RETENTION_HOURLY_DAYS,
        daily: env.HOLDFAST_RETENTION_DAILY_DAYS,
      },
      incidentRetentionMs: env.HOLDFAST_RETENTION_INCIDENT_DAYS * DAY_MS,
      compactAfterMs: env.HOLDFAST_COMPACT_AFTER_MINUTES * 60_000,
      timescale: env.HOLDFAST_TIMESCALE,
      twinTtlSeconds: Math.round((env.HOLDFAST_TWIN_TTL_DAYS * DAY_MS) / 1000),
      twinIdleMs: env.HOLDFAST_TWIN_IDLE_MINUTES * 60_000,
      adminToken: env.HOLDFAST_ADMIN_TOKEN ?? null,
      webhookPrivate: env.HOLDFAST_WEBHOOK_PRIVATE === 'allow',
      demoControlUrl: env.HOLDFAST_DEMO_CONTROL_URL ?? null,
      logLevel: env.HOLDFAST_LOG_LEVEL,
    },
  };
}
