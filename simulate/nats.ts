/**
 * NATS and its clients. Core messages may get lost on their way; the ingest stream keeps what it has acknowledged, until it is
 * deleted. An acknowledgement may get lost after the work was done.
 *
 *   connection: open ──cut, server killed──▶ lost, noticed after a while ──▶ open again, with its subscriptions
 *   consumer:   ends with its connection or its stream, and says nothing of it
 */
import type { JetStreamClient, JetStreamManager } from '@nats-io/jetstream';
import { JetStreamApiError } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import type { Network } from './network.ts';
import type { Process, World } from './world.ts';

export interface Connection {
  /** As production takes it: publish, subscribe, flush. */
  readonly nats: NatsConnection;
  readonly stream: JetStreamClient;
  readonly manager: JetStreamManager;
  readonly connected: boolean;
  /** Into the ingest stream. Resolves with the sequence. */
  publishBatch(subject: string, data: Uint8Array): Promise<number>;
  request(subject: string, data: string, timeoutMs: number): Promise<string>;
  listen(listeners: { onDisconnect: () => void; onReconnect: () => void }): void;
}

export interface NatsModel {
  connect(process: Process, host: string): Connection;
  stop(): void;
  start(): void;
  deleteStream(): void;
  /** Forgets the first messages, as far as all of them are handled. */
  purge(isHandled: (subject: string, created: string, sequence: number) => boolean): void;
  readonly lastSequence: number;
  /** Who was connected from here has to connect again. */
  breakConnections(host: string): void;
  /** Share of core messages, and of stream acknowledgements, that get lost. */
  setLoss(core: number, acknowledgements: number): void;
  /** At its bound the stream refuses. */
  setFull(full: boolean): void;
}

export interface NatsBugs {
  /** Every stream calls itself the same. */
  readonly sameIdentity: boolean;
  /** Frames of the bus carry no epoch that would tell owners apart. */
  readonly withoutEpoch: ((data: Uint8Array) => Uint8Array) | null;
  /** Tells the gateway that history has settled a batch when a node gets it. */
  readonly onDelivered:
    | ((subject: string, data: Uint8Array, created: string, sequence: number) => void)
    | null;
}

interface StoredMessage {
  readonly seq: number;
  readonly subject: string;
  readonly data: Uint8Array;
}

/** As a consumer hands it out. */
type DeliveredMessage = StoredMessage & { readonly info: { readonly pending: number } };

interface Subscription {
  readonly client: Client;
  readonly pattern: readonly string[];
  readonly queue: string | undefined;
  readonly callback: (error: null, message: object) => void;
  closed: boolean;
}

interface Consumer {
  readonly client: Client;
  readonly generation: number;
  readonly prefix: string;
  readonly created: string;
  take(message: DeliveredMessage): void;
  live: boolean;
}

interface Client {
  readonly process: Process;
  readonly host: string;
  /** 0: not connected. */
  generation: number;
  readonly inboxes: Map<string, (data: string) => void>;
  onDisconnect: () => void;
  onReconnect: () => void;
}

const STREAM_NOT_FOUND = { code: 404, err_code: 10059, description: 'stream not found' };
const PUBLISH_TIMEOUT_MS = 3000;
const API_TIMEOUT_MS = 1500;

