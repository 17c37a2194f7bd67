/**
 * What became of everything, once all is healed: journals of the devices and of the wire against history, history against the twins
 * wherever they are kept or shown, and the incidents against the teeth of the saw.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { viewStoredTwin } from '../../cloud/twin-json.ts';
import { type CountInput, count, type MessageCount, readHistory } from '../faults/count.ts';
import type { Devices } from '../faults/devices.ts';
import type { StoredCounter } from '../faults/stored-counters.ts';
import type { ChaosCluster } from './cluster.ts';
import { CHAOS_RULE, chaosValue, type FoundIncident, wrongIncidents } from './incidents.ts';
import { type PagedIncident, type PageReceiver, wrongPages } from './pages.ts';

export interface Verdict {
  /** Of all sites together. */
  readonly messages: MessageCount;
  /** Rows beyond the first that two gateways of a site have of one message: the broker gave it to both. */
  readonly repeatedBetweenGateways: number;
  /** One line per twin that is not the fold of history. */
  readonly wrongTwins: readonly string[];
  readonly wrongIncidents: readonly string[];
  readonly wrongPages: readonly string[];
  readonly incidents: number;
  readonly details: readonly string[];
  /** Whether the last message of every device is in history. */
  readonly complete: boolean;
}

const FIGURES = [
  'published',
  'acknowledged',
  'stored',
  'late',
  'thinned',
  'lost',
  'lost_at_broker',
  'duplicates',
  'repeated_unmarked',
  'phantoms',
] as const satisfies readonly (keyof MessageCount)[];

export async function judge(
  cluster: ChaosCluster,
  fleet: ReadonlyMap<string, Devices>,
  brokerKilledAt: ReadonlyMap<string, readonly number[]>,
  pages: PageReceiver,
): Promise<Verdict> {
  const total = Object.fromEntries(FIGURES.map(name => [name, 0])) as Record<keyof MessageCount, number>;
  const details: string[] = [];
  const wrongTwins: string[] = [];
  const incidentsWrong: string[] = [];
  let repeatedBetweenGateways = 0;
  let incidents = 0;
  let complete = true;
  for (const [site, { journals }] of fleet) {
    const history = await readHistory(cluster.database, site, journals, chaosValue);
    const shared = await repeatedByOtherBoxes(cluster, site);
    const stored = history.stored.map((row): StoredCounter => {
      const forgiven = Math.min(row.times - 1, shared.get(`${row.device} ${row.n}`) ?? 0);
      repeatedBetweenGateways += forgiven;
      return { ...row, times: row.times - forgiven };
    });
    const verdict = count({
      journals,
      tap: tapOf(cluster, site),
      brokerKilledAt: brokerKilledAt.get(site) ?? [],
      ...history,
      stored,
    });
    for (const name of FIGURES) total[name] += verdict.count[name];
    details.push(...verdict.details.map(line => `${site}: ${line}`));
    if (verdict.count.duplicates > 0) details.push(...(await rowsOfDoubles(cluster, site)));

    const found = Map.groupBy(stored, row => row.device);
    for (const { device, published } of journals) {
      if (!found.get(device)?.some(({ n }) => n === published)) complete = false;
    }
    wrongTwins.push(...(await twinsThatDiffer(cluster, site)));
    const counters = new Map([...found].map(([device, rows]) => [device, rows.map(({ n }) => n)]));
    const there = await foundIncidents(cluster, site);
    incidents += there.length;
    incidentsWrong.push(...wrongIncidents(journals, counters, there).map(line => `${site}: ${line}`));
  }
  return {
    messages: total,
    repeatedBetweenGateways,
    wrongTwins,
    wrongIncidents: incidentsWrong,
    wrongPages: wrongPages(await pagedIncidents(cluster), pages),
    incidents,
    details,
    complete,
  };
}

/**
 * Gateways that stand in for one another share the broker's session: under a packet id that one remembers the other may have been
 * given another message since, so the broker's mark of a repetition means nothing to them.
 */
function tapOf(cluster: ChaosCluster, site: string): CountInput['tap'] {
  const tap = cluster.taps.get(site)!;
  if (cluster.gateways.filter(gateway => gateway.site === site).length === 1) return tap;
  return { ...tap, handedOver: key => tap.handedOver(key) + tap.handedOverAgain(key) };
}

/**
 * Of messages that are in history more than once: how many of the rows come from another box than the first. Two boxes that stand
 * in for one another, or that fight for one name, may both be given a message, and no rule can tell that from two equal readings.
 */
async function repeatedByOtherBoxes(cluster: ChaosCluster, site: string): Promise<Map<string, number>> {
  const { rows } = await cluster.database.query<{ device: string; n: number; logs: string[] }>(
    `select r.device, r.value as n, array_agg(l.gateway || ' ' || l.log_id) as logs
       from holdfast.reading r join holdfast.gateway_log l on l.id = r.log
      where r.site = $1 and r.metric = 'n' group by 1, 2 having count(*) > 1`,
    [site],
  );
  const seconds = new Set<string>();
  for (const gateway of cluster.gateways) {
    const folder = join(cluster.directory, 'images', `${gateway.site}-${gateway.gateway}-duplicate`, 'log');
    if (existsSync(folder)) for (const logId of readdirSync(folder)) seconds.add(logId);
  }
  return new Map(
    rows.map(({ device, n, logs }) => {
      const boxes = logs.map(log => {
        const [gateway, logId] = log.split(' ') as [string, string];
        return seconds.has(logId) ? `second ${gateway}` : gateway;
      });
      return [`${device} ${n}`, new Set(boxes).size - 1];
    }),
  );
}

