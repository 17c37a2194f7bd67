/**
 * `holdfast chaos`: a cluster and three sites on this machine, faults drawn from a seed, and a checker with a journal of its own
 * (A, B, C, D, R).
 *
 *   plan from the seed ─▶ cluster, devices, dashboards ─▶ faults ─▶ all healed ─▶ settled ─▶ judged ─▶ table
 */
import { randomInt } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Ending, EXIT_CODE_OF_INTERRUPTED, listenForEnd } from '../demo/ending.ts';
import { messageKey } from '../faults/broker-tap.ts';
import { type Devices, startDevices } from '../faults/devices.ts';
import { makeScratchFolder, say } from '../faults/scratch.ts';
import { storedCounters } from '../faults/stored-counters.ts';
import { defaultCacheDirectory, findBinaries } from '../local/find-servers.ts';
import { removeStackFolder } from '../local/unprivileged.ts';
import { type ChaosArguments, HELP, readChaosArguments } from './arguments.ts';
import { type ChaosCluster, chaosSites, openCluster } from './cluster.ts';
import { conduct } from './conductor.ts';
import { type Dashboard, openDashboard } from './dashboard.ts';
import { CHAOS_RULE, chaosValue } from './incidents.ts';
import { openPageReceiver, type PageReceiver } from './pages.ts';
import { makePlan } from './plan.ts';
import { newRecovery, percentile } from './recovery.ts';
import { type ChaosCount, isClean, planLines, tableOf } from './report.ts';
import { openSampler } from './sampler.ts';
import { judge, type Verdict } from './verdict.ts';

const PROGRESS_MS = 5000;
const PATIENCE_MS = 60_000;
const LAST_PUBACKS_MS = 90_000;
/** For all to get through when all is healed; and for twins, incidents and pages to follow, of which a flood's digest is the last. */
const SETTLE_MS = 180_000;
const FOLLOW_MS = 75_000;
/** When as much is missing as that long ago, it does not come any more. */
const STILL_MS = 60_000;
const JUDGE_EVERY_MS = 1500;
const LINES_MAX = 15;