export function newNats(world: World, network: Network, bugs: NatsBugs): NatsModel {
  let up = true;
  let generations = 0;
  let streams = 0;
  let stream: { created: string; messages: StoredMessage[]; lastSeq: number } | null = null;
  let loss = { core: 0, acknowledgements: 0 };
  let full = false;
  const clients = new Set<Client>();
  const subscriptions = new Set<Subscription>();
  const consumers = new Set<Consumer>();

  const text = (data: Uint8Array | string | undefined): string =>
    typeof data === 'string' ? data : Buffer.from(data ?? []).toString();

  function reaches(client: Client, generation: number): boolean {
    return up && client.generation === generation && generation > 0 && network.reaches(client.host, 'nats');
  }

  /** To the server, while the connection holds. */
  function toServer(client: Client, label: string, work: () => void): void {
    const { generation } = client;
    if (!reaches(client, generation)) return;
    world.after(network.travelMs(client.host, 'nats'), null, label, () => {
      if (up && network.reaches(client.host, 'nats')) work();
    });
  }

  function toClient(client: Client, label: string, work: () => void): void {
    const { generation } = client;
    if (!reaches(client, generation)) return;
    world.after(network.travelMs('nats', client.host), client.process, label, () => {
      if (client.generation === generation && network.reaches(client.host, 'nats')) work();
    });
  }

  const matches = (pattern: readonly string[], subject: readonly string[]) =>
    pattern.length === subject.length && pattern.every((part, i) => part === '*' || part === subject[i]);

  function route(subject: string, data: Uint8Array | string, respond: (reply: string) => void): boolean {
    const parts = subject.split('.');
    const takers: Subscription[] = [];
    const queues = new Map<string, Subscription[]>();
    for (const subscription of subscriptions) {
      if (subscription.closed || subscription.client.process.phase === 'dead') continue;
      if (
        !matches(subscription.pattern, parts) ||
        !reaches(subscription.client, subscription.client.generation)
      )
        continue;
      const { queue } = subscription;
      if (queue === undefined) takers.push(subscription);
      else queues.set(queue, [...(queues.get(queue) ?? []), subscription]);
    }
    for (const members of queues.values()) takers.push(world.pick(members));
    for (const { client, callback } of takers) {
      if (world.chance(loss.core)) continue;
      toClient(client, `nats ${subject}`, () =>
        callback(null, {
          subject,
          data: typeof data === 'string' ? Buffer.from(data) : data,
          json: () => JSON.parse(text(data)),
          respond: (reply: string) =>
            toServer(client, 'nats respond', () => {
              if (!world.chance(loss.core)) respond(reply);
            }),
        }),
      );
    }
    return takers.length > 0;
  }

  function deliver(consumer: Consumer, message: StoredMessage): void {
    const { client } = consumer;
    if (!consumer.live || !message.subject.startsWith(consumer.prefix)) return;
    if (!reaches(client, consumer.generation) || client.process.phase === 'dead') {
      consumer.live = false;
      consumers.delete(consumer);
      return;
    }
    const pending = stream!.messages.filter(
      ({ seq, subject }) => seq > message.seq && subject.startsWith(consumer.prefix),
    ).length;
    toClient(client, `stream ${message.subject} ${message.seq}`, () => {
      if (!consumer.live) return;
      bugs.onDelivered?.(message.subject, message.data, consumer.created, message.seq);
      consumer.take({ ...message, info: { pending } });
    });
  }

  function connectionLost(client: Client): void {
    if (client.generation === 0) return;
    client.generation = 0;
    world.after(network.noticeMs() / 4, client.process, 'nats disconnected', () => {
      client.onDisconnect();
      reconnect(client);
    });
  }

  function reconnect(client: Client): void {
    world.after(200 + world.random() * 800, client.process, 'nats reconnect', () => {
      if (!up || !network.reaches(client.host, 'nats')) return reconnect(client);
      client.generation = ++generations;
      client.onReconnect();
    });
  }

  const created = () => (bugs.sameIdentity ? 'stream' : stream!.created);

  function connect(process: Process, host: string): Connection {
    const client: Client = {
      process,
      host,
      generation: 0,
      inboxes: new Map(),
      onDisconnect: () => {},
      onReconnect: () => {},
    };
    for (const known of clients) if (known.process.phase === 'dead') clients.delete(known);
    clients.add(client);
    if (up && network.reaches(host, 'nats')) client.generation = ++generations;
    else reconnect(client);

    /** A question to the server. */
    function ask<T>(label: string, timeoutMs: number, work: () => T): Promise<T> {
      return new Promise((resolve, reject) => {
        const cancel = world.after(timeoutMs, process, 'nats timeout', () => reject(new Error('timeout')));
        toServer(client, label, () => {
          let answer: () => void;
          try {
            const value = work();
            answer = () => resolve(value);
          } catch (error) {
            answer = () => reject(error as Error);
          }
          if (label.startsWith('publish') && world.chance(loss.acknowledgements)) return;
          toClient(client, 'nats answer', () => {
            cancel();
            answer();
          });
        });
      });
    }

    const info = () => {
      if (!stream) throw new JetStreamApiError(STREAM_NOT_FOUND);
      const first = stream.messages[0]?.seq ?? stream.lastSeq + 1;
      return { created: created(), state: { first_seq: first, last_seq: stream.lastSeq, bytes: 0 } };
    };
    const manager = {
      streams: {
        info: () => ask('stream info', API_TIMEOUT_MS, info),
        add: () =>
          ask('stream add', API_TIMEOUT_MS, () => {
            stream ??= { created: `stream-${++streams}`, messages: [], lastSeq: 0 };
            return info();
          }),
      },
    };

    async function openConsumer(prefix: string, from: number) {
      await ask('consumer create', API_TIMEOUT_MS, info);
      return {
        consume: async () => {
          const waiting: DeliveredMessage[] = [];
          let wake: (() => void) | null = null;
          let stopped = false;
          let next = from;
          const consumer: Consumer = {
            client,
            generation: client.generation,
            prefix,
            created: stream ? created() : '',
            live: true,
            take(message) {
              // In order, each once, as an ordered consumer sees to.
              if (message.seq < next) return;
              next = message.seq + 1;
              waiting.push(message);
              wake?.();
            },
          };
          toServer(client, 'consumer start', () => {
            if (!stream || stopped) return;
            consumers.add(consumer);
            for (const message of stream.messages) if (message.seq >= from) deliver(consumer, message);
          });
          return {
            stop() {
              stopped = true;
              consumer.live = false;
              consumers.delete(consumer);
              wake?.();
            },
            async *[Symbol.asyncIterator]() {
              for (;;) {
                const message = waiting.shift();
                if (stopped) return;
                if (message) {
                  yield message;
                  continue;
                }
                await new Promise<void>(resolve => {
                  wake = resolve;
                });
                wake = null;
              }
            },
          };
        },
      };
    }

    const nats = {
      publish(subject: string, data?: Uint8Array | string) {
        const sent =
          subject.startsWith('push.') && bugs.withoutEpoch ? bugs.withoutEpoch(data as Uint8Array) : data;
        toServer(client, `publish ${subject}`, () => void route(subject, sent ?? '', () => {}));
      },
      subscribe(
        subject: string,
        options: { queue?: string; callback: Subscription['callback'] },
      ): { unsubscribe(): void } {
        const subscription: Subscription = {
          client,
          pattern: subject.split('.'),
          queue: options.queue,
          callback: options.callback,
          closed: false,
        };
        subscriptions.add(subscription);
        return {
          unsubscribe() {
            subscription.closed = true;
            subscriptions.delete(subscription);
          },
        };
      },
      flush: () => ask('flush', API_TIMEOUT_MS, () => {}),
      isClosed: () => false,
      isDraining: () => false,
    };

    return {
      nats: nats as unknown as NatsConnection,
      manager: manager as unknown as JetStreamManager,
      stream: {
        consumers: {
          get: (
            _name: string,
            { filter_subjects, opt_start_seq }: { filter_subjects: string; opt_start_seq: number },
          ) => openConsumer(filter_subjects.slice(0, -1), opt_start_seq),
        },
      } as unknown as JetStreamClient,
      get connected() {
        return client.generation > 0;
      },
      publishBatch(subject, data) {
        return ask(`publish ${subject}`, PUBLISH_TIMEOUT_MS, () => {
          if (!stream) throw new Error('no stream');
          if (full) throw new Error('maximum bytes exceeded');
          const message = { seq: ++stream.lastSeq, subject, data };
          stream.messages.push(message);
          for (const consumer of consumers) deliver(consumer, message);
          return message.seq;
        });
      },
      request(subject, data, timeoutMs) {
        return new Promise((resolve, reject) => {
          const cancel = world.after(timeoutMs, process, 'request timeout', () =>
            reject(new Error('timeout')),
          );
          toServer(client, `request ${subject}`, () => {
            const respond = (reply: string) =>
              toClient(client, 'reply', () => {
                cancel();
                resolve(reply);
              });
            if (route(subject, data, respond)) return;
            toClient(client, 'no responders', () => {
              cancel();
              reject(new Error('no responders'));
            });
          });
        });
      },
      listen({ onDisconnect, onReconnect }) {
        client.onDisconnect = onDisconnect;
        client.onReconnect = onReconnect;
      },
    };
  }

  return {
    connect,
    stop() {
      up = false;
      for (const client of clients) connectionLost(client);
      consumers.clear();
    },
    start() {
      up = true;
    },
    deleteStream() {
      stream = null;
      for (const consumer of consumers) consumer.live = false;
      consumers.clear();
    },
    purge(isHandled) {
      if (!stream) return;
      const { messages } = stream;
      const keep = messages.findIndex(({ subject, seq }) => !isHandled(subject, created(), seq));
      messages.splice(0, keep < 0 ? messages.length : keep);
    },
    get lastSequence() {
      return stream?.lastSeq ?? 0;
    },
    breakConnections(host) {
      for (const client of clients) if (client.host === host) connectionLost(client);
    },
    setLoss(core, acknowledgements) {
      loss = { core, acknowledgements };
    },
    setFull(is) {
      full = is;
    },
  };
}
