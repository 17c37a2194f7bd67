/**
 * The connection that takes messages: a persistent session at the site's broker, under a client id that stays.
 *
 *   connecting ─▶ connected ─▶ subscribed ──lost──▶ connecting …        thrown out · end ─▶ closed
 *
 * With `reconnects` it comes back by itself, with jitter; else it ends at the first loss, and whoever opened it decides.
 * Invariant R: a lost connection, a refused subscription, a wrong password are tried again for ever.
 */
import mqtt, { type IPublishPacket, type MqttClient } from 'mqtt';
import type { Logger } from 'pino';
import { brokerTrouble, isThrownOut } from './broker-trouble.ts';
import type { Subscriptions } from './subscriptions.ts';

export interface BrokerSession {
  readonly client: MqttClient;
  /** Monotonic; null while there is no connection. */
  readonly connectedAtMs: number | null;
  /** Asks again for subscriptions that were held back. */
  subscribe(): void;
  end(): Promise<void>;
}

/** A refused subscription is asked for again on the same connection: rights may have changed. */
const SUBSCRIBE_AGAIN_MS = 5000;
/** A broker that does not answer the DISCONNECT is left. */
const GOODBYE_MS = 2000;
const SESSION_EXPIRY_SECONDS = 0xffff_ffff;
/** A broker that dies ends all its connections within this time. */
const SAME_MOMENT_MS = 100;
/** Connections in a row that lasted less than this, while the broker was there: somebody else takes the session. */
const SHORT_LIVED = { ms: 60_000, max: 3 };
/** Not to be fought out with another gateway of the same name: that is a mistake which somebody has to see. */
const CONNECT_AGAIN_MS = { first: 250, max: 10_000, thrownOut: 30_000 };
const GRANTED_MAX = 2;

/** Given to mqtt.js in place of success, so that it does not send the PUBACK: it follows after the fdatasync. */
export const PUBACK_LATER = new Error('PUBACK follows when the message is on disk');

export function openBrokerSession(options: {
  mqttUrl: string;
  clientId: string;
  receiveMaximum: number;
  reconnects: boolean;
  subscriptions: Subscriptions;
  logger: Logger;
  /** Whether the broker answers others. */
  brokerIsThere: () => boolean;
  /** Null lets it subscribe; else why it must not. */
  mayNotSubscribe: () => string | null;
  onMessage: (packet: IPublishPacket, callback: (error?: Error) => void) => void;
  onConnected: (sessionPresent: boolean, client: MqttClient) => void;
  onSubscribed: (sessionPresent: boolean) => void;
  onClosed: (how: 'lost' | 'thrown out') => void;
  onTrouble: (reason: string) => void;
}): BrokerSession {
  const { mqttUrl, subscriptions, logger } = options;
  let connectAgainMs = CONNECT_AGAIN_MS.first;
  let connection = 0;
  let sessionPresent = false;
  let thrownOut = false;
  let connectedAtMs: number | null = null;
  /** Connections in a row that did not last. Not every broker says that a session was taken over. */
  let shortLived = 0;
  let ended = false;

  const client = mqtt.connect(mqttUrl, {
    protocolVersion: 5,
    clientId: options.clientId,
    clean: false,
    properties: {
      sessionExpiryInterval: SESSION_EXPIRY_SECONDS,
      receiveMaximum: options.receiveMaximum,
    },
    keepalive: 30,
    reconnectPeriod: options.reconnects ? connectAgainMs : 0,
    reconnectOnConnackError: true,
    connectTimeout: 10_000,
    resubscribe: false,
  });
  client.handleMessage = (packet, callback) => {
    // The session is somebody else's: what was not acknowledged is sent there.
    if (thrownOut && packet.qos > 0) callback(PUBACK_LATER);
    else options.onMessage(packet, callback);
  };

  // Messages may come before mqtt.js says 'connect': they belong to this connection all the same.
  client.on('packetreceive', packet => {
    if (packet.cmd !== 'connack' || packet.reasonCode !== 0) return;
    connection++;
    thrownOut = false;
    connectedAtMs = performance.now();
    waitBeforeAgain(shortLived < SHORT_LIVED.max ? CONNECT_AGAIN_MS.first : CONNECT_AGAIN_MS.thrownOut);
    const on = connection;
    setTimeout(() => {
      if (on !== connection) return;
      shortLived = 0;
      waitBeforeAgain(CONNECT_AGAIN_MS.first);
    }, SHORT_LIVED.ms).unref();
    sessionPresent = packet.sessionPresent;
    options.onConnected(sessionPresent, client);
  });
  client.on('connect', subscribe);
  client.on('disconnect', packet => {
    thrownOut = isThrownOut(packet);
    if (thrownOut) waitBeforeAgain(CONNECT_AGAIN_MS.thrownOut);
  });
  client.on('close', () => {
    if (ended) return;
    connection++;
    if (connectedAtMs !== null) {
      setTimeout(() => {
        if (!ended && options.brokerIsThere()) shortLived++;
      }, SAME_MOMENT_MS).unref();
    }
    connectedAtMs = null;
    if (options.reconnects) waitBeforeAgain(Math.min(connectAgainMs * 2, CONNECT_AGAIN_MS.max));
    else {
      ended = true;
      client.end(true);
    }
    options.onClosed(thrownOut || shortLived >= SHORT_LIVED.max ? 'thrown out' : 'lost');
  });
  client.on('error', error => options.onTrouble(brokerTrouble(error, mqttUrl)));

  /** A fleet of gateways must not come back in step. */
  function waitBeforeAgain(ms: number): void {
    connectAgainMs = ms;
    if (options.reconnects) client.options.reconnectPeriod = ms * (0.5 + Math.random() / 2);
  }

  function subscribe(): void {
    if (!client.connected) return;
    const reason = options.mayNotSubscribe();
    if (reason !== null) {
      options.onTrouble(reason);
      return;
    }
    const stale = sessionPresent ? subscriptions.stale() : [];
    subscriptions.asking();
    const on = connection;
    const again = (trouble: string) => {
      if (on !== connection) return;
      options.onTrouble(trouble);
      setTimeout(() => {
        if (on === connection) subscribe();
      }, SUBSCRIBE_AGAIN_MS).unref();
    };
    if (stale.length === 0) askFor(again);
    else {
      client.unsubscribe(stale, error => {
        if (error) return again(error.message);
        logger.info({ topics: stale }, 'broker: no longer subscribed');
        askFor(again);
      });
    }
  }

  function askFor(again: (trouble: string) => void): void {
    const on = connection;
    client.subscribe(subscriptions.wanted, (error, granted) => {
      if (on !== connection) return;
      const refused = (granted ?? [])
        .filter(entry => entry.qos > GRANTED_MAX && !subscriptions.optional.includes(entry.topic))
        .map(entry => entry.topic);
      if (error || refused.length > 0) {
        again(error ? error.message : `the broker does not let us subscribe to ${refused.join(', ')}`);
        return;
      }
      subscriptions.settled();
      options.onSubscribed(sessionPresent);
    });
  }

  return {
    client,
    get connectedAtMs() {
      return connectedAtMs;
    },
    subscribe,
    async end() {
      if (ended) return;
      ended = true;
      const goodbye = client.endAsync().then(() => true);
      const late = new Promise<false>(resolve => setTimeout(() => resolve(false), GOODBYE_MS));
      if (!(await Promise.race([goodbye, late]))) client.end(true);
    },
  };
}
