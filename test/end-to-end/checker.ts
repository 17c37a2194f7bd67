/**
 * Counts what arrived, by the publisher's own (device, n) and never by Holdfast's sequences: missing, duplicates and
 * phantoms in history; the twins against history; the ledger for holes (invariants A, B, C).
 */
import assert from 'node:assert/strict';
import { viewStoredTwin } from '../../cloud/twin-json.ts';
import { compareCounters, storedCounters } from '../../deploy/faults/stored-counters.ts';
import type { Journal } from './publisher.ts';
import { gatewayEntries, type Scene, until } from './scene.ts';

export interface Count {
  readonly published: number;
  readonly acknowledged: number;
  /** Different (device, n) in history. */
  readonly stored: number;
  /** Acknowledged and not in history. */
  readonly missing: number;
  /** Rows beyond the first of a (device, n). */
  readonly duplicates: number;
  /** In history and never published. */
  readonly phantoms: number;
}

const HEALED_MS = 60_000;

/**
 * Waits until every acknowledged message is in history, says and checks the count, then checks that the twins in Redis
 * and over HTTP are the newest of history.
 * @returns the count, of which missing, duplicates and phantoms are 0
 */
export async function checkAll(scene: Scene, site: string, journal: Journal, name: string): Promise<Count> {
  // At the deadline the count itself says what is missing.
  await until('every acknowledged message is in history', HEALED_MS, async () => {
    return (await countHistory(scene, site, journal)).missing === 0;
  }).catch(() => {});
  const count = await countHistory(scene, site, journal);
  report(name, count);
  assertExact(count, name);
  await checkTwins(scene, site, journal);
  return count;
}

export function assertExact({ missing, duplicates, phantoms }: Count, name: string): void {
  assert.deepEqual(
    { missing, duplicates, phantoms },
    { missing: 0, duplicates: 0, phantoms: 0 },
    `${name}: every acknowledged reading once`,
  );
}

export function report(name: string, count: Count): void {
  const figures = Object.entries(count).map(([what, figure]) => `${what} ${figure}`);
  console.log(`${name}: ${figures.join(', ')}`);
}

export async function countHistory(scene: Scene, site: string, journal: Journal): Promise<Count> {
  const devices = [...journal.keys()];
  const rows = await storedCounters(scene.postgres, { site, devices, metric: 'n' });
  const { acknowledged, stored, missing, duplicates, phantoms } = compareCounters(journal, rows);
  const published = [...journal.values()].reduce((sum, { published: of }) => sum + of, 0);
  return { published, acknowledged, stored, missing: missing.length, duplicates, phantoms };
}

interface Newest {
  readonly device: string;
  readonly value: number;
  readonly at: number;
}

/** The twin is the fold of history (C): by time, then log, sequence and element. */
async function newestInHistory(scene: Scene, site: string, devices: readonly string[]): Promise<Newest[]> {
  const { rows } = await scene.postgres.query<Newest>(
    `select distinct on (r.device) r.device, r.value, extract(epoch from r.time)::float8 * 1000 as at
       from holdfast.reading r join holdfast.gateway_log l on l.id = r.log
      where r.site = $1 and r.device = any ($2) and r.metric = 'n'
      order by r.device, r.time desc, l.log_id collate "C" desc, r.sequence desc, r.element desc`,
    [site, devices],
  );
  return rows.map(({ device, value, at }) => ({ device, value, at: Math.round(at) }));
}

export async function checkTwins(scene: Scene, site: string, journal: Journal): Promise<void> {
  const devices = [...journal.keys()].sort();
  const newest = await newestInHistory(scene, site, devices);
  newest.sort((a, b) => (a.device < b.device ? -1 : 1));
  let inRedis: Newest[] = [];
  let overHttp: Newest[] = [];
  const equal = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);
  await until('the twins are the newest of history', 10_000, async () => {
    inRedis = await twinsInRedis(scene, site, devices);
    overHttp = await twinsOverHttp(scene, site, devices);
    return equal(inRedis, newest) && equal(overHttp, newest);
  }).catch(() => {});
  assert.deepEqual(inRedis, newest, 'twins in Redis');
  assert.deepEqual(overHttp, newest, 'twins over HTTP');
  for (const { device, value } of newest) {
    const { published, ownTimestamps } = journal.get(device)!;
    if (ownTimestamps) assert.equal(value, published, `the newest of ${device} is its last message`);
  }
}

async function twinsInRedis(scene: Scene, site: string, devices: readonly string[]): Promise<Newest[]> {
  const stored = await scene.redis.mget(devices.map(device => `{${site}}:twin:${device}`));
  return stored.flatMap((json, index) => {
    if (json === null) return [];
    const { value, at } = viewStoredTwin(site, devices[index]!, json).metrics.n!;
    return [{ device: devices[index]!, value: value as number, at }];
  });
}

async function twinsOverHttp(scene: Scene, site: string, devices: readonly string[]): Promise<Newest[]> {
  const wanted = new Set(devices);
  const found: Newest[] = [];
  let after = '';
  do {
    const page = await scene.get<{
      twins: { device: string; metrics: { n?: { value: number; at: number } } }[];
      next: string | null;
    }>(`/twins?site=${site}&limit=1000${after === '' ? '' : `&after=${encodeURIComponent(after)}`}`);
    for (const { device, metrics } of page.twins) {
      if (wanted.has(device) && metrics.n) found.push({ device, ...metrics.n });
    }
    after = page.next ?? '';
  } while (after !== '');
  return found.sort((a, b) => (a.device < b.device ? -1 : 1));
}

/** Every gateway says that history has settled all it holds, and the site's ledger has no hole. */
export async function checkLedger(scene: Scene, site: string): Promise<void> {
  await until('every gateway knows that all is settled', 30_000, async () => {
    const askedAt = Date.now();
    const entries = await gatewayEntries(scene);
    return entries.length > 0 && entries.every(entry => entry.unsettledMessages === 0) ? askedAt : false;
  });
  const { rows } = await scene.postgres.query<{ site: string; gateway: string; settled: string }>(
    `select site, gateway, settled::text from holdfast.gateway_log
      where site = $1 and not isempty(settled) and settled <> int8multirange(int8range(1, upper(settled)))`,
    [site],
  );
  assert.deepEqual(rows, [], 'the ledger of every log is one range from 1 on');
}
