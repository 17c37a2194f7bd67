/**
 * Delivery of incidents by the owner of their partition: at least once, in order per incident, by two ways that meet
 * in one queue per channel.
 *
 *   Redis answered 'written' ─▶ deliverNow ─┐                        ┌─▶ remembered, noted in Postgres
 *                                           ├─▶ queue of the channel ┤
 *   rows of table delivery ───▶ work off ───┘                        └─▶ tried again, failed after 24 h
 *
 * So a page leaves at once, Postgres or not, and one that was lost with its node is found in Postgres. A page is sent
 * twice only when a node dies, or is stopped past its lease, between the receiver's answer and the note of it in
 * Postgres, or when the answer itself was lost; receivers drop it by `webhook-id`, which is the same.
 *
 * Invariants: D (nothing is started for a partition that is not held; rows are taken under its epoch), F (queues, notes
 * and what is remembered are bounded), H (channels have nothing in common but the table), R (the way through Postgres is
 * tried again for ever).
 */
import { headers, type NatsConnection } from '@nats-io/transport-node';
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { IncidentTransition } from '../actors/incident.ts';
import { publishIncidents } from '../push/bus.ts';
import { type Channel, isFor } from './channel.ts';
import { type ChannelQueue, openChannelQueue, type Result } from './channel-queue.ts';
import {
  type DeliveryNote,
  forgetOld,
  type MaintenanceWindow,
  type OwnedPartition,
  readChannels,
  readDelivered,
  readMaintenance,
  takeDue,
  writeNotes,
} from './delivery-table.ts';
import { type Message, type Page, pageKey } from './page.ts';
import { type SendOutcome, sendWebhook } from './webhook.ts';

export interface ChannelStatus {
  readonly id: string;
  /** Pages in memory that it has yet to be told. */
  readonly waiting: number;
  readonly delivered: number;
  readonly failedAttempts: number;
  /** Why the last attempt failed; null when it did not. */
  readonly trouble: string | null;
}

export interface Delivery {
  /**
   * Tells channels and dashboards of transitions that are safe in Redis's outbox: call it right after a fenced write
   * answered 'written'. Returns at once.
   */
  deliverNow(partition: number, epoch: number, transitions: readonly IncidentTransition[]): void;
  /**
   * Works off what Postgres has for the partitions we own; runs by itself every second, call it after a commit that had
   * incidents. Resolves when what is due is in the queues. Never rejects.
   */
  workOff(): Promise<void>;
  /**
   * Before a partition is handed over: starts nothing for it any more, waits for what is under way (at most one
   * attempt's time) and notes it. Never rejects.
   */
  release(partition: number): Promise<void>;
  status(): readonly ChannelStatus[];
  /** Stops, waits for what is under way up to the deadline, and writes the notes. Never rejects. */
  close(deadlineMs: number): Promise<void>;
}

export const deliveryLimits = {
  workOffMs: 1000,
  duePerChannelMax: 500,
  /** For how long rows that were taken are ours alone, within one epoch. */
  takenMs: 60_000,
  /** Delivered pages that are remembered; of older ones only Postgres knows. */
  rememberedMax: 100_000,
  /** Notes that wait for Postgres; beyond it the oldest is dropped, and that page is in memory only. */
  notesMax: 100_000,
  notesPerWrite: 1000,
  /** How long a page waits for what was delivered under earlier epochs to be read. */
  knownWaitMs: 2000,
  keptMs: 30 * 86_400_000,
} as const;

const HOUR_MS = 3_600_000;
const NATS_ANSWER_MS = 5000;

