/**
 * Stands between the broker and the log for Sparkplug messages: each goes on with the reference of what it takes to read
 * it later (`session.ts`), after that is on disk (`certificate-store.ts`). Nodes are asked for their births where they
 * are missing.
 *
 *   intake ─▶ observe ─▶ certificate durable? ─▶ store
 *
 * Nothing in a message can stop it (H): what cannot be decoded goes on as it is, and is set aside when it is read.
 * Messages keep their order. What is remembered of the nodes is written now and then; the newest frames of the log make
 * up for the rest.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { BufferLogger } from '../../log/buffer-api.ts';
import { type FileOperations, nodeFiles } from '../../log/files.ts';
import type { Frame, Message } from '../../log/frame.ts';
import { Unusable } from '../decoded.ts';
import type { MappingConfig } from '../mapping-file.ts';
import { newCertificateReader } from './certificate-reader.ts';
import { openCertificateStore } from './certificate-store.ts';
import { decodeSparkplug, type SparkplugPayload } from './payload.ts';
import { rebirthPayload } from './rebirth.ts';
import { type Finding, type NodeRecord, newSession, type Session } from './session.ts';
import { NAMESPACE, nodeKey, parseTopic, type SparkplugTopic, topicOf } from './topic.ts';

/** What the intake calls, in the order of arrival. */
export interface Observer {
  /** A connection to the broker was made; `publish` sends on it. */
  connected(publish: (topic: string, payload: Buffer) => void): void;
  /** Calls `store` once, at once or after what the message needs is on disk. */
  observe(message: Message, store: (message: Message) => void): void;
  readonly stats: { readonly gaps: number; readonly rebirthsAsked: number };
  /** Messages that wait are left to the broker. */
  close(): Promise<void>;
}

const STATE_FILE = 'state.json';
const STATE_AFTER_MS = 2000;
/** The names of a device in a longer topic would be longer than a device name may be. */
const TOPIC_CHARACTERS_MAX = 200;
const PREFIX = `${NAMESPACE}/`;

/** @returns null when the mapping takes no Sparkplug nodes */
export async function observerFor(
  { profiles, birthsFolder }: MappingConfig,
  options: Omit<Parameters<typeof openObserver>[0], 'folder'>,
): Promise<Observer | null> {
  if (birthsFolder === undefined || !profiles.some(({ profile }) => profile === 'sparkplug')) return null;
  return await openObserver({ ...options, folder: birthsFolder });
}

/** @param options.recent the newest frames of the log, in their order */
export async function openObserver(options: {
  folder: string;
  recent: readonly Frame[];
  logger: BufferLogger;
  files?: FileOperations;
}): Promise<Observer> {
  const { folder, logger, files = nodeFiles } = options;
  const reader = newCertificateReader(folder);
  const session = newSession(reader, await readState(join(folder, STATE_FILE), logger));
  recall(session, options.recent);
  session.interrupted();
  const store = await openCertificateStore({ folder, files, reader, inUse: session.inUse, logger });
  const stats = { gaps: 0, rebirthsAsked: 0 };
  let publish: ((topic: string, payload: Buffer) => void) | null = null;
  /** Messages behind a certificate that is being written wait for it too. */
  let writing: Promise<void> | null = null;
  let saving: NodeJS.Timeout | null = null;
  let closed = false;

  function look(message: Message): { topic: SparkplugTopic; finding: Finding } | null {
    if (!message.topic.startsWith(PREFIX) || message.topic.length > TOPIC_CHARACTERS_MAX) return null;
    const topic = parseTopic(message.topic.split('/'));
    if (topic === null) return null;
    try {
      const finding = session.observe(topic, decode(message), message.monotonicMs, message.duplicate);
      return { topic, finding };
    } catch (error) {
      logger.error({ err: error, topic: message.topic }, 'sparkplug: a message could not be looked at');
      return null;
    }
  }

  function ask(topic: SparkplugTopic, why: string): void {
    stats.rebirthsAsked++;
    logger.warn({ node: nodeKey(topic), why }, 'sparkplug: the node is asked to be born again');
    publish?.(topicOf({ ...topic, device: null }, 'NCMD'), rebirthPayload(Date.now()));
  }

  async function save(): Promise<void> {
    try {
      await files.makeFolder(folder);
      await files.replace(join(folder, STATE_FILE), JSON.stringify({ nodes: session.records() }));
      await files.syncFolder(folder);
    } catch (error) {
      // Not needed for what is stored; the nodes are asked again after a restart.
      logger.warn({ err: error, folder }, 'sparkplug: the state of the nodes cannot be kept');
    }
  }

  function saveSoon(): void {
    saving ??= setTimeout(() => {
      saving = null;
      void save();
    }, STATE_AFTER_MS).unref();
  }

  return {
    stats,

    connected(send) {
      publish = send;
      session.interrupted();
    },

    observe(message, next) {
      const looked = look(message);
      if (looked === null) return next(message);
      const { topic, finding } = looked;
      if (finding.gap) stats.gaps++;
      if (finding.rebirth !== undefined) ask(topic, finding.rebirth);
      const { reference, certificate } = finding;
      const referring =
        reference === undefined ? message : { ...message, properties: { ...message.properties, reference } };
      if (topic.type.endsWith('BIRTH') || topic.type.endsWith('DEATH')) saveSoon();
      const durable = certificate ? store.put(nodeKey(topic), certificate) : null;
      if (durable !== null) {
        const mine = durable.then(() => {
          if (writing === mine) writing = null;
        });
        writing = mine;
      }
      if (writing === null) next(referring);
      else {
        void writing.then(() => {
          if (!closed) next(referring);
        });
      }
    },

    async close() {
      closed = true;
      if (saving) clearTimeout(saving);
      await store.close();
      await save();
    },
  };
}

function decode(message: Message): SparkplugPayload | null {
  if (message.payload.length !== message.payloadBytes) return null;
  try {
    return decodeSparkplug(message.payload);
  } catch (error) {
    if (error instanceof Unusable) return null;
    throw error;
  }
}

function recall(session: Session, frames: readonly Frame[]): void {
  for (const frame of frames) {
    if (!frame.topic.startsWith(PREFIX)) continue;
    const topic = parseTopic(frame.topic.split('/'));
    if (topic !== null) session.recall(topic, decode(frame), frame.properties?.reference);
  }
}

async function readState(file: string, logger: BufferLogger): Promise<NodeRecord[]> {
  try {
    return (JSON.parse(await readFile(file, 'utf8')) as { nodes: NodeRecord[] }).nodes;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      logger.warn({ err: error }, 'sparkplug: what was known of the nodes is lost; they are asked again');
    }
    return [];
  }
}
