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
import type { NatsConnection } from '@nats-io/transport-node';
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { IncidentTransition } from '../actors/incident.ts';
import { publishIncidents } from '../push/bus.ts';
import { type Channel, isFor } from './channel.ts';
import { type ChannelQueue, openChannelQueue, type Result } from './channel-queue.ts';
import { newDeliveryMemory, REMEMBERED_MAX } from './delivery-memory.ts';
import {
  forgetOld,
  type MaintenanceWindow,
  type OwnedPartition,
  readChannels,
  readDelivered,
  readMaintenance,
  takeDue,
} from './delivery-table.ts';
import { publishPage } from './nats-page.ts';
import { type Message, type Page, pageKey } from './page.ts';
import { newTenures } from './tenures.ts';
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
  takenMs: 15_000,
  keptMs: 30 * 86_400_000,
} as const;

const HOUR_MS = 3_600_000;

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
  const memory = newDeliveryMemory(pool);
  const tenures = newTenures(options.owned);
  const { holds } = tenures;
  let lastReason = '';
  let forgotAt = 0;
  let closed = false;
  let passing: Promise<void> | null = null;
  let again = false;

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
      if (result.state === 'delivered') memory.remember(channel, key);
      memory.note({
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
    if (!channel?.enabled) return Promise.resolve(switchedOff);
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
      if (memory.has(channel.id, key)) continue;
      if (event === 'opened') {
        if (isFor(channel, incident) && !underMaintenance(incident.site, incident.openedAt))
          queue.offer(page);
        continue;
      }
      // Whether it was told of the opening only Postgres knows otherwise; it must not hear the clear first.
      if (memory.has(channel.id, opening) || queue.has(opening)) queue.offer(page);
    }
  }

  async function pass(): Promise<void> {
    await memory.flush();
    tenures.forgetEnded();
    const owned = tenures.held();
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
      if (memory.has(channel, key)) {
        // Delivered before its row was there, or the note was lost with a connection.
        onResult(channel, [page], { state: 'delivered', attempts: Math.max(1, attempts), digest: null });
      } else channels.get(channel)?.queue.offer(page, attempts);
    }
    if (Date.now() - forgotAt > HOUR_MS) {
      await forgetOld(pool, deliveryLimits.keptMs);
      forgotAt = Date.now();
    }
  }

  /** What earlier owners delivered, so that an opening that is replayed is not told again. */
  async function learn(owned: readonly OwnedPartition[]): Promise<void> {
    const fresh = owned.filter(({ id, epoch }) => !tenures.isKnown(id, epoch));
    if (fresh.length === 0) return;
    const delivered = await readDelivered(
      pool,
      fresh.map(({ id }) => id),
      REMEMBERED_MAX / 2,
    );
    for (const [incident, event, channel] of delivered.reverse())
      memory.remember(channel, pageKey(incident, event));
    for (const { id, epoch } of fresh) tenures.setKnown(id, epoch);
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
    memory
      .flush()
      .catch(error =>
        logger.warn(
          { reason: (error as Error).message, pages: memory.waiting },
          'incidents: deliveries not noted',
        ),
      );

  return {
    deliverNow(partition, epoch, transitions) {
      if (transitions.length === 0 || !holds(partition, epoch)) return;
      publishIncidents(nats, transitions);
      void tenures
        .whenKnown(partition, epoch, () => void workOff())
        .then(() => {
          // A closed one that came late is nobody's concern; a clear of one that was told is found in Postgres.
          for (const transition of transitions) if (!transition.late) deliver(partition, epoch, transition);
        });
    },
    workOff,
    async release(partition) {
      tenures.release(partition);
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
      tenures.end();
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
      memory.dropPending();
      await Promise.race([noteWhatIsLeft(), new Promise(resolve => setTimeout(resolve, deadlineMs).unref())]);
    },
  };
}

const switchedOff: SendOutcome = {
  outcome: 'refused',
  reason: 'the channel is switched off',
  final: false,
  retryAfterMs: null,
};
