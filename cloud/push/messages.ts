/** The WebSocket messages of `/push`, JSON text frames. */
import { z } from 'zod';
import { isDeviceId, isSiteId } from '../../protocol/ids.ts';
import type { IncidentTransition } from '../actors/incident.ts';
import type { TwinView } from '../twin-json.ts';

const SUBSCRIPTIONS_PER_MESSAGE = 1000;

const siteName = z.string().refine(isSiteId, 'not a site name');
const twinName = z.string().refine(text => {
  const slash = text.indexOf('/');
  return slash > 0 && isSiteId(text.slice(0, slash)) && isDeviceId(text.slice(slash + 1));
}, 'not a twin name: site/device');

const scopes = {
  sites: z.array(siteName).max(SUBSCRIPTIONS_PER_MESSAGE).default([]),
  twins: z.array(twinName).max(SUBSCRIPTIONS_PER_MESSAGE).default([]),
};

export const ClientMessage = z.discriminatedUnion('type', [
  z.object({ type: z.literal('subscribe'), ...scopes }),
  z.object({ type: z.literal('unsubscribe'), ...scopes }),
  /** Browsers cannot send WebSocket pings: this is how a page asks whether anybody is there. */
  z.object({ type: z.literal('ping') }),
]);
export type ClientMessage = z.output<typeof ClientMessage>;

/** `site:demo` or `twin:demo/pump-1`; also the topic in uWebSockets. */
export type Scope = `site:${string}` | `twin:${string}`;

export const snapshotMessage = (
  scope: Scope,
  twins: readonly TwinView[],
  part: number,
  parts: number,
): string => JSON.stringify({ type: 'snapshot', scope, part, parts, twins });

export const updateMessage = (site: string, fragments: readonly string[]): string =>
  `{"type":"update","site":${JSON.stringify(site)},"twins":[${fragments.join(',')}]}`;

/** Incidents that opened or cleared; `clearedAt` says which. */
export const incidentsMessage = (site: string, incidents: readonly IncidentTransition[]): string =>
  JSON.stringify({ type: 'incidents', site, incidents });

export const PONG = JSON.stringify({ type: 'pong' });

export const errorMessage = (code: string, detail: string): string =>
  JSON.stringify({ type: 'error', code, detail });
