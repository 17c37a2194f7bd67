/**
 * What the cloud tells gateways: the answer to their `hello` and a notice after each commit. The gateway forgets a
 * message only after one of the two has said that history settled it (A).
 *
 * Any node answers any gateway: the answer is read from Postgres in one statement, so that ledger and cursor are of
 * the same moment. Site and gateway come from the subject, which the gateway's credentials pin (S).
 *
 *   hello ─▶ noted as heard, at once ─▶ waits, bounded ─▶ answered, a few at a time
 *                                         └ too many wait: unavailable (F)
 */
import type { Msg, NatsConnection, Subscription } from '@nats-io/transport-node';
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { z } from 'zod';
import { WIRE_VERSION } from '../protocol/batch-codec.ts';
import { Hello, type StreamPosition } from '../protocol/handshake.ts';
import type { GatewayId, SiteId } from '../protocol/ids.ts';
import { HELLO_FILTER, parseHelloSubject, partitionOf, settledSubject } from '../protocol/subjects.ts';
import {
  type GatewayMemory,
  type GatewayPresence,
  loadGateways,
  openGatewayMemory,
} from './gateway-memory.ts';
import type { SettledNotice } from './history/writer.ts';
import type { StreamCursor } from './partition.ts';

export interface GatewayLink {
  /** By `site/gateway`; the one heard longest ago comes first. */
  readonly gateways: ReadonlyMap<string, GatewayPresence>;
  /** When it was last heard, if that is too long ago; null while it is up. Milliseconds since 1970. */
  silentSince(presence: GatewayPresence): number | null;
  /** Since when none of the site's gateways is heard any more; null when one is, or none is known. */
  siteSilentSince(site: string): number | null;
  /** Hellos get through again: whoever is there has a moment to say so before it counts as silent. */
  listenAnew(): void;
  /** Writes down what was heard, for a node that starts later. */
  flush(): Promise<void>;
  /** `created` is the identity of the stream that the commit read from. */
  announce(
    notices: readonly SettledNotice[],
    created: string,
    cursors: ReadonlyMap<string, StreamCursor>,
  ): void;
  close(): void;
}

/** Gateways remembered for the page; one that was not heard for the longest makes room. */
const GATEWAYS_MAX = 10_000;
/** Three hellos; of a metered link, which may say hello every five minutes only, two. */
const SILENT_AFTER_MS = { unmetered: 15_000, metered: 660_000 } as const;

/** Hellos that are answered at the same time, and that wait for it; a gateway whose hello finds no room asks again. */
const ANSWERS_AT_ONCE = 8;
const ANSWERS_WAITING_MAX = 1000;
/** Of what is wrong with a hello; it may be wrong in very many places. */
const REFUSAL_CHARACTERS_MAX = 500;

