/** The sites history knows, with their number of twins; read at most every two seconds. */
import type { Pool } from 'pg';

export interface SiteEntry {
  readonly site: string;
  readonly twins: number;
}

export interface SiteDirectory {
  sites(): Promise<readonly SiteEntry[]>;
}

const READ_AGAIN_MS = 2000;

export function openSiteDirectory(pool: Pool): SiteDirectory {
  let readAt = Number.NEGATIVE_INFINITY;
  let reading: Promise<readonly SiteEntry[]> = Promise.resolve([]);
  return {
    sites() {
      if (performance.now() - readAt < READ_AGAIN_MS) return reading;
      readAt = performance.now();
      reading = pool
        .query<SiteEntry>(
          `select l.site, (select count(*)::int from holdfast.twin t where t.site = l.site) as twins
             from (select distinct site from holdfast.gateway_log) l order by l.site`,
        )
        .then(({ rows }) => rows);
      reading.catch(() => {
        readAt = Number.NEGATIVE_INFINITY;
      });
      return reading;
    },
  };
}

export const siteNames = (sites: readonly SiteEntry[]): string[] => sites.map(entry => entry.site);
