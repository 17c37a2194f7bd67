/**
 * The connection to the cloud: kept for ever, with jitter, and greeted after every connect and every few seconds (on a
 * metered link every few minutes, as `link-budget.ts` says).
 *
 *   connecting ─▶ greeting ──welcome──▶ open ──connection lost──▶ greeting …        close ─▶ closed
 *
 * A hello brings what history has settled of our logs and where it stands in the stream; notices after each commit
 * bring the same sooner, and may get lost. Invariant R: nothing here gives up.
 */
import { type JetStreamClient, jetstream } from '@nats-io/jetstream';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import type { Logger } from 'pino';
import { WIRE_VERSION } from '../protocol/batch-codec.ts';
import {
  type GatewayReport,
  type Hello,
  HelloReply,
  Settled,
  type StreamPosition,
} from '../protocol/handshake.ts';
import type { LogId } from '../protocol/ids.ts';
import { natsAddress } from '../protocol/nats-address.ts';
import { reconnectForEver } from '../protocol/nats-reconnect.ts';
import type { RangeSet } from '../protocol/range-set.ts';
import {
  helloSubject,
  inboxPrefix,
  ingestSubject,
  type Lane,
  partitionOf,
  settledSubject,
} from '../protocol/subjects.ts';
import type { GatewayConfig } from './config.ts';
import type { LinkAccount } from './link-account.ts';

/** What the cloud has said of itself. */
export interface Welcome {
  readonly partitions: number;
  /** Identity of the stream. */
  readonly streamCreated: string;
}

export interface CloudLink {
  /** Null until the first welcome, and while the connection is down. */
  readonly welcome: Welcome | null;
  readonly connected: boolean;
  /** What is wrong; null while all is well. */
  readonly reason: string | null;
  /**
   * Publishes a batch. Resolves with its sequence in the stream; rejects when the stream refuses, does not answer, or
   * the connection goes down.
   */
  publish(lane: Lane, bytes: Uint8Array): Promise<number>;
  /** Says once per reason what is wrong; the next thing that works ends it. */
  trouble(reason: string): void;
  close(): Promise<void>;
}

/** What a message and its answer cost besides their payloads: subjects, inbox, lengths. */
const REQUEST_OVERHEAD_BYTES = 300;
const HELLO_TIMEOUT_MS = 5000;
/** Before the first welcome nothing can be sent, so also a metered link asks again soon. */
const UNWELCOME_HELLO_MS = 30_000;
const PUBLISH_TIMEOUT_MS = 10_000;
const CONNECT_AGAIN_MS = 2500;
const RECONNECT_MS = { least: 200, jitter: 1000 };
/** Without an answer to a ping for so long, a link that failed to answer otherwise is given up. */
const ANSWER_TO_PING_MS = 10_000;

