/**
 * Finds certificates in their folder, for whoever reads messages: the batch builder, a worker thread, the session of the
 * intake. Files never change, so what was read once may be kept; the memory is bounded and starts again when it is full
 * (F).
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Birth, birthOf, type Certificate, nodeHash, openCertificate } from './certificate.ts';

export interface CertificateReader {
  /** @returns null when it is not there, damaged, or no birth */
  birth(node: string, id: string): Birth | null;
  /** @returns null when it is not there, damaged, or no list of devices */
  devices(node: string, id: string): readonly string[] | null;
}

const MEMORY_CHARACTERS_MAX = 8 * 1024 * 1024;
const ID = /^[0-9a-f]{32}$/;

export const fileNameOf = (node: string, id: string): string => `${nodeHash(node)}-${id}.json`;

export const newCertificateReader = (folder: string): CertificateReader =>
  readerOf((node, id) => readFileSync(join(folder, fileNameOf(node, id)), 'utf8'));

/** For a single message outside of a gateway. */
export const readerOfTexts = (texts: ReadonlyMap<string, string>): CertificateReader =>
  readerOf((_, id) => texts.get(id) ?? '');

/** @param read may throw a system error: then the certificate is not there */
function readerOf(read: (node: string, id: string) => string): CertificateReader {
  type Known = { readonly certificate: Certificate; birth: Birth | null };
  const known = new Map<string, Known>();
  let characters = 0;

  function find(node: string, id: string): Known | null {
    if (!ID.test(id)) return null;
    const key = `${id} ${node}`;
    const found = known.get(key);
    if (found) return found;
    let text: string;
    try {
      text = read(node, id);
    } catch {
      return null;
    }
    const certificate = openCertificate(id, text);
    if (certificate === null || !isOf(certificate, node)) return null;
    const entry = { certificate, birth: 'metrics' in certificate ? birthOf(certificate) : null };
    if (characters > MEMORY_CHARACTERS_MAX) {
      known.clear();
      characters = 0;
    }
    characters += text.length;
    known.set(key, entry);
    return entry;
  }

  return {
    birth: (node, id) => find(node, id)?.birth ?? null,
    devices(node, id) {
      const certificate = find(node, id)?.certificate;
      return certificate && 'devices' in certificate ? certificate.devices : null;
    },
  };
}

const isOf = ({ of }: Certificate, node: string): boolean => of === node || of.startsWith(`${node}/`);
