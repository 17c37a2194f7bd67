/** The gateway's configuration, from the environment. */
import { z } from 'zod';
import { type GatewayId, ID_RULE, isGatewayId, isSiteId, type SiteId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { isNatsAddress, NATS_ADDRESS_RULE } from '../protocol/nats-address.ts';
import { BUDGET_RULE, HOURS_RULE, type LinkTerms, parseBudget, parseHours } from './link-terms.ts';

const MiB = 1024 * 1024;
const whole = z.coerce.number().int();

/** @param parse gives null for what is none */
const written = <T>(parse: (text: string) => T | null, rule: string) =>
  z.string().transform((text, context): T => {
    const parsed = parse(text);
    if (parsed !== null) return parsed;
    context.addIssue({ code: 'custom', message: rule });
    return z.NEVER;
  });

const Environment = z.object({
  HOLDFAST_SITE: z.string().refine(isSiteId, `a site name: ${ID_RULE}`),
  HOLDFAST_GATEWAY: z.string().refine(isGatewayId, `a gateway name, unique within the site: ${ID_RULE}`),
  /** mqtt://user:password@host:port; mqtts for TLS. */
  HOLDFAST_MQTT_URL: z.url({ protocol: /^(mqtts?|tcp|tls|wss?)$/ }),
  /** nats://user:password@host:port, or several with commas. */
  HOLDFAST_NATS_URL: z.string().refine(isNatsAddress, NATS_ADDRESS_RULE),
  /** The disk buffer's folder; one gateway process each. */
  HOLDFAST_DATA_DIR: z.string().min(1),
  HOLDFAST_BUFFER_BYTES_MAX: whole.min(4 * MiB).default(1024 * MiB),
  /** What gives way when the buffer is nearly full: the detail of the oldest telemetry, or the intake. */
  HOLDFAST_BUFFER_NEAR_FULL: z.enum(['thin', 'push-back']).default('thin'),
  /** Topic filters to take messages from, with commas. */
  HOLDFAST_MQTT_TOPICS: z.string().min(1).default('#'),
  /** Messages the broker may send ahead of their PUBACK. */
  HOLDFAST_MQTT_RECEIVE_MAXIMUM: whole.min(1).max(65_535).default(8192),
  /** For the gateway's presence, where the broker replaces client ids by user names: another user at the same broker. */
  HOLDFAST_MQTT_PRESENCE_URL: z.url({ protocol: /^(mqtts?|tcp|tls|wss?)$/ }).optional(),
  /** Gateways of one site that stand in for one another share this name, and by it one session at the broker. */
  HOLDFAST_STANDBY_GROUP: z.string().refine(isGatewayId, `a group name: ${ID_RULE}`).optional(),
  /** The active gateway's silence after which another one takes over. */
  HOLDFAST_TAKE_OVER_AFTER_MS: whole.min(1000).max(3_600_000).default(15_000),
  /** Gateways that take turns by an MQTT 5 shared subscription; only with a broker that redistributes. */
  HOLDFAST_MQTT_SHARE_GROUP: z.string().refine(isGatewayId, `a group name: ${ID_RULE}`).optional(),
  HOLDFAST_MQTT_SHARE_ANYWAY: z.enum(['yes', 'no']).default('no'),
  HOLDFAST_BATCH_MESSAGES_MAX: whole.min(1).max(limits.batchMessagesMax).default(2000),
  /** Batches leave at least this far apart, unless full. */
  HOLDFAST_FLUSH_INTERVAL_MS: z.coerce.number().min(0).max(60_000).default(5),
  /** What a metered link may carry, both ways; without it the link is not metered. */
  HOLDFAST_LINK_BUDGET: written(parseBudget, BUDGET_RULE).optional(),
  /** The longest that telemetry is gathered to spare the budget. */
  HOLDFAST_LINK_GATHER_SECONDS_MAX: z.coerce.number().min(1).max(86_400).default(300),
  /** Local hours in which a backlog may be sent; without it always. */
  HOLDFAST_BACKFILL_HOURS: written(parseHours, HOURS_RULE).optional(),
  /** Batches leave no faster than this. */
  HOLDFAST_LINK_BYTES_PER_SECOND: whole.min(100).optional(),
  /** Loopback port for `/metrics`; without it they are at the status socket alone. */
  HOLDFAST_METRICS_PORT: whole.min(1).max(65_535).optional(),
  /** What messages of other topics and payloads become: docs/mapping.md. */
  HOLDFAST_MAPPING_FILE: z.string().min(1).optional(),
  HOLDFAST_LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal']).default('info'),
});

export interface GatewayConfig {
  site: SiteId;
  gateway: GatewayId;
  mqttUrl: string;
  natsUrl: string;
  dataDirectory: string;
  bufferBytesMax: number;
  bufferNearFull: 'thin' | 'push-back';
  topics: string[];
  receiveMaximum: number;
  presenceUrl: string;
  /** Null: a gateway that is alone. */
  standbyGroup: GatewayId | null;
  takeOverAfterMs: number;
  /** Null: it gets every message. */
  shareGroup: GatewayId | null;
  /** Share also with a broker that loses a dead member's messages. */
  shareAnyway: boolean;
  batchMessagesMax: number;
  flushIntervalMs: number;
  link: LinkTerms;
  /** Null: none. */
  metricsPort: number | null;
  /** Null: the common shapes alone. */
  mappingFile: string | null;
  logLevel: string;
}

/** @returns the configuration, or one line per key that is wrong. */
export function readGatewayConfig(
  environment: Record<string, string | undefined>,
): { ok: true; config: GatewayConfig } | { ok: false; problems: string[] } {
  const parsed = Environment.safeParse(environment);
  if (!parsed.success) {
    return {
      ok: false,
      problems: parsed.error.issues.map(issue => `${issue.path.join('.')}: ${issue.message}`),
    };
  }
  const env = parsed.data;
  if (env.HOLDFAST_STANDBY_GROUP !== undefined && env.HOLDFAST_MQTT_SHARE_GROUP !== undefined) {
    const problem = 'HOLDFAST_MQTT_SHARE_GROUP: not together with HOLDFAST_STANDBY_GROUP';
    return { ok: false, problems: [problem] };
  }
  return {
    ok: true,
    config: {
      site: env.HOLDFAST_SITE,
      gateway: env.HOLDFAST_GATEWAY,
      mqttUrl: env.HOLDFAST_MQTT_URL,
      natsUrl: env.HOLDFAST_NATS_URL,
      dataDirectory: env.HOLDFAST_DATA_DIR,
      bufferBytesMax: env.HOLDFAST_BUFFER_BYTES_MAX,
      bufferNearFull: env.HOLDFAST_BUFFER_NEAR_FULL,
      topics: env.HOLDFAST_MQTT_TOPICS.split(',').map(topic => topic.trim()),
      receiveMaximum: env.HOLDFAST_MQTT_RECEIVE_MAXIMUM,
      presenceUrl: env.HOLDFAST_MQTT_PRESENCE_URL ?? env.HOLDFAST_MQTT_URL,
      standbyGroup: env.HOLDFAST_STANDBY_GROUP ?? null,
      takeOverAfterMs: env.HOLDFAST_TAKE_OVER_AFTER_MS,
      shareGroup: env.HOLDFAST_MQTT_SHARE_GROUP ?? null,
      shareAnyway: env.HOLDFAST_MQTT_SHARE_ANYWAY === 'yes',
      batchMessagesMax: env.HOLDFAST_BATCH_MESSAGES_MAX,
      flushIntervalMs: env.HOLDFAST_FLUSH_INTERVAL_MS,
      link: {
        budget: env.HOLDFAST_LINK_BUDGET ?? null,
        backfillHours: env.HOLDFAST_BACKFILL_HOURS ?? [],
        bytesPerSecond: env.HOLDFAST_LINK_BYTES_PER_SECOND ?? null,
        gatherMsMax: env.HOLDFAST_LINK_GATHER_SECONDS_MAX * 1000,
      },
      metricsPort: env.HOLDFAST_METRICS_PORT ?? null,
      mappingFile: env.HOLDFAST_MAPPING_FILE ?? null,
      logLevel: env.HOLDFAST_LOG_LEVEL,
    },
  };
}