export function openDelivery(options: {
  pool: Pool;
  nats: NatsConnection;
  logger: Logger;
  /** Partitions that this node owns at this moment, by its own lease. */
  owned: () => readonly OwnedPartition[];
  /** Whether webhooks may go to private addresses: HOLDFAST_WEBHOOK_PRIVATE=allow. */
  allowPrivate: boolean;
}): Delivery {
  const { pool, nats, logger } = options;
  const channels = new Map<
    string,
    { channel: Channel; queue: ChannelQueue; delivered: number; failed: number }
  >();
  let maintenance: readonly MaintenanceWindow[] = [];
  /** `channel\npage` of what was delivered, oldest first. */
  const remembered = new Set<string>();
  let notes = new Map<string, DeliveryNote>();
  /** `partition:epoch` of which we know what was delivered before. */
  const known = new Set<string>();
  const knownWaiters = new Map<string, PromiseWithResolvers<void>>();
  const released = new Set<string>();
  let lastReason = '';
  let forgotAt = 0;
  let closed = false;
  let passing: Promise<void> | null = null;
  let again = false;

  const tenure = (partition: number, epoch: number): string => `${partition}:${epoch}`;
  const holds = (partition: number, epoch: number): boolean =>
    !closed &&
    !released.has(tenure(partition, epoch)) &&
    options.owned().some(owned => owned.id === partition && owned.epoch === epoch);
  const rememberedKey = (channel: string, key: string) => `${channel}\n${key}`;

  function remember(channel: string, key: string): void {
    remembered.add(rememberedKey(channel, key));
    if (remembered.size <= deliveryLimits.rememberedMax) return;
    for (const oldest of remembered) {
      remembered.delete(oldest);
      break;
    }
  }

  function note(key: string, entry: DeliveryNote): void {
    notes.delete(key);
    notes.set(key, entry);
    if (notes.size <= deliveryLimits.notesMax) return;
    for (const oldest of notes.keys()) {
      notes.delete(oldest);
      break;
    }
  }

  function onResult(channel: string, pages: readonly Page[], result: Result): void {
    const entry = channels.get(channel);
    if (entry) {
      if (result.state === 'delivered') entry.delivered += pages.length;
      else entry.failed++;
    }
    if (result.state === 'failed') {
      logger.warn(
        { channel, pages: pages.length, reason: result.reason },
        'incidents: given up to tell a channel',
      );
    }
    for (const { incident, event, partition } of pages) {
      const key = pageKey(incident.id, event);
      if (result.state === 'delivered') remember(channel, key);
      note(rememberedKey(channel, key), {
        incident: incident.id,
        event,
        channel,
        partition,
        state: result.state === 'retry' ? 'pending' : result.state,
        attempts: result.attempts,
        nextAt: result.state === 'retry' ? result.nextAt : null,
        reason: result.state === 'delivered' ? null : result.reason,
        digest: result.state === 'delivered' ? result.digest : null,
      });
    }
  }

  function send(id: string, message: Message): Promise<SendOutcome> {
    const channel = channels.get(id)?.channel;
    if (!channel?.enabled) return Promise.resolve(unsent('the channel is switched off'));
    if (channel.kind === 'nats') return publishPage(nats, channel.target, message);
    const { target: url, secret } = channel;
    const { allowPrivate } = options;
    return sendWebhook({ url, secret: secret!, message, allowPrivate, nowMs: Date.now() });
  }

  function applyChannels(read: readonly Channel[]): void {
    for (const [id, { queue }] of channels) {
      if (read.some(channel => channel.id === id)) continue;
      queue.close();
      channels.delete(id);
    }
    for (const channel of read) {
      const entry = channels.get(channel.id);
      if (entry) {
        entry.channel = channel;
        continue;
      }
      const queue = openChannelQueue({
        channel: channel.id,
        digests: channel.kind === 'webhook',
        send: message => send(channel.id, message),
        holds,
        onResult: (pages, result) => onResult(channel.id, pages, result),
      });
      channels.set(channel.id, { channel, queue, delivered: 0, failed: 0 });
    }
  }

  const underMaintenance = (site: string, at: number): boolean =>
    maintenance.some(window => window.site === site && at >= window.from && at < window.to);

  function deliver(partition: number, epoch: number, transition: IncidentTransition): void {
    const event = transition.clearedAt === null ? 'opened' : 'cleared';
    const { late: _, ...incident } = transition;
    const page: Page = { event, incident, partition, epoch, since: Date.now() };
    const key = pageKey(incident.id, event);
    const opening = pageKey(incident.id, 'opened');
    for (const { channel, queue } of channels.values()) {
      if (remembered.has(rememberedKey(channel.id, key))) continue;
      if (event === 'opened') {
        if (isFor(channel, incident) && !underMaintenance(incident.site, incident.openedAt))
          queue.offer(page);
        continue;
      }
      // Whether it was told of the opening only Postgres knows otherwise; it must not hear the clear first.
      if (remembered.has(rememberedKey(channel.id, opening)) || queue.has(opening)) queue.offer(page);
    }
  }

  async function pass(): Promise<void> {
    await flushNotes();
    forgetTenures();
    const owned = options.owned().filter(({ id, epoch }) => holds(id, epoch));
    applyChannels(await readChannels(pool));
    maintenance = await readMaintenance(pool);
    await learn(owned);
    for (const { queue } of channels.values()) queue.dropLost();
    for (const { channel, attempts, page } of await takeDue(
      pool,
      owned,
      deliveryLimits.duePerChannelMax,
      deliveryLimits.takenMs,
    )) {
      const key = pageKey(page.incident.id, page.event);
      if (remembered.has(rememberedKey(channel, key))) {
        // Delivered before its row was there, or the note was lost with a connection.
        onResult(channel, [page], { state: 'delivered', attempts: Math.max(1, attempts), digest: null });
      } else channels.get(channel)?.queue.offer(page, attempts);
    }
    if (Date.now() - forgotAt > HOUR_MS) {
      await forgetOld(pool, deliveryLimits.keptMs);
      forgotAt = Date.now();
    }
  }

  function forgetTenures(): void {
    const ours = new Set(options.owned().map(({ id, epoch }) => tenure(id, epoch)));
    for (const old of known) if (!ours.has(old)) known.delete(old);
    for (const old of released) if (!ours.has(old)) released.delete(old);
    for (const [old, { resolve }] of knownWaiters) {
      if (ours.has(old)) continue;
      knownWaiters.delete(old);
      resolve();
    }
  }

  /** What earlier owners delivered, so that an opening that is replayed is not told again. */
  async function learn(owned: readonly OwnedPartition[]): Promise<void> {
    const fresh = owned.filter(({ id, epoch }) => !known.has(tenure(id, epoch)));
    if (fresh.length === 0) return;
    const delivered = await readDelivered(
      pool,
      fresh.map(({ id }) => id),
      deliveryLimits.rememberedMax / 2,
    );
    for (const [incident, event, channel] of delivered.reverse()) remember(channel, pageKey(incident, event));
    for (const { id, epoch } of fresh) {
      known.add(tenure(id, epoch));
      knownWaiters.get(tenure(id, epoch))?.resolve();
      knownWaiters.delete(tenure(id, epoch));
    }
  }

  async function isKnown(partition: number, epoch: number): Promise<void> {
    const of = tenure(partition, epoch);
    if (known.has(of)) return;
    const waiter = knownWaiters.get(of) ?? Promise.withResolvers<void>();
    knownWaiters.set(of, waiter);
    void workOff();
    const timer = setTimeout(waiter.resolve, deliveryLimits.knownWaitMs);
    await waiter.promise;
    clearTimeout(timer);
  }

  /** Rejects when Postgres does not take them; they are kept. */
  async function flushNotes(): Promise<void> {
    while (notes.size > 0) {
      const batch = [...notes].slice(0, deliveryLimits.notesPerWrite);
      await writeNotes(
        pool,
        batch.map(([, entry]) => entry),
      );
      for (const [key, entry] of batch) if (notes.get(key) === entry) notes.delete(key);
    }
  }

  function workOff(): Promise<void> {
    if (passing !== null) {
      again = true;
      return passing;
    }
    passing = (async () => {
      do {
        again = false;
        try {
          await pass();
          if (lastReason !== '') logger.info('incidents: deliveries are read from Postgres again');
          lastReason = '';
        } catch (error) {
          const reason = (error as Error).message || String(error);
          if (reason !== lastReason) logger.warn({ reason }, 'incidents: deliveries not read, trying again');
          lastReason = reason;
        }
      } while (again && !closed && lastReason === '');
      passing = null;
    })();
    return passing;
  }

  const timer = setInterval(() => void workOff(), deliveryLimits.workOffMs);
  timer.unref();
  void workOff();

  const noteWhatIsLeft = () =>
    flushNotes().catch(error =>
      logger.warn({ reason: (error as Error).message, pages: notes.size }, 'incidents: deliveries not noted'),
    );

  return {
    deliverNow(partition, epoch, transitions) {
      if (transitions.length === 0 || !holds(partition, epoch)) return;
      publishIncidents(nats, transitions);
      void isKnown(partition, epoch).then(() => {
        // A closed one that came late is nobody's concern; a clear of one that was told is found in Postgres.
        for (const transition of transitions) if (!transition.late) deliver(partition, epoch, transition);
      });
    },
    workOff,
    async release(partition) {
      for (const { id, epoch } of options.owned()) if (id === partition) released.add(tenure(id, epoch));
      for (const { queue } of channels.values()) queue.dropLost();
      await Promise.all([...channels.values()].map(({ queue }) => queue.settled(partition)));
      await noteWhatIsLeft();
    },
    status: () =>
      [...channels.values()].map(({ channel, queue, delivered, failed }) => ({
        id: channel.id,
        waiting: queue.pages,
        delivered,
        failedAttempts: failed,
        trouble: queue.trouble,
      })),
    async close(deadlineMs) {
      closed = true;
      clearInterval(timer);
      for (const waiter of knownWaiters.values()) waiter.resolve();
      const queues = [...channels.values()].map(({ queue }) => queue);
      const partitions = options.owned().map(({ id }) => id);
      const deadline = Promise.withResolvers<void>();
      const timeout = setTimeout(deadline.resolve, deadlineMs);
      const idle = Promise.all(
        queues.flatMap(queue => partitions.map(partition => queue.settled(partition))),
      );
      await Promise.race([Promise.all([idle, passing]), deadline.promise]);
      clearTimeout(timeout);
      for (const queue of queues) queue.close();
      notes = new Map([...notes].filter(([, entry]) => entry.state !== 'pending'));
      await Promise.race([noteWhatIsLeft(), new Promise(resolve => setTimeout(resolve, deadlineMs).unref())]);
    },
  };
}

/** On `<target>.<site>`; a stream that captures it drops repeats by `Nats-Msg-Id`. Resolves when the server has it. */
export async function publishPage(
  nats: NatsConnection,
  target: string,
  message: Message,
): Promise<SendOutcome> {
  try {
    const of = headers();
    of.set('Nats-Msg-Id', message.id);
    nats.publish(`${target}.${message.site}`, message.body, { headers: of });
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new Error('NATS did not answer')), NATS_ANSWER_MS);
    await Promise.race([nats.flush(), late.promise]).finally(() => clearTimeout(timer));
    return { outcome: 'delivered' };
  } catch (error) {
    return unsent((error as Error).message);
  }
}

const unsent = (reason: string): SendOutcome => ({
  outcome: 'refused',
  reason,
  final: false,
  retryAfterMs: null,
});