export async function openGatewayLink(options: {
  nats: NatsConnection;
  pool: Pool;
  historyId: string;
  partitions: number;
  streamCreated: () => Promise<string>;
  logger: Logger;
}): Promise<GatewayLink> {
  const { nats, pool, logger } = options;
  const memory: GatewayMemory = openGatewayMemory(pool, ({ site, gateway }, reason) =>
    logger.warn({ site, gateway, reason }, "a gateway's report is refused by PostgreSQL"),
  );
  const gateways = new Map<string, GatewayPresence>();
  for (const presence of await loadGateways(pool, GATEWAYS_MAX)) {
    gateways.set(`${presence.site}/${presence.gateway}`, presence);
  }
  let listeningSince = Date.now();
  const waiting: Asked[] = [];
  let answering = 0;
  // Every node hears every gateway; one of them answers, and writes down what it heard.
  const subscriptions: Subscription[] = [
    nats.subscribe(HELLO_FILTER, {
      callback(error, message) {
        if (!error) note(message);
      },
    }),
    nats.subscribe(HELLO_FILTER, {
      queue: 'hello',
      callback(error, message) {
        if (error) logger.error({ err: error }, 'hello service ended');
        else receive(message);
      },
    }),
  ];

  function note(message: Msg): void {
    const address = parseHelloSubject(message.subject);
    if (!address) return;
    const hello = readHello(message);
    if (typeof hello !== 'string') remember({ ...address, lastHelloAt: Date.now(), report: hello.report });
  }

  function receive(message: Msg): void {
    const address = parseHelloSubject(message.subject);
    if (!address) return;
    const hello = readHello(message);
    if (typeof hello === 'string') {
      reply(message, { outcome: 'refused', reason: hello });
      return;
    }
    memory.heard({ ...address, lastHelloAt: Date.now(), report: hello.report }, hello.ends);
    if (waiting.length >= ANSWERS_WAITING_MAX) {
      reply(message, { outcome: 'unavailable', reason: 'too many gateways ask at the same time' });
      return;
    }
    waiting.push({ ...address, hello, message });
    if (answering < ANSWERS_AT_ONCE) void answerWaiting();
  }

  async function answerWaiting(): Promise<void> {
    answering++;
    for (let asked = waiting.shift(); asked; asked = waiting.shift()) {
      const { site, gateway, hello, message } = asked;
      try {
        reply(message, await answer({ site, gateway }, hello));
      } catch (error) {
        const reason = (error as Error).message;
        logger.debug({ site, gateway, reason }, 'hello not answered');
        reply(message, { outcome: 'unavailable', reason });
      }
    }
    answering--;
  }

  /** What cannot be sent is not: whoever asked asks again. */
  function reply(message: Msg, content: object): void {
    try {
      message.respond(JSON.stringify(content));
    } catch (error) {
      logger.debug({ subject: message.subject, reason: (error as Error).message }, 'hello not answered');
    }
  }

  async function answer({ site, gateway }: { site: SiteId; gateway: GatewayId }, hello: KnownHello) {
    if (!hello.wireVersions.includes(WIRE_VERSION)) {
      const reason = `this cloud reads wire version ${WIRE_VERSION}, the gateway writes ${hello.wireVersions.join(', ')}`;
      return { outcome: 'refused', reason };
    }
    const { rows } = await pool.query<{
      settled: Record<string, string>;
      covered: Record<string, string>;
      cursors: CursorRow[];
    }>(
      `select coalesce((select json_object_agg(log_id, settled::text) from holdfast.gateway_log
                         where site = $1 and gateway = $2 and log_id = any ($3)), '{}') as settled,
              coalesce((select json_object_agg(log_id, covered::text) from holdfast.gateway_log
                         where site = $1 and gateway = $2 and log_id = any ($3) and covered <> '{}'), '{}') as covered,
              coalesce((select json_agg(json_build_object(
                          'lane', lane, 'created', stream_created, 'sequence', stream_sequence))
                          from holdfast.stream_cursor where partition = $4), '[]') as cursors`,
      [site, gateway, hello.logs, partitionOf(site, options.partitions)],
    );
    const { settled, covered, cursors } = rows[0]!;
    return {
      outcome: 'welcome',
      historyId: options.historyId,
      partitions: options.partitions,
      stream: positionIn(await options.streamCreated(), new Map(cursors.map(row => [row.lane, row]))),
      settled,
      covered,
    };
  }

  function remember(presence: GatewayPresence): void {
    const key = `${presence.site}/${presence.gateway}`;
    gateways.delete(key);
    gateways.set(key, presence);
    if (gateways.size > GATEWAYS_MAX) gateways.delete(gateways.keys().next().value!);
  }

  function silentSince({ lastHelloAt, report }: GatewayPresence): number | null {
    const waitedMs = Date.now() - Math.max(lastHelloAt, listeningSince);
    const link = report.dataBudget === null ? 'unmetered' : 'metered';
    return waitedMs > SILENT_AFTER_MS[link] ? lastHelloAt : null;
  }

  return {
    gateways,
    silentSince,
    siteSilentSince(site) {
      let since: number | null = null;
      for (const presence of gateways.values()) {
        if (presence.site !== site) continue;
        const silent = silentSince(presence);
        if (silent === null) return null;
        since = Math.max(since ?? 0, silent);
      }
      return since;
    },
    listenAnew() {
      listeningSince = Date.now();
    },
    flush: memory.flush,
    announce(notices, created, cursors) {
      const stream = positionIn(created, cursors);
      const byGateway = Map.groupBy(notices, notice => settledSubject(notice.site, notice.gateway));
      for (const [subject, of] of byGateway) {
        const settled: Record<string, string> = {};
        for (const [logId, ranges] of Map.groupBy(of, notice => notice.logId)) {
          settled[logId] = ranges
            .map(notice => notice.ranges)
            .reduce((a, b) => a.union(b))
            .toString();
        }
        nats.publish(subject, JSON.stringify({ stream, settled }));
      }
    },
    close() {
      for (const subscription of subscriptions) subscription.unsubscribe();
      for (const { message } of waiting.splice(0)) {
        reply(message, { outcome: 'unavailable', reason: 'this cloud node is closing' });
      }
    },
  };
}

type KnownHello = z.output<typeof Hello>;

interface Asked {
  readonly site: SiteId;
  readonly gateway: GatewayId;
  readonly hello: KnownHello;
  readonly message: Msg;
}

/** @returns the hello, or what is wrong with it */
function readHello(message: Msg): KnownHello | string {
  let content: unknown;
  try {
    content = message.json();
  } catch (error) {
    return (error as Error).message.slice(0, REFUSAL_CHARACTERS_MAX);
  }
  const parsed = Hello.safeParse(content);
  return parsed.success ? parsed.data : parsed.error.message.slice(0, REFUSAL_CHARACTERS_MAX);
}

interface CursorRow {
  lane: string;
  created: string;
  sequence: number;
}

/** A cursor of another stream says nothing about this one. */
function positionIn(created: string, cursors: ReadonlyMap<string, StreamCursor>): StreamPosition {
  const sequenceOf = (lane: string) => {
    const cursor = cursors.get(lane);
    return cursor?.created === created ? cursor.sequence : 0;
  };
  return { created, live: sequenceOf('live'), backfill: sequenceOf('backfill') };
}