async function chaos(options: ChaosArguments, end: Ending): Promise<number> {
  const { seed, nodes } = options;
  const gateways = chaosSites.reduce((sum, site) => sum + site.gateways.length, 0);
  const plan = makePlan({ ...options, gateways, sites: chaosSites.length });
  if (options.planOnly) {
    for (const line of planLines(plan)) console.log(line);
    return 0;
  }
  say(`seed ${seed}: ${plan.length} faults, ${nodes} cloud nodes`);
  const binaries = await findBinaries({ cacheDirectory: defaultCacheDirectory, report: say });
  const directory = makeScratchFolder('holdfast-chaos-');
  const releases: (() => unknown)[] = [() => removeStackFolder(directory)];
  try {
    const env: Record<string, string> = options.bug
      ? { HOLDFAST_TEST_BUILD: '1', HOLDFAST_TEST_BUG: options.bug }
      : {};
    const { signal } = end;
    signal.throwIfAborted();
    const cluster = await openCluster({ directory, binaries, seed, nodes, env, report: say, signal });
    releases.push(() => cluster.close());
    const pages = await openPageReceiver();
    releases.push(() => pages.close());
    if (options.logs !== null) releases.push(() => keepLogs(cluster, options.logs!));
    await ready(cluster, pages.url);

    const fleet = new Map<string, Devices>();
    releases.push(() => Promise.all([...fleet.values()].map(devices => devices.close())));
    for (const { site } of chaosSites) {
      const devices = await startDevices({
        url: cluster.brokers.get(site)!.deviceUrl,
        count: options.devices,
        name: index => `${site}-${index}`,
        value: chaosValue,
        messagesPerSecond: options.rate / chaosSites.length,
      });
      fleet.set(site, devices);
    }
    const dashboards: Dashboard[] = [];
    const recovery = newRecovery({
      journals: new Map([...fleet].map(([site, { journals }]) => [site, journals])),
      shown: twin => Math.max(0, ...dashboards.map(({ counters }) => counters.get(twin) ?? 0)),
    });
    const sites = [...fleet.keys()];
    for (const { name, url } of cluster.nodes)
      dashboards.push(openDashboard({ name, url, sites, onNews: recovery.seen }));
    releases.push(() => dashboards.forEach(dashboard => void dashboard.close()));
    const sampler = openSampler({ redisUrl: cluster.redis.url, database: cluster.database, sites });
    releases.push(() => sampler.close());
    const sum = (of: (devices: Devices) => number) =>
      [...fleet.values()].reduce((total, devices) => total + of(devices), 0);
    const progress = setInterval(() => {
      const updates = dashboards.reduce((total, dashboard) => total + dashboard.updates, 0);
      say(
        `published ${sum(of => of.published)}, acknowledged ${sum(of => of.acknowledged)}, ${updates} updates shown`,
      );
    }, PROGRESS_MS);
    releases.push(() => clearInterval(progress));

    const faults = await conduct(plan, {
      ...{ cluster, recovery, sampler, signal, say },
      takenIsStored: (site, timeoutMs) => takenIsStored(cluster, site, fleet.get(site)!, timeoutMs),
      atEnd: release => void releases.push(release),
    });
    say('all is healed; the devices say their last word');
    for (const devices of fleet.values()) devices.lastWord();
    const finished = await Promise.all([...fleet.values()].map(of => of.finish(LAST_PUBACKS_MS)));
    if (finished.includes(false)) say('a broker does not acknowledge everything');
    const verdict = await settled(cluster, fleet, faults.brokerKilledAt, dashboards, pages, signal);
    clearInterval(progress);
    await sampler.close();

    const regressions = [...dashboards.flatMap(({ regressions }) => regressions), ...verdict.wrongTwins];
    const staleEffects = [...dashboards.flatMap(({ staleUpdates }) => staleUpdates), ...sampler.staleEffects];
    const wrongIncidents = [...verdict.wrongIncidents, ...verdict.wrongPages];
    for (const lines of [verdict.details, regressions, staleEffects, wrongIncidents, cluster.crashes])
      for (const line of lines.slice(0, LINES_MAX)) say(line);
    const { messages } = verdict;
    const counted: ChaosCount = {
      faults: faults.count,
      acknowledged: messages.acknowledged,
      lost: messages.lost,
      duplicates: messages.duplicates,
      phantoms: messages.phantoms,
      regressions: regressions.length,
      stale_effects: staleEffects.length,
      wrong_incidents: wrongIncidents.length,
      recovery_ms: { p50: percentile(recovery.times, 0.5), p99: percentile(recovery.times, 0.99) },
      seed,
      nodes,
      published: messages.published,
      stored: messages.stored,
      incidents: verdict.incidents,
      pages: pages.heard.size,
      lost_at_broker: messages.lost_at_broker,
      repeated_unmarked: messages.repeated_unmarked,
      repeated_between_gateways: verdict.repeatedBetweenGateways,
      crashes: cluster.crashes.length,
    };
    say(
      `${recovery.times.length} recoveries measured, ${recovery.dropped} disturbed by other faults; ${sampler.samples} looks into Redis and PostgreSQL`,
    );
    console.log(tableOf(counted, faults.done).join('\n'));
    if (options.json) console.log(JSON.stringify(counted));
    return isClean(counted) ? 0 : 1;
  } finally {
    for (const release of releases.reverse()) await release();
  }
}

/** Every gateway is at its broker, and every node knows the rule and whom to tell. */
async function ready(cluster: ChaosCluster, webhook: string): Promise<void> {
  await cluster.database.query(
    `insert into holdfast.rule (id, metric, comparison, threshold, hysteresis)
     values ($1, $2, 'above', $3, $4) on conflict do nothing`,
    [CHAOS_RULE.id, CHAOS_RULE.metric, CHAOS_RULE.threshold, CHAOS_RULE.hysteresis],
  );
  const response = await fetch(`${cluster.nodes[0]!.url}/channels/chaos`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ kind: 'webhook', target: webhook }),
  });
  if (!response.ok) throw new Error(`the channel is refused: ${await response.text()}`);
  const deadline = performance.now() + PATIENCE_MS;
  const isThere = (output: string) => /broker: (connected|standby)/.test(output);
  while (!cluster.gateways.every(({ process: of }) => isThere(of.output()))) {
    if (performance.now() > deadline) throw new Error('a gateway does not reach its broker');
    await sleep(50);
  }
  // Rules are read every 5 s.
  await sleep(6000);
}

