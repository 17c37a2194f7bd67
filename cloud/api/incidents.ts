/** `/incidents` and `/channels`: what happened, who has seen to it, and who is told. */

import type { TemplatedApp } from 'uWebSockets.js';
import { randomUUID } from 'node:crypto';
import type { NatsConnection } from '@nats-io/transport-node';
import type { Pool } from 'pg';
import { z } from 'zod';
import { isDeviceId, isSiteId } from '../../protocol/ids.ts';
import { type Channel, ChannelChange, isChannelId } from '../incidents/channel.ts';
import { countPages, deleteChannel, findChannel, putChannel } from '../incidents/channel-table.ts';
import { readChannels } from '../incidents/delivery-table.ts';
import {
  acknowledgeIncident,
  clearIncident,
  findIncident,
  listIncidents,
  type PageStart,
} from '../incidents/incident-table.ts';
import { publishPage } from '../incidents/nats-page.ts';
import { testMessage } from '../incidents/page.ts';
import { namesPrivateAddress } from '../incidents/private-addresses.ts';
import { sendWebhook } from '../incidents/webhook.ts';
import {
  type ChangeAccess,
  type ChangeMethod,
  type ChangeRequest,
  changeJson,
  getJson,
  Problem,
} from './http.ts';

const noNul = (text: string) => !text.includes('\0');
const time = z.union([
  z.coerce.number().min(Date.UTC(0)).max(8.64e15),
  z.iso.datetime({ offset: true }).transform(text => Date.parse(text)),
]);

const ListQuery = z.object({
  site: z.string().refine(isSiteId, 'not a site name').optional(),
  device: z.string().refine(isDeviceId, 'not a device name').optional(),
  severity: z.enum(['info', 'warning', 'critical']).optional(),
  state: z.enum(['open', 'acknowledged', 'cleared']).optional(),
  late: z.stringbool().optional(),
  from: time.optional(),
  to: time.optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  after: z.string().max(600).transform(pageStart).optional(),
});

const Signed = z.strictObject({
  by: z.string().trim().min(1).max(100).refine(noNul).default('somebody'),
  note: z.string().trim().max(1000).refine(noNul).optional(),
});

export function registerIncidentRoutes(options: {
  app: TemplatedApp;
  pool: Pool;
  nats: NatsConnection;
  access: ChangeAccess;
  /** Whether webhooks may go to private addresses. */
  webhookPrivate: boolean;
  onError: (route: string, error: unknown) => void;
}): void {
  const { app, pool, nats, access, webhookPrivate, onError } = options;
  const change = (method: ChangeMethod, pattern: string, handle: (request: ChangeRequest) => unknown) =>
    changeJson(app, method, pattern, handle, access, onError);

  getJson(
    app,
    '/incidents',
    async ({ query }) => {
      const { incidents, next } = await listIncidents(pool, ListQuery.parse(Object.fromEntries(query)));
      return { incidents, next: next && `${next.openedAtUs}:${next.id}` };
    },
    onError,
  );
  getJson(
    app,
    '/incidents/:id',
    async ({ parameters: [id = ''] }) =>
      (await findIncident(pool, id.replaceAll('\0', ''))) ?? noIncident(id),
    onError,
  );
  change('post', '/incidents/:id/acknowledge', async ({ parameters: [id = ''], body }) => {
    const { by, note } = Signed.parse(body ?? {});
    const incident =
      (await acknowledgeIncident(pool, id.replaceAll('\0', ''), by, note ?? null)) ?? noIncident(id);
    if (incident.acknowledgedAt === null) throw new Problem(409, 'Conflict', 'it has cleared already');
    return incident;
  });
  change('post', '/incidents/:id/clear', async ({ parameters: [id = ''], body }) => {
    const { by, note } = Signed.parse(body ?? {});
    return (await clearIncident(pool, id.replaceAll('\0', ''), by, note ?? null)) ?? noIncident(id);
  });

  getJson(
    app,
    '/channels',
    async () => {
      const pages = await countPages(pool);
      return {
        channels: (await readChannels(pool)).map(channel => ({
          ...shown(channel),
          ...(pages.get(channel.id) ?? { pending: 0, failed: 0 }),
        })),
      };
    },
    onError,
  );
  change('put', '/channels/:id', async ({ parameters: [id = ''], body }) => {
    if (!isChannelId(id))
      throw new Problem(400, 'Bad request', 'a channel name has 1 to 64 of A-Z a-z 0-9 _ -');
    const wanted = ChannelChange.parse(body);
    if (wanted.kind === 'webhook' && !webhookPrivate && namesPrivateAddress(new URL(wanted.target))) {
      throw new Problem(400, 'Bad request', 'a private address; HOLDFAST_WEBHOOK_PRIVATE=allow takes it');
    }
    const put = await putChannel(pool, id, wanted);
    if (put === 'too-many') throw new Problem(409, 'Conflict', 'there are as many channels as there may be');
    // Shown this once.
    return { ...shown(put.channel), ...(put.secretIsNew ? { secret: put.channel.secret } : {}) };
  });
  change('del', '/channels/:id', async ({ parameters: [id = ''] }) => {
    if (!(await deleteChannel(pool, id.replaceAll('\0', '')))) noChannel(id);
  });
  change('post', '/channels/:id/test', async ({ parameters: [id = ''] }) => {
    const channel = (await findChannel(pool, id.replaceAll('\0', ''))) ?? noChannel(id);
    const nowMs = Date.now();
    const message = testMessage(channel.id, nowMs, randomUUID());
    const outcome =
      channel.kind === 'nats'
        ? await publishPage(nats, channel.target, message)
        : await sendWebhook({
            url: channel.target,
            secret: channel.secret!,
            message,
            allowPrivate: webhookPrivate,
            nowMs,
          });
    return outcome.outcome === 'delivered'
      ? { delivered: true, id: message.id, reason: null }
      : { delivered: false, id: message.id, reason: outcome.reason };
  });
}

/** Without its secrets: that of the signature, and the path of the URL, which is one with many a receiver. */
function shown({ secret: _, ...channel }: Channel) {
  if (channel.kind === 'nats') return channel;
  const { origin, pathname } = new URL(channel.target);
  return { ...channel, target: pathname === '/' ? origin : `${origin}/…` };
}

function noIncident(id: string): never {
  throw new Problem(404, 'Not found', `no incident ${id}`);
}

function noChannel(id: string): never {
  throw new Problem(404, 'Not found', `no channel ${id}`);
}

/** The `next` of an earlier page: microseconds, a colon, the incident's id. */
function pageStart(text: string, context: z.RefinementCtx): PageStart {
  const [, openedAt, id] = /^(-?\d{1,16}):(.+)$/s.exec(text) ?? [];
  if (openedAt !== undefined && id !== undefined && noNul(id)) return { openedAtUs: Number(openedAt), id };
  context.addIssue({ code: 'custom', message: 'not what an earlier answer had as next' });
  return z.NEVER;
}
