/**
 * What must be known to read a Sparkplug message later, as a file that never changes. Pure.
 *
 *   birth    of a node or device: its metrics' aliases, names and datatypes. Values and times are not in it, so that a device
 *            that is born again and again with the same metrics has one file.
 *   devices  of a node: those that were there when it died, and are offline with it.
 *
 * The id of a certificate is a hash of its content: what is read under an id is what was meant, or is found damaged (I).
 */
import { createHash } from 'node:crypto';
import type { Alias, SparkplugPayload } from './payload.ts';

export type Certificate =
  | { readonly of: string; readonly metrics: readonly (readonly [Alias | null, string, number])[] }
  | { readonly of: string; readonly devices: readonly string[] };

export interface SealedCertificate {
  /** 32 hex digits. */
  readonly id: string;
  readonly text: string;
}

/** A birth as data messages need it. */
export interface Birth {
  /** `group/node` or `group/node/device`. */
  readonly of: string;
  readonly byAlias: ReadonlyMap<Alias, KnownMetric>;
  readonly byName: ReadonlyMap<string, KnownMetric>;
}

export interface KnownMetric {
  readonly name: string;
  readonly datatype: number;
}

const hash = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 32);

/** Where the certificates of a node stand: a frame of one node never finds those of another (S). */
export const nodeHash = (node: string): string => hash(node).slice(0, 16);

export function sealCertificate(certificate: Certificate): SealedCertificate {
  const text = JSON.stringify(certificate);
  return { id: hash(text), text };
}

/** @returns null when the text is not what the id was given for */
export function openCertificate(id: string, text: string): Certificate | null {
  return hash(text) === id ? (JSON.parse(text) as Certificate) : null;
}

/** @param of `group/node` or `group/node/device` */
export function birthCertificate(of: string, { metrics }: SparkplugPayload): SealedCertificate {
  const known = metrics.flatMap(({ alias, name, datatype }) =>
    name === null || datatype === null ? [] : [[alias, name, datatype] as const],
  );
  return sealCertificate({ of, metrics: known });
}

export const devicesCertificate = (of: string, devices: readonly string[]): SealedCertificate =>
  sealCertificate({ of, devices: [...devices].sort() });

/** An alias that a birth gives to two metrics names neither. */
export function birthOf({ of, metrics }: Extract<Certificate, { metrics: unknown }>): Birth {
  const byAlias = new Map<Alias, KnownMetric>();
  const byName = new Map<string, KnownMetric>();
  const twice = new Set<Alias>();
  for (const [alias, name, datatype] of metrics) {
    byName.set(name, { name, datatype });
    if (alias === null) continue;
    if (byAlias.has(alias) && byAlias.get(alias)!.name !== name) twice.add(alias);
    byAlias.set(alias, { name, datatype });
  }
  for (const alias of twice) byAlias.delete(alias);
  return { of, byAlias, byName };
}
