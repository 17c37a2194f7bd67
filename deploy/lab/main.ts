/**
 * `holdfast lab`: one site and the cloud on this machine, everything that can go wrong between them, and a count of what
 * became of every message that was acknowledged (A, B, R).
 *
 *   plan from the seed ─▶ stack, devices ─▶ faults while they publish ─▶ all healed ─▶ drained ─▶ count ─▶ table
 */
import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Ending, EXIT_CODE_OF_INTERRUPTED, listenForEnd } from '../demo/ending.ts';
import { allTakenIsStored, count, readHistory, type Verdict } from '../faults/count.ts';
import { type Devices, startDevices } from '../faults/devices.ts';
import { makeScratchFolder, say } from '../faults/scratch.ts';
import { defaultCacheDirectory, findBinaries } from '../local/find-servers.ts';
import { removeStackFolder } from '../local/unprivileged.ts';
import { HELP, type LabArguments, readLabArguments } from './arguments.ts';
import { carryOut, type FaultLog } from './faults.ts';
import { makePlan } from './plan.ts';
import { isClean, jsonOf, planLines, tableOf } from './report.ts';
import { LAB_SITE, type LabSite, labValue, openLabSite } from './site.ts';

const PROGRESS_MS = 5000;
const BROKER_PATIENCE_MS = 30_000;
const LAST_PUBACKS_MS = 60_000;
/** For a backlog over a link in bad weather, which the options may ask for. */
const DRAIN_MS = 180_000;

async function lab(options: LabArguments, end: Ending): Promise<number> {
  const plan = makePlan(options);
  if (options.planOnly) {
    for (const line of planLines(plan)) console.log(line);
    return 0;
  }
  say(
    `seed ${options.seed}: ${plan.link.length + plan.parts.length} steps in ${options.durationMs / 1000} s`,
  );
  const binaries = await findBinaries({ cacheDirectory: defaultCacheDirectory, report: say });
  const directory = makeScratchFolder('holdfast-lab-');
  const releases: (() => unknown)[] = [() => removeStackFolder(directory)];
  try {
    end.signal.throwIfAborted();
    const { seed, weather } = options;
    const site = await openLabSite({ directory, binaries, seed, weather, report: say, signal: end.signal });
    releases.push(() => site.close());
    const crashes = followCrashes(site);
    await atItsBroker(site);
    const devices = await startDevices({
      url: site.broker.deviceUrl,
      count: options.devices,
      name: index => `lab-${index}`,
      value: labValue,
      messagesPerSecond: options.rate,
    });
    releases.push(() => devices.close());
    const progress = setInterval(() => void sayProgress(site, devices), PROGRESS_MS);
    releases.push(() => clearInterval(progress));

    const beganAt = performance.now();
    const faults = await carryOut(plan, site, {
      weather,
      say,
      signal: end.signal,
      allStored: () => allTakenIsStored(site.postgres, LAB_SITE, devices.journals, site.tap),
    });
    const leftMs = Math.max(0, beganAt + options.durationMs - performance.now());
    await sleep(leftMs, undefined, { signal: end.signal });
    say('all is healed; the devices say their last word');
    const verdict = await drained(site, devices, faults, end.signal);
    // The first cloud node is followed; this is the last one that a fault started.
    if (site.stack.cloud.pid() === undefined)
      crashes.push(`the cloud node ended:\n${site.stack.cloud.output()}`);
    clearInterval(progress);
    for (const line of [...verdict.details, ...crashes]) say(line);
    console.log(tableOf(verdict.count, faults.done).join('\n'));
    if (options.json) console.log(jsonOf(options, verdict.count, faults.done));
    return isClean(verdict.count) && crashes.length === 0 ? 0 : 1;
  } finally {
    for (const release of releases.reverse()) await release();
  }
}

/** A part that ends by itself is a failure of the run, whatever the count says. */
function followCrashes(site: LabSite): string[] {
  const crashes: string[] = [];
  for (const part of [site.gateway, site.stack.cloud, site.broker.server, site.stack.nats]) {
    part.onUnexpectedExit(reason => {
      crashes.push(`${part.name} ${reason}`);
      say(`${part.name} ${reason}; it said:\n${part.output().trim().split('\n').slice(-5).join('\n')}`);
    });
  }
  return crashes;
}

/** Before the gateway has subscribed for the first time its broker acknowledges what nobody takes. */
async function atItsBroker(site: LabSite): Promise<void> {
  const deadline = performance.now() + BROKER_PATIENCE_MS;
  while (!site.gateway.output().includes('broker: connected')) {
    if (performance.now() > deadline) throw new Error('the gateway does not reach its broker');
    await sleep(25);
  }
}

async function sayProgress(site: LabSite, devices: Devices): Promise<void> {
  const waiting = await site.unsettled();
  say(
    `published ${devices.published}, acknowledged ${devices.acknowledged}, taken by the gateway ${site.tap.acknowledged.size}` +
      (waiting ? `, waiting at the gateway ${waiting.messages}` : ''),
  );
}

/** Waits until everything has come through, or the time is up, and counts. */
async function drained(
  site: LabSite,
  devices: Devices,
  faults: FaultLog,
  signal: AbortSignal,
): Promise<Verdict> {
  // Brokers hand over in order: once these are taken, nothing waits there any more.
  devices.lastWord();
  const lastWords = devices.journals.map(({ device, published }) => ({ device, n: published }));
  if (!(await devices.finish(LAST_PUBACKS_MS))) say('the broker does not acknowledge everything');
  const deadline = performance.now() + DRAIN_MS;
  for (;;) {
    const askedAt = Date.now();
    const history = await readHistory(site.postgres, LAB_SITE, devices.journals, labValue);
    const verdict = count({
      journals: devices.journals,
      tap: site.tap,
      brokerKilledAt: faults.brokerKilledAt,
      ...history,
    });
    const found = new Set(history.stored.map(({ device, n }) => `${device} ${n}`));
    const allSaid = lastWords.every(({ device, n }) => found.has(`${device} ${n}`));
    if (verdict.count.lost === 0 && allSaid && (await nothingWaits(site, askedAt, signal))) {
      // What was still on its way is there now; a second copy of it would be, too.
      const settled = await readHistory(site.postgres, LAB_SITE, devices.journals, labValue);
      const { brokerKilledAt } = faults;
      return count({ journals: devices.journals, tap: site.tap, brokerKilledAt, ...settled });
    }
    if (performance.now() > deadline) {
      say('not drained in time');
      return verdict;
    }
    await sleep(500, undefined, { signal });
  }
}

/** Whether the gateway says, after `since`, that history has settled all it holds. */
async function nothingWaits(site: LabSite, since: number, signal: AbortSignal): Promise<boolean> {
  const deadline = performance.now() + 15_000;
  while (performance.now() < deadline) {
    const waiting = await site.unsettled();
    if (waiting && waiting.askedAt > since) return waiting.messages === 0;
    await sleep(250, undefined, { signal });
  }
  return false;
}

for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const parsed = readLabArguments(process.argv.slice(2), randomInt(2 ** 31));
if (!parsed.ok) {
  if (parsed.problem) console.error(`${parsed.problem}\n`);
  console.log(HELP);
  process.exit(parsed.problem ? 2 : 0);
}
const end = listenForEnd();
try {
  process.exit(await lab(parsed.value, end));
} catch (error) {
  const interrupted = end.signal.aborted;
  console.error(interrupted ? '\nstopped' : `\nthe lab itself failed: ${(error as Error).stack}`);
  process.exit(interrupted ? EXIT_CODE_OF_INTERRUPTED : 1);
}
