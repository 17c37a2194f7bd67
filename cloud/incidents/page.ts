/**
 * What a channel is told: one page per incident and event, or a digest of many. Pure. The same page always has the
 * same id and, but for what is in `data`, the same body, whoever makes it: a receiver drops what it has by `webhook-id`.
 */
import { createHash } from 'node:crypto';
import type { IncidentTransition } from '../actors/incident.ts';

export type PageEvent = 'opened' | 'cleared';

/** An incident as a page tells it. */
export type PageIncident = Omit<IncidentTransition, 'late'> & {
  /** Who cleared it by hand. */
  readonly clearedBy?: string | null;
};

export interface Page {
  readonly event: PageEvent;
  readonly incident: PageIncident;
  /** Who may send it: the owner of the site's partition, under this epoch (D). */
  readonly partition: number;
  readonly epoch: number;
  /** Since when somebody tries to deliver it, milliseconds since 1970. */
  readonly since: number;
}

/** What goes out. */
export interface Message {
  readonly id: string;
  readonly site: string;
  readonly body: string;
}

/** Incidents that a digest names; all are counted. */
export const DIGEST_INCIDENTS_MAX = 100;

export const pageKey = (incident: string, event: PageEvent): string => `${event}\n${incident}`;

/** No full stop is in it: the signature is over `id.timestamp.body`. */
export const pageId = (incident: string, event: PageEvent): string => idOf(event, incident);

const idOf = (...parts: readonly string[]): string =>
  `msg_${createHash('sha256').update(parts.join('\n')).digest('base64url').slice(0, 32)}`;

export function pageMessage({ event, incident }: Page): Message {
  const at = event === 'opened' ? incident.openedAt : (incident.clearedAt ?? incident.openedAt);
  return {
    id: pageId(incident.id, event),
    site: incident.site,
    body: JSON.stringify({
      type: `incident.${event}`,
      timestamp: isoOf(at),
      data: incidentData(incident, event),
    }),
  };
}

/** @param pages of one site, at least one */
export function digestMessage(channel: string, pages: readonly Page[]): Message {
  const { site } = pages[0]!.incident;
  const ids = pages.map(({ incident, event }) => pageId(incident.id, event));
  const count = (of: PageEvent) => pages.filter(({ event }) => event === of).length;
  return {
    id: idOf('digest', channel, ...ids.toSorted()),
    site,
    body: JSON.stringify({
      type: 'incidents.digest',
      timestamp: isoOf(Math.max(...pages.map(({ incident }) => incident.clearedAt ?? incident.openedAt))),
      data: {
        site,
        opened: count('opened'),
        cleared: count('cleared'),
        critical: pages.filter(({ incident }) => incident.severity === 'critical').length,
        // Each with the id it would have had by itself.
        pages: pages
          .slice(0, DIGEST_INCIDENTS_MAX)
          .map(({ event, incident }, index) => ({ id: ids[index], event, ...incidentData(incident, event) })),
        more: Math.max(0, pages.length - DIGEST_INCIDENTS_MAX),
      },
    }),
  };
}

export function testMessage(channel: string, now: number, nonce: string): Message {
  return {
    id: idOf('test', channel, nonce),
    site: 'test',
    body: JSON.stringify({
      type: 'channel.test',
      timestamp: isoOf(now),
      data: { channel, summary: 'Holdfast reaches this channel' },
    }),
  };
}

function incidentData(incident: PageIncident, event: PageEvent) {
  const { id, rule, kind, severity, site, device, metric, summary, threshold, openedAt, openedValue } =
    incident;
  const opening = {
    incident: id,
    rule,
    kind,
    severity,
    site,
    device,
    metric,
    summary,
    threshold,
    openedAt,
    openedValue,
  };
  if (event === 'opened') return opening;
  const { clearedAt, clearedValue, clearedBy = null } = incident;
  return { ...opening, clearedAt, clearedValue, clearedBy };
}

/** Dates end at ±8.64e15 ms; a device may claim any time. */
const isoOf = (at: number): string => new Date(Math.min(Math.max(at, -8.64e15), 8.64e15)).toISOString();
