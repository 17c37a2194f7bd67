/**
 * The NATS subjects, in one place. A gateway's credentials name exactly its own subjects, so site and gateway are
 * taken from the subject, never from a payload (invariant S).
 *
 *   ingest.<partition>.<lane>.<site>.<gateway>   gateway → cloud   batches, in the JetStream stream `ingest`
 *   hello.<site>.<gateway>                       gateway → cloud   request: what has history settled?
 *   settled.<site>.<gateway>                     cloud → gateway   after each history commit
 *   push.<site>                                  actor → push node changed twins
 *   push.<site>.incidents                        actor → push node incidents that opened or cleared
 */
import { crc32 } from 'node:zlib';
import type { GatewayId, SiteId } from './ids.ts';
import { isGatewayId, isSiteId } from './ids.ts';

export const INGEST_STREAM = 'ingest';
export const PARTITIONS_DEFAULT = 64;

/** New data travels in the live lane; a backlog behind it, in the backfill lane. */
export const lanes = ['live', 'backfill'] as const;
export type Lane = (typeof lanes)[number];

/** The unit of ownership a site belongs to: hash(site) mod `partitions`, the same in every version. */
export const partitionOf = (site: SiteId, partitions: number): number => crc32(site) % partitions;

export const ingestSubject = (partition: number, lane: Lane, site: SiteId, gateway: GatewayId): string =>
  `${INGEST_STREAM}.${partition}.${lane}.${site}.${gateway}`;
export const ingestFilter = (partition: number, lane: Lane): string =>
  `${INGEST_STREAM}.${partition}.${lane}.>`;
export const helloSubject = (site: SiteId, gateway: GatewayId): string => `hello.${site}.${gateway}`;
export const HELLO_FILTER = 'hello.*.*';
export const settledSubject = (site: SiteId, gateway: GatewayId): string => `settled.${site}.${gateway}`;
export const pushSubject = (site: SiteId): string => `push.${site}`;
export const pushIncidentsSubject = (site: SiteId): string => `push.${site}.incidents`;
export const inboxPrefix = (site: SiteId, gateway: GatewayId): string => `_INBOX_${site}_${gateway}`;

export interface IngestAddress {
  partition: number;
  lane: Lane;
  site: SiteId;
  gateway: GatewayId;
}

/** @returns the parts of an ingest subject, or null when it is not one. */
export function parseIngestSubject(subject: string): IngestAddress | null {
  const [stream, partitionText = '', lane, site = '', gateway = '', ...rest] = subject.split('.');
  const partition = Number(partitionText);
  if (stream !== INGEST_STREAM || rest.length > 0 || !Number.isInteger(partition)) return null;
  if (lane !== 'live' && lane !== 'backfill') return null;
  if (!isSiteId(site) || !isGatewayId(gateway)) return null;
  return { partition, lane, site, gateway };
}

/** @returns site and gateway of a `hello.<site>.<gateway>` subject, or null when it is not one. */
export function parseHelloSubject(subject: string): { site: SiteId; gateway: GatewayId } | null {
  const [kind, site = '', gateway = '', ...rest] = subject.split('.');
  if (kind !== 'hello' || rest.length > 0 || !isSiteId(site) || !isGatewayId(gateway)) return null;
  return { site, gateway };
}
