/**
 * A file of an export: batches of one gateway, carried by hand where the link is gone.
 *
 *   preamble    magic line, then one line of JSON (ExportHeader): readable by whoever finds the stick
 *   age file    encrypted to the cloud (age-encryption.org/v1: X25519, ChaCha20-Poly1305 in chunks)
 *                 preamble again, batch records, end record
 *   signature   64 bytes, Ed25519 by the gateway, over the SHA-512 of all before it
 *
 *   record      u8 kind, u32 length (little-endian), content
 *                 0 preamble · 1 batch as the uplink publishes it · 2 end, JSON (ExportEnd); nothing follows
 *
 * Encrypted first and signed outside, so that a damaged, cut or forged file is refused as a whole before a byte of it
 * is opened (I). A signature outside can be replaced, though: another gateway could pass off a file that it cannot read
 * as its own, and find the content at its own site. The preamble inside, which only the writer can have put there, says
 * whose it is (S).
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { isGatewayId, isSiteId } from '../ids.ts';
import { limits } from '../limits.ts';
import { isSigningKeyText, SIGNATURE_BYTES } from './signing.ts';

export const EXPORT_EXTENSION = '.holdfast';
/** A file is closed before the batch that would take it over this; small enough to be opened in memory. */
export const EXPORT_CONTENT_BYTES_MAX = 32 * 1024 * 1024;
/** Content, encryption and signature of the largest file. */
export const EXPORT_FILE_BYTES_MAX = EXPORT_CONTENT_BYTES_MAX + 2 * 1024 * 1024;

const MAGIC = 'HOLDFAST-EXPORT 1\n';
const MAGIC_ANY_VERSION = /^HOLDFAST-EXPORT \d+\n/;
const HEADER_BYTES_MAX = 2048;
const RECORD_HEADER_BYTES = 5;
const RecordKind = { preamble: 0, batch: 1, end: 2 } as const;

const ExportHeader = z.object({
  site: z.string().refine(isSiteId),
  gateway: z.string().refine(isGatewayId),
  /** The public key that the file is signed with, `ed25519:…`. */
  key: z.string().refine(isSigningKeyText),
  /** The same in all files of one run of the export. */
  export: z.string().regex(/^[0-9a-f]{12}$/),
  /** From 1. */
  part: z.number().int().positive(),
  /** By the box's clock, ISO 8601; for people. */
  createdAt: z.string().max(40),
  /** Whom it is encrypted to, `age1…`. */
  recipient: z.string().max(100),
});
export type ExportHeader = z.infer<typeof ExportHeader>;

const ExportEnd = z.object({
  batches: z.number().int().nonnegative(),
  /** No part comes after this one. */
  last: z.boolean(),
});
export type ExportEnd = z.infer<typeof ExportEnd>;

export function encodePreamble(header: ExportHeader): Buffer {
  const bytes = Buffer.from(`${MAGIC}${JSON.stringify(header)}\n`);
  if (bytes.length > HEADER_BYTES_MAX) throw new RangeError(`a header of ${bytes.length} bytes`);
  return bytes;
}

export const preambleRecord = (preamble: Uint8Array): Buffer => record(RecordKind.preamble, preamble);
export const batchRecord = (batch: Uint8Array): Buffer => record(RecordKind.batch, batch);
export const endRecord = (end: ExportEnd): Buffer => record(RecordKind.end, Buffer.from(JSON.stringify(end)));

function record(kind: number, content: Uint8Array): Buffer {
  const head = Buffer.alloc(RECORD_HEADER_BYTES);
  head[0] = kind;
  head.writeUInt32LE(content.length, 1);
  return Buffer.concat([head, content]);
}

export interface ExportFile {
  readonly header: ExportHeader;
  readonly preamble: Buffer;
  /** The age file. */
  readonly sealed: Buffer;
  readonly sha512: Buffer;
  readonly signature: Buffer;
}

/** Takes a file apart. Nothing of it is believed yet. @returns the parts, or why it is none */
export function readExportFile(bytes: Buffer): ExportFile | { readonly refused: string } {
  const start = bytes.toString('latin1', 0, 64);
  if (!start.startsWith(MAGIC)) {
    return MAGIC_ANY_VERSION.test(start)
      ? { refused: 'it was written by a newer version; update the cloud first' }
      : { refused: 'it is no export of a gateway' };
  }
  const headerEnd = bytes.subarray(0, HEADER_BYTES_MAX).indexOf('\n', MAGIC.length) + 1;
  const signedBytes = bytes.length - SIGNATURE_BYTES;
  if (headerEnd === 0 || signedBytes <= headerEnd) return { refused: 'it is damaged or not complete' };
  const header = parseJson(ExportHeader, bytes.toString('utf8', MAGIC.length, headerEnd));
  if (!header) return { refused: 'its header is damaged' };
  return {
    header,
    preamble: bytes.subarray(0, headerEnd),
    sealed: bytes.subarray(headerEnd, signedBytes),
    sha512: createHash('sha512').update(bytes.subarray(0, signedBytes)).digest(),
    signature: bytes.subarray(signedBytes),
  };
}

export interface ExportContent {
  /** As they would be published. */
  readonly batches: readonly Buffer[];
  readonly last: boolean;
}

/** @param preamble of the file that `plain` was in @returns the content, or why it is none */
export function readExportContent(
  plain: Buffer,
  preamble: Uint8Array,
): ExportContent | { readonly refused: string } {
  const refused = { refused: 'its content is not as a gateway writes it' };
  const batches: Buffer[] = [];
  let offset = 0;
  for (let index = 0; offset + RECORD_HEADER_BYTES <= plain.length; index++) {
    const kind = plain[offset]!;
    const from = offset + RECORD_HEADER_BYTES;
    offset = from + plain.readUInt32LE(offset + 1);
    if (offset > plain.length) return refused;
    const content = plain.subarray(from, offset);
    if (index === 0) {
      if (kind !== RecordKind.preamble) return refused;
      if (!content.equals(preamble)) return { refused: 'its content was written for another file' };
    } else if (kind === RecordKind.batch && content.length <= limits.batchWireBytesMax) batches.push(content);
    else if (kind === RecordKind.end && offset === plain.length) return ended(content) ?? refused;
    else return refused;
  }
  return refused;

  function ended(content: Buffer): ExportContent | null {
    const end = parseJson(ExportEnd, content.toString('utf8'));
    return end && end.batches === batches.length ? { batches, last: end.last } : null;
  }
}

function parseJson<T>(schema: z.ZodType<T>, text: string): T | null {
  try {
    return schema.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}
