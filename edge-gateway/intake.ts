/**
 * Intake: takes messages from the site's broker and acknowledges each once it is on disk.
 *
 *   intake/taking.ts             what becomes of a message: disk, PUBACK, receipt
 *   intake/broker-session.ts     the connection it comes on: a persistent session
 *   intake/presence.ts           the connection that says the gateway is there, hears the others, reads what is retained
 *   intake/standby.ts, role.ts   which gateway of a group has the session
 *   intake/metadata.ts           retained metadata and availability
 *
 * The broker keeps what has no PUBACK and sends it again after a reconnect, or to the gateway that takes over.
 * Invariant A: nothing is acknowledged before it is on disk, whoever has the session.
 */
import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import { newClockWatch } from './clock-watch.ts';
import type { GatewayConfig } from './config.ts';
import { type BrokerSession, openBrokerSession } from './intake/broker-session.ts';
import { isRefusal } from './intake/broker-trouble.ts';
import { keptFile } from './intake/kept-files.ts';
import { type Metadata, newMetadata } from './intake/metadata.ts';
import { matchesFilter, metadataFilters } from './intake/metadata-topics.ts';
import { markTopic, type Role } from './intake/own-topics.ts';
import { openPresence } from './intake/presence.ts';
import { shareRefusal } from './intake/share-refusal.ts';
import { newStandby } from './intake/standby.ts';
import { newSubscriptions } from './intake/subscriptions.ts';
import { type IntakeClock, newTaking } from './intake/taking.ts';
import type { DiskBuffer } from './log/disk-buffer.ts';
import type { Message } from './log/frame.ts';
import { compileMapping, type MessageFacts } from './mapping/compile.ts';
import { type MappingConfig, NO_MAPPING } from './mapping/mapping-file.ts';
import type { Observer } from './mapping/sparkplug/observer.ts';
import type { Redelivery } from './redelivery.ts';

export interface Intake {
  readonly broker: { connected: boolean; reason: string | null };
  /** QoS 0 messages dropped because the buffer was full. */
  readonly dropped: number;
  /** Messages recognised as stored already. */
  readonly repeated: number;
  readonly role: Role;
  /** How often this process took the session of its group; 0 for a gateway that is alone. */
  readonly takeOvers: number;
  /** Jumps of the wall clock since the start. */
  readonly clock: { readonly jumps: number; readonly lastJumpMs: number };
  /** Topic → newest retained payload, of metadata and availability. */
  readonly metadata: Metadata['topics'];
  /** Takes no more messages; what has no PUBACK stays with the broker. */
  close(): Promise<void>;
}

const HOUSEKEEPING_MS = 1000;
/** A file that is written more often wears out the flash for nothing. */
const KEEP_METADATA_MS = 30_000;
/** Said at most this often. */
const CLOCK_LOG_MS = 3_600_000;
/** A gateway alone whose presence is thrown out this often has a broker that takes both connections for one. */
const PRESENCE_THROWN_OUT_MAX = 3;
/** A broker ends one connection in favour of another within this time. */
const SAME_MOMENT_MS = 100;

