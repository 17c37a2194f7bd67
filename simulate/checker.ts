/**
 * Compares both ways what was acknowledged with what history has, by the devices' own counters, and what twins, Redis and
 * dashboards show with a clean fold of history. It asks nothing of the cluster but its tables and screens.
 */
import { isAfter } from '../cloud/actors/order.ts';
import { restoreTwin } from '../cloud/twin-json.ts';
import type { Cluster } from './cluster.ts';
import type { Fault, FaultKind } from './faults.ts';
import { messageKey } from './journal.ts';
import { THRESHOLD } from './rules.ts';

export interface Verdict {
  readonly acknowledged: number;
  readonly lost: number;
  readonly duplicates: number;
  readonly phantoms: number;
  readonly regressions: number;
  readonly staleEffects: number;
  readonly wrongIncidents: number;
  /** One line about each of the first few. */
  readonly details: readonly string[];
}

interface StoredReading {
  readonly n: number;
  readonly v: number;
  readonly at: number;
  readonly log: string;
  readonly sequence: number;
  readonly element: number;
  /** Of a log of which something came by the backfill lane. */
  readonly isLate: boolean;
}

export function check(cluster: Cluster): Verdict {
  const { journal, postgres, redis, pages } = cluster;
  const details: string[] = [];
  const complain = (line: string) => {
    details.push(line);
    return 1;
  };
  const names = postgres.names();
  const { tables } = postgres;
  const byDevice = new Map<string, StoredReading[]>();
  const times = new Map<string, number>();
  let phantoms = 0;
  for (const row of tables.rows) {
    const device = names.device(row.device);
    const n = names.n(row);
    if (device === undefined || n === undefined) {
      phantoms += complain(`phantom: a row of device ${row.device} that the dictionary does not have`);
      continue;
    }
    const key = messageKey(device, n);
    const v = names.v(row)!;
    if (journal.published.get(key) !== v) phantoms += complain(`phantom: ${key} with the value ${v}`);
    times.set(key, (times.get(key) ?? 0) + 1);
    const of = tables.logs.get(row.log);
    const { at, sequence, element } = row;
    const reading = {
      n,
      v,
      at,
      log: of?.logId ?? '',
      sequence,
      element,
      isLate: (of?.late ?? 0) > 0,
    };
    const known = byDevice.get(device);
    if (known) known.push(reading);
    else byDevice.set(device, [reading]);
  }
  let lost = 0;
  for (const key of journal.acknowledged) if (!times.has(key)) lost += complain(`lost: ${key}`);
  let duplicates = 0;
  for (const [key, count] of times) {
    const repeated = count - (journal.handedTo.get(key)?.size ?? 1);
    if (repeated > 0) duplicates += complain(`double: ${key}`) * repeated;
  }

  const wentBack = mayBeForgotten(cluster.faults) ? [] : journal.regressions;
  let regressions = wentBack.length;
  details.push(...wentBack.slice(0, 5));
  for (const [key, readings] of byDevice) {
    const newest = readings.reduce((a, b) => (isAfter(b, a) ? b : a));
    const [site = '', device = ''] = key.split('/');
    const differs = (what: string, shown: { value: unknown; at: number } | undefined) => {
      if (shown?.value === newest.n && shown.at === newest.at) return;
      const is = shown ? `${shown.value} of ${shown.at}` : 'nothing';
      regressions += complain(
        `not the newest: ${key} ${what} has ${is}, history ${newest.n} of ${newest.at}`,
      );
    };
    const stored = tables.twins.get(key);
    const metric = (json: string | undefined) =>
      json === undefined ? undefined : restoreTwin(site, device, json)?.metrics.get('n');
    differs('checkpoint', metric(stored?.state));
    differs('in Redis', metric(redis.stored(site, device)));
    pages.forEach((page, index) => {
      differs(`on page ${index + 1}`, page.fleet.twins.get(key)?.metrics.get('n') as never);
    });
  }
  const wrongIncidents = checkIncidents(cluster, byDevice, complain);
  details.push(...journal.staleEffects.slice(0, 5));
  return {
    acknowledged: journal.acknowledged.size,
    lost,
    duplicates,
    phantoms,
    regressions,
    staleEffects: journal.staleEffects.length,
    wrongIncidents,
    details: details.slice(0, 12),
  };
}

/**
 * The incidents of the table against those of a clean fold of history, in the order of the readings. Each of the table began
 * with a reading above the threshold, lies over one of the fold, and over no other of the table; each of the fold is covered
 * by the table; what is open in the end is what the newest reading says. Where the readings of a device came in their own
 * order, they are the same. What was judged on time may differ in its ends: it was told before what came late was known.
 */