export function openCloudLink(options: {
  config: Pick<GatewayConfig, 'site' | 'gateway' | 'natsUrl'>;
  /** Logs to ask about, and where they end. */
  logs: () => readonly { readonly logId: LogId; readonly nextSequence: number }[];
  report: () => GatewayReport;
  account: LinkAccount;
  logger: Logger;
  /** `whole`: it is all that history has settled of the logs asked about, else what came on top. */
  onSettled: (settled: Readonly<Record<string, RangeSet>>, stream: StreamPosition, whole: boolean) => void;
  /** What of the logs asked about a confirmed backup of history has, all of it. */
  onCovered: (covered: Readonly<Record<string, RangeSet>>) => void;
  /** The cloud keeps another history than before: nothing that was settled counts. */
  onOtherHistory: () => void;
  /** Something was told that may allow to go on. */
  onNews: () => void;
}): CloudLink {
  const { config, account, logger } = options;
  const { site, gateway } = config;
  const address = natsAddress(config.natsUrl);
  let nats: NatsConnection | undefined;
  let stream: JetStreamClient | undefined;
  let connected = false;
  let closed = false;
  let historyId: string | undefined;
  let welcome: Welcome | null = null;
  let lastReason = '';
  /** Called when the connection goes down: nobody waits for an answer that cannot come any more. */
  const onLinkDown = new Set<() => void>();
  let notices = 0;

  let asking = false;
  let helloTimer = setTimeout(greetAgain, nextHelloMs());
  const connecting = account.measure(keepConnecting);

  function greetAgain(): void {
    helloTimer = setTimeout(greetAgain, nextHelloMs());
    void hello();
  }

  function nextHelloMs(): number {
    const { helloMs, exhausted } = account.now();
    return welcome || exhausted ? helloMs : Math.min(helloMs, UNWELCOME_HELLO_MS);
  }

  async function keepConnecting(): Promise<void> {
    while (!closed) {
      try {
        const opened = await connect({
          ...address,
          name: `${site}/${gateway}`,
          inboxPrefix: inboxPrefix(site, gateway),
          // Soon, as a dashboard waits; spread over a second, as a whole region may come back at once.
          ...reconnectForEver(RECONNECT_MS),
          pingInterval: account.pingMs,
          maxPingOut: 2,
        });
        nats = opened;
        stream = jetstream(opened);
        opened.subscribe(settledSubject(site, gateway), {
          callback: (error, message) => void (error ?? onNotice(message.data)),
        });
        onConnected();
        void followStatus(opened);
        return;
      } catch (error) {
        trouble(`NATS at ${address.servers.join(', ')}: ${(error as Error).message}`);
        await pause(CONNECT_AGAIN_MS * (0.5 + Math.random()));
      }
    }
  }

  async function followStatus(connection: NatsConnection): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type === 'reconnect') onConnected();
      if (status.type === 'disconnect') {
        connected = false;
        for (const giveUp of onLinkDown) giveUp();
        trouble('the link to the cloud is down');
      }
    }
  }

  function onConnected(): void {
    connected = true;
    logger.info('uplink: connected');
    lastReason = '';
    void hello();
  }

  function trouble(reason: string): void {
    if (reason !== lastReason) logger.warn({ reason }, 'uplink: trouble, trying again');
    lastReason = reason;
  }

  async function hello(): Promise<void> {
    if (!nats || !connected || closed) return;
    const logs = options.logs();
    const message = JSON.stringify({
      wireVersions: [WIRE_VERSION],
      logs: logs.map(log => log.logId),
      ends: Object.fromEntries(logs.map(log => [log.logId, log.nextSequence])),
      report: options.report(),
    } satisfies Hello);
    const noticesBefore = notices;
    try {
      const answer = await nats.request(helloSubject(site, gateway), message, { timeout: HELLO_TIMEOUT_MS });
      account.greeted(Buffer.byteLength(message) + answer.data.length + REQUEST_OVERHEAD_BYTES);
      const reply = HelloReply.parse(answer.json());
      if (reply.outcome === 'refused') trouble(`the cloud refuses this gateway: ${reply.reason}`);
      else if (reply.outcome === 'unavailable') trouble(`the cloud cannot answer now: ${reply.reason}`);
      // A notice that came meanwhile may know more than this answer.
      else onWelcome(reply, notices === noticesBefore);
    } catch (error) {
      trouble(`the cloud does not answer: ${(error as Error).message}`);
      await leaveDeadLink();
    }
  }

  /** Where pings are rare, a link that carries nothing any more is noticed when an answer stays away. */
  async function leaveDeadLink(): Promise<void> {
    if (!account.metered || !nats || !connected || asking) return;
    asking = true;
    const silent = new Promise<'silent'>(resolve => {
      setTimeout(() => resolve('silent'), ANSWER_TO_PING_MS).unref();
    });
    const outcome = await Promise.race([nats.flush().catch(() => 'gone'), silent]);
    asking = false;
    if (outcome === 'silent' && connected && !closed) {
      await account.measure(() => nats!.reconnect()).catch(() => undefined);
    }
  }

  function onWelcome(reply: Extract<HelloReply, { outcome: 'welcome' }>, whole: boolean): void {
    if (historyId !== undefined && historyId !== reply.historyId) {
      logger.warn(
        { was: historyId, is: reply.historyId },
        'the cloud has another history: it gets all that is still here',
      );
      options.onOtherHistory();
    }
    historyId = reply.historyId;
    options.onSettled(reply.settled, reply.stream, whole);
    options.onCovered(reply.covered);
    welcome = { partitions: reply.partitions, streamCreated: reply.stream.created };
    if (lastReason) logger.info('uplink: the cloud answers');
    lastReason = '';
    options.onNews();
  }

  function onNotice(data: Uint8Array): void {
    try {
      const { settled, stream } = Settled.parse(JSON.parse(Buffer.from(data).toString()));
      notices++;
      // A later stream, told by its owner before the next hello would.
      if (welcome && stream.created > welcome.streamCreated)
        welcome = { ...welcome, streamCreated: stream.created };
      options.onSettled(settled, stream, false);
      options.onNews();
    } catch (error) {
      trouble(`a settled notice makes no sense: ${(error as Error).message}`);
    }
  }

  return {
    get welcome() {
      return connected ? welcome : null;
    },
    get connected() {
      return connected;
    },
    get reason() {
      return lastReason || null;
    },
    publish(lane, bytes) {
      const subject = ingestSubject(partitionOf(site, welcome!.partitions), lane, site, gateway);
      const published = stream!.publish(subject, bytes, { timeout: PUBLISH_TIMEOUT_MS });
      return new Promise((resolve, reject) => {
        const giveUp = () => reject(new Error('the link to the cloud went down'));
        onLinkDown.add(giveUp);
        published
          .then(
            ack => resolve(ack.seq),
            error => {
              reject(error);
              void leaveDeadLink();
            },
          )
          .finally(() => onLinkDown.delete(giveUp));
      });
    },
    trouble,
    async close() {
      closed = true;
      clearTimeout(helloTimer);
      await connecting;
      await nats?.close();
    },
  };
}

const pause = (ms: number) => new Promise<void>(resolve => setTimeout(resolve, ms));