/** One line for each of the first few messages that are there more than once: where each row comes from. */
async function rowsOfDoubles(cluster: ChaosCluster, site: string): Promise<string[]> {
  const { rows } = await cluster.database.query<{ line: string }>(
    `select r.device || ' ' || r.value || ': ' || string_agg(
              l.gateway || ' ' || l.log_id || ':' || r.sequence || '.' || r.element || ' of ' || r.time, ', ') as line
       from holdfast.reading r join holdfast.gateway_log l on l.id = r.log
      where r.site = $1 and r.metric = 'n' group by r.device, r.value
     having count(*) > 1 and count(*) > count(distinct l.gateway) limit 5`,
    [site],
  );
  return rows.map(({ line }) => `${site}: more than once: ${line}`);
}

/** The twin is the fold of history (C): by time, then log, sequence and element. */
async function twinsThatDiffer(cluster: ChaosCluster, site: string): Promise<string[]> {
  const { rows: newest } = await cluster.database.query<{ device: string; value: number; at: number }>(
    `select distinct on (r.device) r.device, r.value, extract(epoch from r.time)::float8 * 1000 as at
       from holdfast.reading r join holdfast.gateway_log l on l.id = r.log
      where r.site = $1 and r.metric = 'n'
      order by r.device, r.time desc, l.log_id collate "C" desc, r.sequence desc, r.element desc`,
    [site],
  );
  const wrong: string[] = [];
  const compare = (where: string, twins: ReadonlyMap<string, { value: unknown; at: number } | undefined>) => {
    for (const { device, value, at } of newest) {
      const found = twins.get(device);
      if (found && found.value === value && Math.abs(found.at - at) < 1) continue;
      const is = found ? `${found.value} of ${new Date(found.at).toISOString()}` : 'not there';
      wrong.push(
        `twin ${site}/${device} ${where} is ${is}, in history ${value} of ${new Date(at).toISOString()}`,
      );
    }
  };
  const { rows: checkpoint } = await cluster.database.query<{ device: string; state: string }>(
    'select device, state from holdfast.twin where site = $1',
    [site],
  );
  compare(
    'in the checkpoint',
    new Map(checkpoint.map(({ device, state }) => [device, viewStoredTwin(site, device, state).metrics.n])),
  );
  for (const node of cluster.nodes) {
    const response = await fetch(`${node.url}/twins?site=${site}&limit=1000`, {
      signal: AbortSignal.timeout(5000),
    });
    const { twins = [] } = (await response.json()) as {
      twins?: { device: string; metrics: { n?: { value: number; at: number } } }[];
    };
    compare(`over ${node.name}`, new Map(twins.map(({ device, metrics }) => [device, metrics.n])));
  }
  return wrong;
}

/** Of all rules: a dead link pages, too. */
async function pagedIncidents({ database }: ChaosCluster): Promise<PagedIncident[]> {
  const { rows } = await database.query<PagedIncident>(
    'select id, cleared_at is not null as cleared, late from holdfast.incident',
  );
  return rows;
}

async function foundIncidents(cluster: ChaosCluster, site: string): Promise<FoundIncident[]> {
  const { rows } = await cluster.database.query<{
    id: string;
    device: string;
    cleared: boolean;
    clearedAt: number | null;
    span: string;
  }>(
    `select id, device, cleared_at is not null as cleared,
            (extract(epoch from cleared_at) * 1000)::float8 as "clearedAt",
            case when late then 'late, ' else '' end || to_char(opened_at, 'HH24:MI:SS.MS') || ' to '
              || coalesce(to_char(cleared_at, 'HH24:MI:SS.MS'), 'now') as span
       from holdfast.incident where site = $1 and rule = $2`,
    [site, CHAOS_RULE.id],
  );
  const { rows: messages } = await cluster.database.query<{
    place: string;
    device: string;
    n: number;
    at: number;
  }>(
    `select l.log_id || ':' || r.sequence || '.' || r.element as place, r.device, r.value as n,
            (extract(epoch from r.time) * 1000)::float8 as at
       from holdfast.reading r join holdfast.gateway_log l on l.id = r.log
      where r.site = $1 and r.metric = 'n'`,
    [site],
  );
  const counterAt = new Map(messages.map(({ place, n }) => [place, n]));
  const ofDevice = Map.groupBy(messages, message => message.device);
  return rows.map(({ id, device, cleared, clearedAt, span }) => {
    const place = id.split(':').slice(-2).join(':');
    const before = (ofDevice.get(device) ?? []).filter(({ at }) => clearedAt === null || at < clearedAt);
    const lastOver = Math.max(0, ...before.map(({ n }) => n));
    return { id, device, cleared, span, openedBy: counterAt.get(place) ?? null, lastOver };
  });
}