function checkIncidents(
  { postgres, journal, wasRestored, faults, sites }: Cluster,
  byDevice: ReadonlyMap<string, readonly StoredReading[]>,
  complain: (line: string) => number,
): number {
  let wrong = 0;
  const all = [...postgres.tables.incidents.values()];
  for (const { kind, id, clearedAt } of all) {
    if (kind === 'link' && clearedAt === null) wrong += complain(`a link is dead for ever: ${id}`);
  }
  const isForgotten = mayBeForgotten(faults);
  for (const [id, isOver] of isForgotten ? [] : journal.pages) {
    const incident = postgres.tables.incidents.get(id);
    if (!incident || (isOver && incident.clearedAt === null)) {
      wrong += complain(`people know what the table does not: ${id}${isOver ? ' is over' : ''}`);
    }
  }
  const clocksSet = new Set<string>(
    faults.flatMap(({ kind, which }) => (kind === 'gateway-clock' ? sites[which % sites.length]!.site : [])),
  );
  const ofDevice = Map.groupBy(all, ({ site, device }) => `${site}/${device}`);
  for (const [device, readings] of byDevice) {
    const incidents = (ofDevice.get(device) ?? []).sort((a, b) => a.openedAt - b.openedAt);
    const inOrder = [...readings].sort((a, b) => (isAfter(a, b) ? 1 : -1));
    const opens = new Map(
      inOrder.map(reading => [`${reading.log}:${reading.sequence}.${reading.element}`, reading]),
    );
    const expected = foldOf(inOrder);
    const about = () => `${textOf(incidents)}; by a clean fold: ${textOf(expected)}`;
    incidents.forEach((incident, index) => {
      const opening = opens.get(incident.id.split(':').slice(2).join(':'));
      if (!opening || opening.v <= THRESHOLD.above) wrong += complain(`incident of nothing: ${incident.id}`);
      const next = incidents[index + 1];
      if (!isForgotten && next && (incident.clearedAt === null || incident.clearedAt > next.openedAt)) {
        wrong += complain(`two incidents of one cause: ${incident.id} and ${next.id}: ${about()}`);
      }
      if (!expected.some(one => overlap(one, incident))) wrong += complain(`made up: ${device}: ${about()}`);
    });
    // After a gateway's clock was set back, what arrived before is judged when it has come so far again: later than a run lasts.
    const isJudgedLater = clocksSet.has(device.split('/')[0]!);
    for (const one of expected) {
      if (!isJudgedLater && !isForgotten && !incidents.some(incident => overlap(one, incident)))
        wrong += complain(`missing: ${device} ${one.openedAt % 1e6}: ${about()}`);
    }
    const newest = inOrder.at(-1)!;
    const open = incidents.some(({ clearedAt }) => clearedAt === null);
    if (newest.v > THRESHOLD.above && !open) wrong += complain(`no incident is open: ${device}`);
    if (newest.v <= THRESHOLD.above - THRESHOLD.hysteresis && open) {
      wrong += complain(`an incident was never cleared: ${device}`);
    }
    const cameInOrder =
      readings.every((reading, index) => index === 0 || isAfter(reading, readings[index - 1]!)) &&
      readings.every(({ isLate }) => !isLate);
    if (
      cameInOrder &&
      !isForgotten &&
      !isJudgedLater &&
      !wasRestored() &&
      textOf(expected) !== textOf(incidents)
    ) {
      wrong += complain(`incidents of ${device}, which came in order: ${about()}`);
    }
  }
  return wrong;
}

/**
 * Until history has it, what people were shown or told is known to the site's owner and to Redis, and follows from the stream.
 * When the owner, Redis, and stream or history were all hit in one run, nothing may know of it any more.
 */
function mayBeForgotten(faults: readonly Fault[]): boolean {
  const hit = (...kinds: readonly FaultKind[]) => faults.some(({ kind }) => kinds.includes(kind));
  return (
    // Of the owner of a Redis that goes back, too.
    hit(
      'node-kill',
      'node-stop',
      'node-pause',
      'node-cut-postgres',
      'node-cut-nats',
      'cloud-lost',
      'redis-stale',
    ) &&
    hit('redis-stop', 'redis-wiped', 'redis-stale', 'node-cut-redis') &&
    (hit('postgres-stop', 'postgres-slow', 'postgres-answers-lost', 'node-cut-postgres', 'cloud-lost') ||
      hit('stream-deleted', 'stream-purged', 'nats-emptied'))
  );
}

interface Span {
  readonly openedAt: number;
  readonly clearedAt: number | null;
  readonly late?: boolean;
}

const overlap = (a: Span, b: Span): boolean =>
  a.openedAt === b.openedAt ||
  (a.openedAt < (b.clearedAt ?? Number.POSITIVE_INFINITY) &&
    b.openedAt < (a.clearedAt ?? Number.POSITIVE_INFINITY));

const textOf = (list: readonly Span[]): string =>
  list.map(({ openedAt, clearedAt }) => `${openedAt}-${clearedAt ?? ''}`).join(' ');

function foldOf(readings: readonly StoredReading[]): Span[] {
  const incidents: { openedAt: number; clearedAt: number | null }[] = [];
  for (const { v, at } of readings) {
    const last = incidents.at(-1);
    const isOpen = last?.clearedAt === null;
    if (!isOpen && v > THRESHOLD.above) incidents.push({ openedAt: at, clearedAt: null });
    if (isOpen && v <= THRESHOLD.above - THRESHOLD.hysteresis) last.clearedAt = at;
  }
  return incidents;
}
