/** A channel: who is told of incidents, and of which. Pure. */
import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { isSiteId } from '../../protocol/ids.ts';
import type { Severity } from '../actors/incident.ts';

export interface Channel {
  readonly id: string;
  readonly kind: 'webhook' | 'nats';
  /** webhook: the URL; nats: first token of the subject `<target>.<site>`. */
  readonly target: string;
  /** webhook: `whsec_` and base64, as Standard Webhooks writes it; null for nats. */
  readonly secret: string | null;
  /** Null: every site. */
  readonly sites: readonly string[] | null;
  readonly severityMin: Severity;
  readonly enabled: boolean;
}

const SEVERITIES = ['info', 'warning', 'critical'] as const;

export const isFor = (channel: Channel, incident: { site: string; severity: Severity }): boolean =>
  channel.enabled &&
  (channel.sites === null || channel.sites.includes(incident.site)) &&
  SEVERITIES.indexOf(incident.severity) >= SEVERITIES.indexOf(channel.severityMin);

/** All channels of one installation; each costs a place in every incident's transaction. */
export const CHANNELS_MAX = 100;

const SECRET_BYTES = 32;
const SECRET_PREFIX = 'whsec_';

export const newSecret = (): string => SECRET_PREFIX + randomBytes(SECRET_BYTES).toString('base64');

/** The key itself. Of a secret that `ChannelChange` let through. */
export const secretBytes = (secret: string): Buffer =>
  Buffer.from(secret.slice(SECRET_PREFIX.length), 'base64');

const isSecret = (text: string): boolean =>
  /^whsec_[A-Za-z0-9+/]+={0,2}$/.test(text) &&
  secretBytes(text).length >= 24 &&
  secretBytes(text).length <= 64;

const common = {
  sites: z
    .array(z.string().refine(isSiteId, 'not a site name'))
    .min(1, 'name at least one site, or leave it out for all')
    .max(1000)
    .nullable()
    .default(null),
  severityMin: z.enum(SEVERITIES).default('info'),
  enabled: z.boolean().default(true),
};

/** What `PUT /channels/{id}` takes. Without a secret a webhook keeps the one it has, or gets a new one. */
export const ChannelChange = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('webhook'),
    target: z
      .url({ protocol: /^https?$/ })
      .max(2000)
      .refine(hasNoCredentials, 'a URL without user and password'),
    secret: z.string().refine(isSecret, 'whsec_ and base64 of 24 to 64 bytes').optional(),
    ...common,
  }),
  z.strictObject({
    kind: z.literal('nats'),
    target: z
      .string()
      .regex(/^[A-Za-z0-9_-]{1,64}$/, 'one token of a NATS subject')
      .refine(token => !RESERVED.has(token), 'a subject that Holdfast itself uses')
      .default('incidents'),
    ...common,
  }),
]);
export type ChannelChange = z.output<typeof ChannelChange>;

/** First tokens of Holdfast's own subjects: a page must never be taken for one of its messages (S). */
const RESERVED = new Set(['cluster', 'hello', 'ingest', 'push', 'registry', 'settled']);

export const isChannelId = (text: string): boolean => /^[A-Za-z0-9_-]{1,64}$/.test(text);

function hasNoCredentials(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { username, password } = new URL(text);
  return username === '' && password === '';
}
