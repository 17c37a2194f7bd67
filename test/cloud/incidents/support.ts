/** What the tests of incidents share: transitions, a receiver of webhooks, and an owner that delivers. */
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import type { Pool } from 'pg';
import { Webhook } from 'standardwebhooks';
import type { IncidentTransition } from '../../../cloud/actors/incident.ts';
import { type Delivery, openDelivery } from '../../../cloud/incidents/delivery.ts';
import type { OwnedPartition } from '../../../cloud/incidents/delivery-table.ts';
import type { Server } from '../../../deploy/local/server.ts';
import { natsAddress } from '../../../protocol/nats-address.ts';
import { item, openWriter, type TestWriter } from '../history.ts';
import { atEnd, eventually, silentLogger } from '../servers.ts';

export const OPENED_AT = Date.UTC(2026, 0, 15, 12);

export const opened = (id: string, more: Partial<IncidentTransition> = {}): IncidentTransition => ({
  id,
  rule: 'too-hot',
  kind: 'threshold',
  severity: 'warning',
  site: 'demo',
  device: 'oven',
  metric: 'heat',
  summary: 'heat 31 is above 30',
  threshold: 30,
  openedAt: OPENED_AT,
  openedValue: 31,
  clearedAt: null,
  clearedValue: null,
  late: false,
  ...more,
});

export const cleared = (id: string, more: Partial<IncidentTransition> = {}): IncidentTransition =>
  opened(id, { clearedAt: OPENED_AT + 60_000, clearedValue: 20, ...more });

export interface Received {
  readonly id: string;
  readonly type: string;
  readonly incident: string;
  readonly data: Record<string, unknown>;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  readonly status: number | null;
}

export interface Receiver {
  readonly url: string;
  readonly received: Received[];
  /** The status of the next answers; null: it never answers. */
  answer: (request: { readonly incident: string; readonly type: string }) => number | null;
  /** `type incident` of what was answered with 200, in order. */
  taken(): string[];
}

export async function openReceiver(): Promise<Receiver> {
  const received: Received[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString();
    const { type, data } = JSON.parse(body) as { type: string; data: Record<string, unknown> };
    const incident = String(data.incident ?? '');
    const status = receiver.answer({ incident, type });
    received.push({
      id: String(request.headers['webhook-id']),
      type,
      incident,
      data,
      headers: request.headers,
      body,
      status,
    });
    if (status !== null) response.writeHead(status, { location: '/elsewhere' }).end('thanks');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  atEnd(async () => {
    server.closeAllConnections();
    server.close();
  });
  const receiver: Receiver = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`,
    received,
    answer: () => 200,
    taken: () =>
      received
        .filter(({ status }) => status === 200)
        .map(({ type, incident }) => `${type} ${incident}`.trim()),
  };
  return receiver;
}

/** Throws when the signature is not what the standard's own library makes of it. */
export function verify({ body, headers }: Received, secret: string): void {
  new Webhook(secret).verify(body, headers as Record<string, string>);
}

export const SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;

export async function addWebhook(
  pool: Pool,
  id: string,
  url: string,
  more: { sites?: string[]; severityMin?: string } = {},
): Promise<void> {
  await pool.query(
    `insert into holdfast.channel (id, kind, target, secret, sites, severity_min) values ($1, 'webhook', $2, $3, $4, $5)`,
    [id, url, SECRET, more.sites ?? null, more.severityMin ?? 'info'],
  );
}

export async function connectNats(server: Server): Promise<NatsConnection> {
  const nats = await connect({ ...natsAddress(server.url), reconnect: true, maxReconnectAttempts: -1 });
  atEnd(() => nats.close());
  return nats;
}

export interface Owner {
  readonly delivery: Delivery;
  readonly epoch: number;
  /** What the owner believes it owns. */
  owned: OwnedPartition[];
  /** Writes them the way history does. */
  settle(...transitions: IncidentTransition[]): Promise<void>;
  deliverNow(...transitions: IncidentTransition[]): void;
}

/** An owner of partition 0 that delivers; a later one fences it. */
export async function openOwner(pool: Pool, nats: NatsConnection): Promise<Owner> {
  const writer: TestWriter = await openWriter(pool);
  const { epoch } = writer;
  const owner = { owned: [{ id: 0, epoch }] };
  const delivery = openDelivery({
    pool,
    nats,
    logger: silentLogger,
    owned: () => owner.owned,
    allowPrivate: true,
  });
  atEnd(() => delivery.close(2000));
  await delivery.workOff();
  return Object.assign(owner, {
    delivery,
    epoch,
    settle: (...transitions: IncidentTransition[]) => writer.write(item(null, { transitions })),
    deliverNow: (...transitions: IncidentTransition[]) => delivery.deliverNow(0, epoch, transitions),
  });
}

/** `event channel state` of one incident's deliveries. */
export async function deliveries(pool: Pool, incident: string): Promise<string[]> {
  const { rows } = await pool.query<{ line: string }>(
    `select event || ' ' || channel || ' ' || state as line from holdfast.delivery where incident = $1 order by 1`,
    [incident],
  );
  return rows.map(({ line }) => line);
}

export const untilTaken = (receiver: Receiver, ...lines: string[]): Promise<void> =>
  eventually(`the receiver has ${lines.join(', ')}`, () =>
    lines.every(line => receiver.taken().includes(line)),
  );
