/**
 * The Sparkplug nodes of a site as their messages come in, in order. Pure but for its own memory: messages in, findings
 * out.
 *
 *   unknown ──NBIRTH──▶ born ──NDEATH of the same session──▶ dead ──NBIRTH──▶ born
 *   a device has a birth from its DBIRTH until its DDEATH or its node's NBIRTH or NDEATH
 *
 * Which birth a message belongs to is decided here and stored with the message, so that it can be read at any time later
 * and in any order. A birth is certain as long as nothing can have been missed: when the gateway was away (it or the
 * broker was restarted, the connection broke) and the node's sequence does not go on where it was, births may have come
 * and gone, and those that are known count no more. No name is guessed.
 *
 * Bounded (F): nodes and devices beyond the limits are not followed; their messages are set aside as far as they need a
 * birth.
 */

import { birthCertificate, devicesCertificate, type SealedCertificate } from './certificate.ts';
import type { CertificateReader } from './certificate-reader.ts';
import type { SparkplugPayload } from './payload.ts';
import { faultOf } from './resolve.ts';
import { nodeKey, type SparkplugTopic, topicKey } from './topic.ts';

export interface Finding {
  /** Goes with the message: a certificate's id, or {@link EARLIER_SESSION}. */
  readonly reference?: string;
  /** To be on disk before the message is. */
  readonly certificate?: SealedCertificate;
  /** Why the node is to be asked for its births. */
  readonly rebirth?: string;
  /** Messages are missing before this one. */
  readonly gap?: boolean;
}

/** The reference of a death that belongs to a session which a later birth has ended: it says nothing any more. */
export const EARLIER_SESSION = 'earlier';

/** What is kept over restarts. */
export interface NodeRecord {
  readonly node: string;
  readonly bdSeq: string | null;
  readonly seq: number | null;
  readonly birth: string | null;
  readonly devices: readonly (readonly [device: string, birth: string | null])[];
}

export interface Session {
  /** Connections may have been down: what was missed is not known. */
  interrupted(): void;
  /** @param payload null when it could not be decoded. @param nowMs of a clock that only goes forward */
  observe(
    topic: SparkplugTopic,
    payload: SparkplugPayload | null,
    nowMs: number,
    duplicate: boolean,
  ): Finding;
  /** A message found in the log at start, with the reference that was stored with it. */
  recall(topic: SparkplugTopic, payload: SparkplugPayload | null, reference: string | undefined): void;
  records(): NodeRecord[];
  /** Births that messages to come may need. */
  inUse(): ReadonlySet<string>;
}

export const limits = {
  nodesMax: 4096,
  devicesMax: 65_536,
  /** All of them are told offline in one message. */
  devicesPerNodeMax: 1000,
} as const;

/** A node is not asked again sooner: it has to answer with everything it has. */
export const REBIRTH_AGAIN_MS = 60_000;
const SEQ_COUNT = 256;

interface Node {
  bdSeq: string | null;
  seq: number | null;
  /** Whether messages may have been missed since the last one. */
  away: boolean;
  birth: string | null;
  /** Those that are there, with their birth where one is certain. */
  readonly devices: Map<string, string | null>;
  askedAtMs: number | null;
}

const newNode = (): Node => ({
  bdSeq: null,
  seq: null,
  away: false,
  birth: null,
  devices: new Map(),
  askedAtMs: null,
});

