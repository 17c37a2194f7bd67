/** The gateway's configuration, from the environment. */
import { z } from 'zod';
import { type GatewayId, ID_RULE, isGatewayId, isSiteId, type SiteId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import { isNatsAddress, NATS_ADDRESS_RULE } from '../protocol/nats-address.ts';

const MiB = 1024 * 1024;
const whole = z.coerce.number().int();

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
  /** Topic filters to take messages from, with commas. */
  HOLDFAST_MQTT_TOPICS: z.string().min(1).default('#'),
  /** Messages the broker may send ahead of their PUBACK. */
  HOLDFAST_MQTT_RECEIVE_MAXIMUM: whole.min(1).max(65_535).default(8192),
  HOLDFAST_BATCH_MESSAGES_MAX: whole.min(1).max(limits.batchMessagesMax).default(2000),
  /** Batches leave at least this far apart, unless full. */
  HOLDFAST_FLUSH_INTERVAL_MS: z.coerce.number().min(0).max(60_000).default(5),
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
  topics: string[];
  receiveMaximum: number;
  batchMessagesMax: number;
  flushIntervalMs: number;
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
  return {
    ok: true,
    config: {
      site: env.HOLDFAST_SITE,
      gateway: env.HOLDFAST_GATEWAY,
      mqttUrl: env.HOLDFAST_MQTT_URL,
      natsUrl: env.HOLDFAST_NATS_URL,
      dataDirectory: env.HOLDFAST_DATA_DIR,
      bufferBytesMax: env.HOLDFAST_BUFFER_BYTES_MAX,
      topics: env.HOLDFAST_MQTT_TOPICS.split(',').map(topic => topic.trim()),
      receiveMaximum: env.HOLDFAST_MQTT_RECEIVE_MAXIMUM,
      batchMessagesMax: env.HOLDFAST_BATCH_MESSAGES_MAX,
      flushIntervalMs: env.HOLDFAST_FLUSH_INTERVAL_MS,
      mappingFile: env.HOLDFAST_MAPPING_FILE ?? null,
      logLevel: env.HOLDFAST_LOG_LEVEL,
    },
  };
}