async function takenIsStored(
  cluster: ChaosCluster,
  site: string,
  { journals }: Devices,
  timeoutMs: number,
): Promise<boolean> {
  const devices = journals.map(({ device }) => device);
  const taken = [...cluster.taps.get(site)!.acknowledged];
  const deadline = performance.now() + timeoutMs;
  while (performance.now() < deadline) {
    const stored = await storedCounters(cluster.database, { site, devices, metric: 'n' }).catch(() => []);
    const found = new Set(stored.map(({ device, n }) => messageKey(device, n)));
    if (taken.every(key => found.has(key))) return true;
    await sleep(300);
  }
  return false;
}

/** Waits until everything has come through and everybody shows it, or the time is up. */
async function settled(
  cluster: ChaosCluster,
  fleet: ReadonlyMap<string, Devices>,
  brokerKilledAt: ReadonlyMap<string, readonly number[]>,
  dashboards: readonly Dashboard[],
  pages: PageReceiver,
  signal: AbortSignal,
): Promise<Verdict> {
  const deadline = performance.now() + SETTLE_MS;
  let storedAt: number | null = null;
  let still = { stored: 0, since: performance.now() };
  let isSaid = false;
  for (;;) {
    const verdict = await judge(cluster, fleet, brokerKilledAt, pages).catch(error => {
      if (performance.now() > deadline) throw error;
      return null;
    });
    if (verdict) {
      const isStored = verdict.messages.lost === 0 && verdict.complete;
      storedAt = isStored ? (storedAt ?? performance.now()) : null;
      if (isStored && !isSaid) say('all is in history');
      isSaid ||= isStored;
      const { wrongTwins, wrongIncidents, wrongPages } = verdict;
      const isRight = wrongTwins.length + wrongIncidents.length + wrongPages.length === 0;
      const isDone = isStored && isRight && allShown(fleet, dashboards);
      if (verdict.messages.stored !== still.stored)
        still = { stored: verdict.messages.stored, since: performance.now() };
      const isStill = performance.now() - still.since > STILL_MS;
      const isLate = storedAt !== null && performance.now() - storedAt > FOLLOW_MS;
      // A second copy of something would be there by now, too.
      if (isDone) return judge(cluster, fleet, brokerKilledAt, pages);
      if (isLate || isStill || performance.now() > deadline) {
        say(isStored ? 'twins, incidents or dashboards do not follow' : 'not all gets into history in time');
        return verdict;
      }
    }
    await sleep(JUDGE_EVERY_MS, undefined, { signal });
  }
}

/** Every dashboard shows the last word of every device; one without timestamps may be ordered otherwise. */
function allShown(fleet: ReadonlyMap<string, Devices>, dashboards: readonly Dashboard[]): boolean {
  return dashboards.every(({ counters }) =>
    [...fleet].every(([site, { journals }]) =>
      journals.every(
        ({ device, published, ownTimestamps }) =>
          !ownTimestamps || counters.get(`${site}/${device}`) === published,
      ),
    ),
  );
}

function keepLogs(cluster: ChaosCluster, folder: string): void {
  mkdirSync(folder, { recursive: true });
  for (const node of cluster.nodes) writeFileSync(join(folder, `${node.name}.log`), node.output());
  for (const { site, gateway, process: of } of cluster.gateways)
    writeFileSync(join(folder, `${site}-${gateway}.log`), of.output());
}

for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const words = process.argv.slice(2);
if (words.includes('--simulate')) {
  const { simulate } = (await import(new URL('../../simulate/main.ts', import.meta.url).href)) as {
    simulate: (words: string[]) => Promise<number>;
  };
  process.exit(await simulate(words.filter(word => word !== '--simulate')));
}
const parsed = readChaosArguments(words, randomInt(2 ** 31));
if (!parsed.ok) {
  if (parsed.problem) console.error(`${parsed.problem}\n`);
  console.log(HELP);
  process.exit(parsed.problem ? 2 : 0);
}
const end = listenForEnd();
try {
  process.exit(await chaos(parsed.value, end));
} catch (error) {
  const interrupted = end.signal.aborted;
  console.error(interrupted ? '\nstopped' : `\nchaos itself failed: ${(error as Error).stack}`);
  process.exit(interrupted ? EXIT_CODE_OF_INTERRUPTED : 1);
}
