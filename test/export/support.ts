/** What the tests of the export share: a buffer with readings that can be told apart, keys, and an export of it. */
import assert from 'node:assert/strict';
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { generateX25519Identity } from 'age-encryption';
import pino from 'pino';
import {
  type Identity,
  type OpenedExport,
  openExport,
  parseIdentity,
} from '../../cloud/import/open-export.ts';
import { parseTrustList, type TrustList } from '../../cloud/import/trust-list.ts';
import { newBatchReader } from '../../edge-gateway/batch-reader.ts';
import {
  type ExportOptions,
  type ExportOutcome,
  exportBuffer,
} from '../../edge-gateway/export/export-buffer.ts';
import {
  type BufferOptions,
  type DiskBuffer,
  type Message,
  openDiskBuffer,
} from '../../edge-gateway/log/disk-buffer.ts';
import { openReadOnly, type ReadOnlyBuffer } from '../../edge-gateway/log/read-only.ts';
import { commonMapping } from '../../edge-gateway/mapping/compile.ts';
import { decodeBatch } from '../../protocol/batch-codec.ts';
import { signingKeyText } from '../../protocol/export/signing.ts';
import { gatewayId, siteId } from '../../protocol/ids.ts';

export const SITE = siteId('demo');
export const GATEWAY = gatewayId('gw-1');
const silent = { info() {}, warn() {}, error() {} };

export const makeFolder = (): Promise<string> => fs.mkdtemp(join(tmpdir(), 'holdfast-export-'));

export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await makeFolder();
  t.after(() => fs.rm(folder, { recursive: true, force: true }));
  return folder;
}

export async function openBuffer(
  directory: string,
  options: Partial<BufferOptions> = {},
): Promise<DiskBuffer> {
  const opened = await openDiskBuffer({
    directory,
    bytesMax: 64 * 1024 * 1024,
    bootId: 'boot',
    logger: silent,
    ...options,
  });
  assert.ok(opened.outcome === 'open', JSON.stringify(opened));
  return opened.buffer;
}

/** Message n of device n % 7 is `{"n": n}`, padded to about `payloadBytes`. */
export function reading(n: number, payloadBytes = 0): Message {
  const text = JSON.stringify({
    n,
    ...(payloadBytes > 0 && { note: String(n).repeat(payloadBytes).slice(0, payloadBytes) }),
  });
  const payload = Buffer.from(text);
  return {
    receivedAt: 1_700_000_000_000 + n,
    monotonicMs: n,
    qos: 1,
    retain: false,
    duplicate: false,
    packetId: (n % 65_535) + 1,
    topic: `devices/d${n % 7}/telemetry`,
    payload,
    payloadBytes: payload.length,
  };
}

/** Appends readings `from` to `to`, without `to`, and waits for the disk. */
export async function store(buffer: DiskBuffer, from: number, to: number, payloadBytes = 0): Promise<void> {
  const durable: Promise<void>[] = [];
  for (let n = from; n < to; n++) {
    durable.push(
      new Promise(resolve => assert.equal(buffer.append(reading(n, payloadBytes), resolve), 'accepted')),
    );
  }
  await Promise.all(durable);
}

export async function readOnly(directory: string): Promise<ReadOnlyBuffer> {
  const opened = await openReadOnly(directory);
  assert.ok(opened.outcome === 'open', JSON.stringify(opened));
  return opened.buffer;
}

export interface Keys {
  readonly signing: KeyObject;
  readonly identity: Identity;
  readonly trust: TrustList;
}

export const newSigningKey = (): KeyObject => generateKeyPairSync('ed25519').privateKey;

export async function newIdentity(): Promise<Identity> {
  const identity = await parseIdentity(await generateX25519Identity());
  assert.ok(identity);
  return identity;
}

export function trustOf(...lines: readonly (readonly [string, KeyObject])[]): TrustList {
  const parsed = parseTrustList(lines.map(([name, key]) => `${name} ${signingKeyText(key)}`).join('\n'));
  assert.ok(parsed.ok);
  return parsed.trust;
}

export async function newKeys(): Promise<Keys> {
  const signing = newSigningKey();
  return { signing, identity: await newIdentity(), trust: trustOf([`${SITE}/${GATEWAY}`, signing]) };
}

/** Exports the buffer in `directory` as `SITE/GATEWAY` does. */
export async function exportFrom(
  directory: string,
  folder: string,
  keys: Keys,
  options: Partial<ExportOptions> = {},
): Promise<Exclude<ExportOutcome, { outcome: 'not-marked' }>> {
  const buffer = options.buffer ?? (await readOnly(directory));
  const outcome = await exportBuffer({
    buffer,
    readBatch: newBatchReader({ buffer, mapping: commonMapping, logger: pino({ level: 'silent' }) }),
    site: SITE,
    gateway: GATEWAY,
    folder,
    recipient: keys.identity.recipient,
    key: keys.signing,
    now: new Date(),
    countAsSent: () => Promise.resolve({ outcome: 'marked' }),
    ...options,
  });
  assert.ok(outcome.outcome !== 'not-marked', JSON.stringify(outcome));
  return outcome;
}

export async function opened(file: string, keys: Keys): Promise<OpenedExport> {
  const outcome = await openExport(file, keys);
  assert.ok(!('refused' in outcome), JSON.stringify(outcome));
  return outcome;
}

/** Every n in the batches of the files, in their order. */
export async function numbersIn(files: readonly string[], keys: Keys): Promise<number[]> {
  const numbers: number[] = [];
  for (const file of files) {
    for (const { bytes } of (await opened(file, keys)).batches) {
      const decoded = decodeBatch(bytes);
      assert.ok(decoded.outcome === 'batch' && decoded.batch.settlement === 'raw');
      assert.deepEqual(decoded.batch.setAside, []);
      const column = decoded.batch.metrics.find(metric => metric.name === 'n');
      numbers.push(...((column?.values as Float64Array | undefined) ?? []));
    }
  }
  return numbers;
}

export const range = (from: number, to: number): number[] =>
  Array.from({ length: to - from }, (_, index) => from + index);