export function startIntake(options: {
  config: Pick<GatewayConfig, 'mqttUrl' | 'site' | 'gateway' | 'topics' | 'receiveMaximum'> &
    Partial<
      Pick<
        GatewayConfig,
        'dataDirectory' | 'presenceUrl' | 'standbyGroup' | 'takeOverAfterMs' | 'shareGroup' | 'shareAnyway'
      >
    >;
  buffer: DiskBuffer;
  redelivery: Redelivery;
  /** Says which retained topics are metadata, and which messages are presence. */
  mapping?: MappingConfig;
  facts?: MessageFacts;
  /** Where the mapping takes Sparkplug nodes. */
  sparkplug?: Observer | null;
  clock?: IntakeClock;
  logger: Logger;
}): Intake {
  const { config, buffer, redelivery, logger, mapping = NO_MAPPING } = options;
  const { site, gateway, dataDirectory = null, standbyGroup: group = null, shareGroup = null } = config;
  const clock = options.clock ?? { wallMs: () => Date.now(), monotonicMs: () => performance.now() };
  const broker: Intake['broker'] = { connected: false, reason: 'not connected yet' };
  const clientId = `holdfast-${site}-${group ?? gateway}`;
  const mark = { topic: markTopic(site, group ?? gateway), note: randomUUID() };
  const metadataFile = keptFile(dataDirectory, 'metadata.json', logger);
  const clockWatch = newClockWatch();
  const mapped = compileMapping(mapping);
  const metadata = newMetadata(isStatus, metadataFile.read());
  const subscriptions = newSubscriptions({
    clientId,
    topics: config.topics,
    alone: [mark.topic],
    shareGroup,
    file: keptFile(dataDirectory, 'subscriptions.json', logger),
  });
  const taking = newTaking({
    gateway,
    buffer,
    redelivery,
    facts: options.facts,
    sparkplug: options.sparkplug,
    clock,
    logger,
    onOwn: packet => {
      if (packet.topic === mark.topic && packet.payload.toString() === mark.note) onMark();
    },
    onMessage: ({ topic, payload, payloadBytes }) => {
      if (payload.length === payloadBytes) metadata.cameLive(topic, payload);
    },
    inDoubt: () => standby?.wasStopped ?? false,
    prove: (client, proven) => {
      client.publish(mark.topic, 'still here', { qos: 1 }, error => {
        // An answer that refuses it is an answer too: only a broken connection proves nothing.
        if (error && !isRefusal(error)) return;
        standby?.trust();
        proven();
      });
    },
  });
  let session: BrokerSession | null = null;
  let brokerVersion: string | null = null;
  let presenceThrownOut = 0;
  let keptAtMs = clock.monotonicMs();
  let clockSaidAtMs = Number.NEGATIVE_INFINITY;

  const standby =
    group === null
      ? null
      : newStandby({
          group,
          takeOverAfterMs: config.takeOverAfterMs ?? 15_000,
          logger,
          connect: () => {
            session = connectSession();
          },
          onRole: role => {
            if (role === 'standby') presence.setRole(role);
          },
        });
  const presence = openPresence({
    mqttUrl: config.presenceUrl ?? config.mqttUrl,
    site,
    gateway,
    group,
    role: standby ? 'standby' : 'active',
    heartbeatMs: standby ? (config.takeOverAfterMs ?? 15_000) / 3 : null,
    metadata: metadataFilters(mapping),
    nowMs: clock.wallMs,
    logger,
    onWatching,
    onBlind: () => {
      standby?.tell({ is: 'blind' });
      if (standby && !session?.client.connected) broker.connected = false;
    },
    onStatus: (from, status, retained) => standby?.tellStatus(from, status, retained),
    onMetadata: metadata.heard,
    onBrokerVersion: version => {
      brokerVersion = version;
    },
    onLost: onPresenceLost,
    onTrouble: reason => {
      if (standby && !session?.client.connected) trouble(reason);
    },
  });
  if (!standby) session = connectSession();

  const housekeeping = setInterval(keepHouse, HOUSEKEEPING_MS);
  housekeeping.unref();

  function connectSession(): BrokerSession {
    return openBrokerSession({
      mqttUrl: config.mqttUrl,
      clientId,
      receiveMaximum: config.receiveMaximum,
      reconnects: standby === null,
      subscriptions,
      logger,
      mayNotSubscribe: () =>
        shareRefusal({
          sharing: shareGroup !== null && !config.shareAnyway,
          brokerVersion,
          known: presence.watching,
        }),
      brokerIsThere: () => presence.watching || presenceThrownOut >= PRESENCE_THROWN_OUT_MAX,
      onMessage: taking.accept,
      onConnected(sessionPresent, client) {
        taking.connection(client);
        // In a group the packet ids may have been another gateway's meanwhile: when unsure, store.
        redelivery.connected(sessionPresent && standby === null);
        standby?.tell({ is: 'up' });
        presence.setRole('active');
      },
      onSubscribed(sessionPresent) {
        broker.connected = true;
        broker.reason = null;
        logger.info({ sessionPresent, topics: config.topics }, 'broker: connected');
        sendMark();
      },
      onClosed(how) {
        taking.connection(null);
        broker.connected = false;
        if (standby) {
          session = null;
          standby.tell({ is: how });
          broker.connected = standby.role === 'standby' && presence.watching;
        } else if (how === 'thrown out') {
          trouble(
            `another client uses the client id ${clientId}: is there a second gateway named ${gateway} at this broker?`,
          );
        }
      },
      onTrouble: trouble,
    });
  }

  function trouble(reason: string): void {
    if (reason !== broker.reason) logger.warn({ reason }, 'broker: no connection, trying again');
    broker.reason = reason;
  }

  /** All that is retained has been read. */
  function onWatching(): void {
    const { leftOut, ...found } = metadata.stats;
    logger.info({ ...found, open: metadata.open, brokerVersion }, 'presence: at the broker, metadata read');
    if (leftOut > 0) logger.warn({ leftOut }, 'more retained metadata than is kept');
    standby?.tell({ is: 'watching' });
    if (standby?.role === 'standby') {
      broker.connected = true;
      broker.reason = null;
      logger.info({ group }, 'broker: standby');
    } else if (broker.connected) sendMark();
    else if (shareGroup !== null) session?.subscribe();
  }

  /** When only the presence is gone, somebody has taken it over; not every broker says so. */
  function onPresenceLost(): void {
    const lostAtMs = performance.now();
    setTimeout(() => {
      const connectedAtMs = session?.connectedAtMs ?? null;
      if (connectedAtMs !== null && connectedAtMs < lostAtMs + SAME_MOMENT_MS) onPresenceThrownOut();
    }, 3 * SAME_MOMENT_MS).unref();
  }

  function onPresenceThrownOut(): void {
    presenceThrownOut++;
    const reason = `another client uses the client id ${clientId} or that of its presence: does the broker replace client ids by user names (then set HOLDFAST_MQTT_PRESENCE_URL), or is there a second gateway named ${gateway}?`;
    trouble(reason);
    if (standby || presenceThrownOut < PRESENCE_THROWN_OUT_MAX) return;
    logger.error('presence given up until the next start, so that it does not throw out the intake');
    void presence.close();
  }

  /** Asks to be told when the session has given all it has. */
  function sendMark(): void {
    if (metadata.open > 0 && presence.watching) presence.mark(mark.topic, mark.note);
  }

  function keepHouse(): void {
    const nowMs = clock.monotonicMs();
    const jumpedMs = clockWatch.check(clock.wallMs(), nowMs);
    if (jumpedMs !== 0 && nowMs - clockSaidAtMs > CLOCK_LOG_MS) {
      clockSaidAtMs = nowMs;
      logger.warn(
        { jumpedMs, jumps: clockWatch.jumps },
        'the wall clock has jumped: times of arrival do too',
      );
    }
    if (standby?.role === 'standby' && standby.othersActive) metadata.othersStore();
    else if (broker.connected) sendMark();
    if (nowMs - keptAtMs > KEEP_METADATA_MS) keepMetadata(nowMs);
  }

  function keepMetadata(nowMs: number): void {
    keptAtMs = nowMs;
    const content = metadata.toKeep();
    if (content !== null) metadataFile.write(content);
  }

  /** Whether a message is taken by our filters and says nothing but who is online. */
  function isStatus(topic: string, payload: Uint8Array): boolean {
    if (!config.topics.some(filter => matchesFilter(filter, topic))) return false;
    const outcome = mapped({ topic, payload, receivedAt: 0 });
    if (!outcome.ok || outcome.readings.length === 0) return false;
    return outcome.readings.every(reading => reading.kind === 'status');
  }

  /** All that the session had when the mark was made has come: an open status was never a live message here. */
  function onMark(): void {
    const stored = metadata.caughtUp((topic, payload) => {
      const status: Message = {
        receivedAt: clock.wallMs(),
        monotonicMs: clock.monotonicMs(),
        qos: 0,
        retain: true,
        duplicate: false,
        packetId: 0,
        topic,
        payload,
        payloadBytes: payload.length,
      };
      if (redelivery.isKnown(status)) return true;
      if (buffer.append(status, () => {}) === 'full') return false;
      redelivery.remember(status);
      return true;
    });
    if (stored > 0) logger.info({ stored }, 'presence of devices that was not known yet');
  }

  return {
    broker,
    get dropped() {
      return taking.dropped;
    },
    get repeated() {
      return taking.repeated;
    },
    get role() {
      return standby?.role ?? 'active';
    },
    get takeOvers() {
      return standby?.takeOvers ?? 0;
    },
    clock: clockWatch,
    metadata: metadata.topics,
    async close() {
      clearInterval(housekeeping);
      standby?.close();
      await taking.close();
      await session?.end();
      await presence.close();
      keepMetadata(clock.monotonicMs());
    },
  };
}
