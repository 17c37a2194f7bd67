/**
 * From a file to batches that may be believed, or the reason why not. All of it is checked before any of it is used:
 *
 *   form ─▶ key on the trust list, for this very site and gateway ─▶ signature over the whole file ─▶ decrypted ─▶
 *   the preamble inside is the one outside ─▶ every batch decodes
 *
 * Invariants: S (whose it is, is what the trust list says of the key that signed), I (a damaged or cut file is refused).
 */
import { readFile, stat } from 'node:fs/promises';
import { Decrypter, identityToRecipient } from 'age-encryption';
import { decodeBatch } from '../../protocol/batch-codec.ts';
import {
  EXPORT_EXTENSION,
  EXPORT_FILE_BYTES_MAX,
  type ExportHeader,
  readExportContent,
  readExportFile,
} from '../../protocol/export/export-file.ts';
import { isSignedBy } from '../../protocol/export/signing.ts';
import { type GatewayId, gatewayId, type LogId, type SiteId, siteId } from '../../protocol/ids.ts';
import { type Range, RangeSet } from '../../protocol/range-set.ts';
import type { TrustList } from './trust-list.ts';

export interface Identity {
  /** `AGE-SECRET-KEY-1…` */
  readonly secret: string;
  /** `age1…` */
  readonly recipient: string;
}

export interface ImportBatch extends Range {
  readonly logId: LogId;
  /** As it is published. */
  readonly bytes: Buffer;
}

export interface OpenedExport {
  readonly site: SiteId;
  readonly gateway: GatewayId;
  readonly header: ExportHeader;
  readonly batches: readonly ImportBatch[];
  readonly ranges: ReadonlyMap<LogId, RangeSet>;
  /** No part of this export comes after it. */
  readonly last: boolean;
}

/** @param text of a file with the key, such as `holdfast keys new` or age-keygen make it; null when there is none */
export async function parseIdentity(text: string): Promise<Identity | null> {
  const secret = /^AGE-SECRET-KEY-1[0-9A-Z]+\s*$/m.exec(text)?.[0].trim();
  if (secret === undefined) return null;
  try {
    return { secret, recipient: await identityToRecipient(secret) };
  } catch {
    return null;
  }
}

export async function openExport(
  file: string,
  o: { readonly identity: Identity; readonly trust: TrustList },
): Promise<OpenedExport | { readonly refused: string }> {
  if (file.endsWith(`${EXPORT_EXTENSION}.part`)) {
    return { refused: 'it was never finished: the export was stopped while it wrote it' };
  }
  let bytes: Buffer;
  try {
    const size = (await stat(file)).size;
    if (size > EXPORT_FILE_BYTES_MAX) return { refused: `${size} bytes are more than an export file has` };
    bytes = await readFile(file);
  } catch (error) {
    return { refused: (error as Error).message };
  }
  const parts = readExportFile(bytes);
  if ('refused' in parts) return parts;
  const { header } = parts;
  const name = `${header.site}/${header.gateway}`;
  const names = o.trust.get(header.key);
  if (!names) {
    return {
      refused: `its key is not on the trust list; if it is the key of ${name}, add: ${name} ${header.key}`,
    };
  }
  if (!names.has(name)) {
    return { refused: `it says it is of ${name}, but its key belongs to ${[...names].join(', ')}` };
  }
  if (!isSignedBy(header.key, parts.sha512, parts.signature)) {
    return { refused: 'its signature does not fit: damaged, cut short or changed' };
  }
  const plain = await decrypt(parts.sealed, o.identity, header.recipient);
  if ('refused' in plain) return plain;
  const content = readExportContent(plain.bytes, parts.preamble);
  if ('refused' in content) return content;

  const batches: ImportBatch[] = [];
  const ranges = new Map<LogId, RangeSet>();
  for (const batch of content.batches) {
    const range = rangeOf(batch);
    if ('refused' in range) return range;
    batches.push({ ...range, bytes: batch });
    ranges.set(range.logId, (ranges.get(range.logId) ?? RangeSet.empty).add(range.from, range.to));
  }
  return {
    site: siteId(header.site),
    gateway: gatewayId(header.gateway),
    header,
    batches,
    ranges,
    last: content.last,
  };
}

async function decrypt(
  sealed: Buffer,
  identity: Identity,
  recipient: string,
): Promise<{ readonly bytes: Buffer } | { readonly refused: string }> {
  if (recipient !== identity.recipient) {
    return { refused: `it is encrypted to ${recipient}; this identity is ${identity.recipient}` };
  }
  const decrypter = new Decrypter();
  decrypter.addIdentity(identity.secret);
  try {
    const bytes = await decrypter.decrypt(sealed);
    return { bytes: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length) };
  } catch (error) {
    return { refused: `it cannot be decrypted: ${(error as Error).message}` };
  }
}

function rangeOf(bytes: Buffer): (Range & { readonly logId: LogId }) | { readonly refused: string } {
  const decoded = decodeBatch(bytes);
  if (decoded.outcome === 'unknown-version') {
    return { refused: 'the gateway that wrote it is newer than this cloud; update the cloud first' };
  }
  if (decoded.outcome === 'corrupt') return { refused: `a batch in it is damaged: ${decoded.reason}` };
  if (decoded.outcome === 'heartbeat')
    return { refused: 'there is a heartbeat in it, which tells of no messages' };
  // One that arrived as it was sent and makes no sense is history's to set aside (H).
  const { logId, firstSequence, count } = decoded.outcome === 'batch' ? decoded.batch : decoded;
  return { logId, from: firstSequence, to: firstSequence + count };
}