export function newSession(certificates: CertificateReader, records: readonly NodeRecord[] = []): Session {
  const nodes = new Map<string, Node>();
  let deviceCount = 0;
  for (const { node, bdSeq, seq, birth, devices } of records) {
    nodes.set(node, { ...newNode(), bdSeq, seq, birth, devices: new Map(devices), away: true });
    deviceCount += devices.length;
  }

  function nodeOf(key: string): Node | null {
    const known = nodes.get(key);
    if (known) return known;
    if (nodes.size >= limits.nodesMax) return null;
    const node = newNode();
    nodes.set(key, node);
    return node;
  }

  function setDevice(node: Node, device: string, birth: string | null): boolean {
    if (!node.devices.has(device)) {
      if (node.devices.size >= limits.devicesPerNodeMax || deviceCount >= limits.devicesMax) return false;
      deviceCount++;
    }
    node.devices.set(device, birth);
    return true;
  }

  function deleteDevice(node: Node, device: string): void {
    if (node.devices.delete(device)) deviceCount--;
  }

  function forgetBirths(node: Node): void {
    node.birth = null;
    for (const device of node.devices.keys()) node.devices.set(device, null);
  }

  /** The node's old session is over, with all that was in it. */
  function die(node: Node): void {
    node.birth = null;
    node.seq = null;
    deviceCount -= node.devices.size;
    node.devices.clear();
  }

  /** Takes note of the sequence. @returns whether messages are missing before this one */
  function follow(node: Node, seq: number | null, duplicate: boolean): boolean {
    const { away } = node;
    if (seq === null) {
      // It cannot be said whether something was missed.
      if (away) forgetBirths(node);
      node.away = false;
      return false;
    }
    if (duplicate && seq === node.seq) return false;
    const missing = node.seq !== null && seq !== (node.seq + 1) % SEQ_COUNT;
    if (away && (missing || node.seq === null)) forgetBirths(node);
    node.seq = seq;
    node.away = false;
    return missing;
  }

  function ask(node: Node | null, nowMs: number, why: string): Pick<Finding, 'rebirth'> {
    if (node === null) return {};
    if (node.askedAtMs !== null && nowMs - node.askedAtMs < REBIRTH_AGAIN_MS) return {};
    node.askedAtMs = nowMs;
    return { rebirth: why };
  }

  function birth(topic: SparkplugTopic, payload: SparkplugPayload): Finding | null {
    const key = nodeKey(topic);
    const node = nodeOf(key);
    if (node === null) return null;
    const certificate = birthCertificate(topicKey(topic), payload);
    const found = { certificate, reference: certificate.id };
    if (topic.device !== null) return setDevice(node, topic.device, certificate.id) ? found : null;
    // Devices are there until they or the node are told dead, but have to be born again.
    forgetBirths(node);
    node.birth = certificate.id;
    node.bdSeq = bdSeqOf(payload);
    node.seq = payload.seq;
    node.away = false;
    return found;
  }

  function data(topic: SparkplugTopic, payload: SparkplugPayload, nowMs: number): Finding {
    const key = nodeKey(topic);
    const node = nodes.get(key) ?? null;
    const reference = (topic.device === null ? node?.birth : node?.devices.get(topic.device)) ?? null;
    if (reference === null) return ask(node, nowMs, 'data without a birth');
    const fault = faultOf(payload.metrics, certificates.birth(key, reference));
    return { reference, ...(fault !== null && ask(node, nowMs, fault)) };
  }

  function death(topic: SparkplugTopic, payload: SparkplugPayload | null): Finding {
    const key = nodeKey(topic);
    const node = nodes.get(key);
    if (!node) return {};
    const bdSeq = payload && bdSeqOf(payload);
    if (bdSeq !== null && node.bdSeq !== null && bdSeq !== node.bdSeq) return { reference: EARLIER_SESSION };
    const devices = [...node.devices.keys()];
    die(node);
    if (devices.length === 0) return {};
    const certificate = devicesCertificate(key, devices);
    return { certificate, reference: certificate.id };
  }

  return {
    interrupted() {
      for (const node of nodes.values()) node.away = true;
    },

    observe(topic, payload, nowMs, duplicate) {
      const { type } = topic;
      if (type === 'NDEATH') return death(topic, payload);
      if (payload === null || type === 'NCMD' || type === 'DCMD') return {};
      if (type === 'NBIRTH') return birth(topic, payload) ?? {};
      const node = nodeOf(nodeKey(topic));
      const gap = node !== null && follow(node, payload.seq, duplicate);
      let found: Finding = {};
      if (type === 'DBIRTH') {
        found = birth(topic, payload) ?? {};
        if (node?.birth === null) found = { ...found, ...ask(node, nowMs, 'a device without its node') };
      } else if (type === 'DDEATH') {
        if (node) deleteDevice(node, topic.device!);
      } else found = data(topic, payload, nowMs);
      return gap ? { ...found, ...ask(node, nowMs, 'messages are missing'), gap } : found;
    },

    recall(topic, payload, reference) {
      const { type, device } = topic;
      const node = nodeOf(nodeKey(topic));
      if (!node || payload === null || type === 'NCMD' || type === 'DCMD') return;
      node.away = true;
      if (type === 'NDEATH') {
        if (reference !== EARLIER_SESSION) die(node);
        return;
      }
      node.seq = payload.seq;
      if (type === 'NBIRTH') {
        forgetBirths(node);
        node.bdSeq = bdSeqOf(payload);
      }
      if (type === 'DDEATH') deleteDevice(node, device!);
      else if (device === null) node.birth = reference ?? null;
      else if (type === 'DBIRTH' || node.devices.has(device)) setDevice(node, device, reference ?? null);
    },

    records: () =>
      [...nodes].map(([node, { bdSeq, seq, birth: id, devices }]) => ({
        node,
        bdSeq,
        seq,
        birth: id,
        devices: [...devices],
      })),

    inUse() {
      const ids = new Set<string>();
      for (const { birth: id, devices } of nodes.values()) {
        if (id !== null) ids.add(id);
        for (const each of devices.values()) if (each !== null) ids.add(each);
      }
      return ids;
    },
  };
}

/** The number of a session, in both its birth and its death. */
function bdSeqOf({ metrics }: SparkplugPayload): string | null {
  const value = metrics.find(({ name }) => name === 'bdSeq')?.value;
  return value?.in === 'integer' ? String(value.value) : null;
}
