/**
 * Dead links of one partition's gateways, as incidents of their sites. Judged about every second by who owns the
 * partition, from the hellos that every node hears; what is open is known from history and from Redis's outbox, so
 * whoever takes over goes on with the same incident.
 */
import type { Pool } from 'pg';
import type { SiteId } from '../protocol/ids.ts';
import type { IncidentTransition } from './actors/incident.ts';
import { HEARD, judgeLink, type LinkState, linkStateOf } from './actors/link.ts';
import type { GatewayPresence } from './gateway-memory.ts';

export interface LinkWatch {
  /** @param silentSince when it was last heard, if that is too long ago; else null. @returns what there is to tell */
  judge(
    presence: GatewayPresence,
    silentSince: number | null,
    unsettled: ReadonlyMap<string, IncidentTransition>,
  ): Promise<IncidentTransition | null>;
}

export function openLinkWatch(pool: Pool): LinkWatch {
  /** By site, then by gateway. */
  const known = new Map<string, Map<string, LinkState>>();

  async function openIn(
    site: SiteId,
    unsettled: ReadonlyMap<string, IncidentTransition>,
  ): Promise<Map<string, LinkState>> {
    const { rows } = await pool.query<IncidentTransition>(
      `select id, rule, kind, severity, site, device, metric, summary, threshold, late,
              extract(epoch from opened_at)::float8 * 1000 as "openedAt", opened_value as "openedValue",
              null as "clearedAt", null as "clearedValue"
         from holdfast.incident where site = $1 and kind = 'link' and cleared_at is null`,
      [site],
    );
    const states = new Map<string, LinkState>();
    for (const incident of [...rows, ...unsettled.values()]) {
      if (incident.kind !== 'link') continue;
      const gateway = gatewayOf(incident);
      states.set(gateway, incident.clearedAt === null ? linkStateOf(incident) : HEARD);
    }
    return states;
  }

  return {
    async judge(presence, silentSince, unsettled) {
      const { site, gateway } = presence;
      let states = known.get(site);
      if (!states) {
        states = await openIn(site, unsettled);
        known.set(site, states);
      }
      const before = states.get(gateway) ?? HEARD;
      const news = { site, gateway, silentSince, completeUntil: null, now: Date.now() };
      const { state, transition } = judgeLink(before, news);
      states.set(gateway, state);
      return transition;
    },
  };
}

/** `link:<site>/<gateway>:<number>`; neither name has a colon. */
const gatewayOf = (incident: IncidentTransition): string =>
  incident.id.slice(incident.id.indexOf('/') + 1, incident.id.lastIndexOf(':'));
