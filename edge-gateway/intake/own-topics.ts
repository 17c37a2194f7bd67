/**
 * What gateways say of themselves at the broker, pure: the topics below `holdfast/gateways/`, and what stands there.
 *
 *   holdfast/gateways/<site>/<gateway>/status   retained: online, or offline as the will
 *   holdfast/gateways/<site>/<session>/mark     a note to oneself: all that was queued before it has come
 *
 * No message below this prefix is ever a reading.
 */
import { z } from 'zod';
import type { GatewayId, SiteId } from '../../protocol/ids.ts';

const ROOT = 'holdfast/gateways/';

export const isOwnTopic = (topic: string): boolean => topic.startsWith(ROOT);
export const statusTopic = (site: SiteId, gateway: GatewayId): string => `${ROOT}${site}/${gateway}/status`;
export const statusFilter = (site: SiteId): string => `${ROOT}${site}/+/status`;
/** @param session the gateway, or the group that shares the broker's session */
export const markTopic = (site: SiteId, session: GatewayId): string => `${ROOT}${site}/${session}/mark`;

/** @returns the gateway of a status topic, or null */
export function gatewayOf(topic: string): string | null {
  const levels = topic.split('/');
  return isOwnTopic(topic) && levels.length === 5 && levels[4] === 'status' ? levels[3]! : null;
}

export type Role = 'active' | 'standby';

/** Receipts carry this user property, so that another gateway at the same broker does not take one for a reading. */
export const RECEIPT_PROPERTY = 'holdfast-receipt';

const GatewayStatus = z.object({
  status: z.enum(['online', 'offline']),
  role: z.enum(['active', 'standby']).optional(),
  /** The gateways that stand in for one another; null for one that is alone. */
  group: z.string().nullable(),
  /** Wall clock of the gateway's start, milliseconds since 1970. */
  since: z.number().optional(),
});
export type GatewayStatus = z.infer<typeof GatewayStatus>;

/** @returns null for what is no status */
export function readStatus(payload: Uint8Array): GatewayStatus | null {
  try {
    const parsed = GatewayStatus.safeParse(JSON.parse(Buffer.from(payload).toString()));
    return parsed.success ? parsed.data : null;
  } catch {
    return null;
  }
}
