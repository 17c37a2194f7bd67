/**
 * `twins`: 100,000 twins (`--devices`) of the standard device on ten sites, all on one node, beside another node with
 * 1,000. What a twin takes in memory, what a reading takes in CPU with many twins against few at the same rate of
 * messages (`--rate`), rounds in turns, and how soon all of them are there again after a kill.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openWatcher } from '../end-to-end/watcher.ts';
import type { Benchmark, BenchmarkOptions } from './benchmark.ts';
import { median, rounded, table } from './tables.ts';
import { type Fed, openTwinSubject, SITES, siteName, type TwinSubject } from './twin-subject.ts';

const DEVICES = 100_000;
const FEW_DEVICES = 1000;
const MESSAGES_PER_SECOND = 5000;
const ROUNDS = 5;
const ROUND_SECONDS = 8;
const WARM_UP_MESSAGES = 50_000;
const KILLS = 3;
const PROBE_MS = 50;
const PATIENCE_MS = 60_000;

export const twins: Benchmark = {
  does: '--devices twins on one node: memory each, CPU per reading against 1,000, back after a kill',
  async run(options) {
    const devices = options.devices ?? DEVICES;
    const messagesPerSecond = options.rate ?? MESSAGES_PER_SECOND;
    const rounds = options.rounds ?? ROUNDS;
    const open = (count: number) =>
      openTwinSubject(options, {
        directory: join(options.directory, String(count)),
        devices: count,
        messagesPerSecond,
      });
    const few = await open(FEW_DEVICES);
    const many = await open(devices);

    const memory = await measureMemory(options, many, devices);
    await few.feed(WARM_UP_MESSAGES, 'fast');

    const measured: { few: number; many: number }[] = [];
    for (let round = 1; round <= rounds; round++) {
      const cost = async (subject: TwinSubject, name: string) => {
        const file = options.profileDirectory && join(options.profileDirectory, `${name}.cpuprofile`);
        if (file && round === rounds) subject.ask({ type: 'profile' });
        const fed = await subject.feed(ROUND_SECONDS * messagesPerSecond, 'steady');
        if (file && round === rounds) subject.ask({ type: 'profiled', file });
        return microsecondsPerReading(fed);
      };
      measured.push({ few: await cost(few, 'few'), many: await cost(many, 'many') });
      const last = measured.at(-1)!;
      options.report(
        `round ${round} of ${rounds}: ${last.few.toFixed(2)} µs per reading with ${FEW_DEVICES}, ${last.many.toFixed(2)} with ${devices}`,
      );
    }
    const returns: { readable: number; live: number }[] = [];
    for (let kill = 1; kill <= KILLS; kill++) {
      returns.push(await returnAfterKill(many, devices));
      const { readable, live } = returns.at(-1)!;
      options.report(`killed: readable after ${readable.toFixed(1)} s, live after ${live.toFixed(1)} s`);
    }
    // Both anew: what it takes to hold them, without what is left over from taking them in.
    const restarted = await many.measure(true);
    await few.node.stop();
    await few.node.start();
    const fewRestarted = await few.measure(true);
    const perTwin = (key: 'rssBytes' | 'heapBytes') =>
      Math.round((restarted[key] - fewRestarted[key]) / (devices - FEW_DEVICES));

    const cpu = {
      few: median(measured.map(round => round.few)),
      many: median(measured.map(round => round.many)),
    };
    const figures = {
      devices,
      sites: SITES,
      messages_per_s: messagesPerSecond,
      rounds,
      ...memory,
      restarted_rss_bytes_per_twin: perTwin('rssBytes'),
      restarted_heap_bytes_per_twin: perTwin('heapBytes'),
      restarted_rss_mib: mib(restarted.rssBytes),
      restarted_few_rss_mib: mib(fewRestarted.rssBytes),
      few_cpu_us_per_reading: rounded(cpu.few, 2),
      many_cpu_us_per_reading: rounded(cpu.many, 2),
      cpu_ratio: rounded(median(measured.map(round => round.many / round.few)), 2),
      readable_s: rounded(median(returns.map(({ readable }) => readable)), 1),
      live_s: rounded(median(returns.map(({ live }) => live)), 1),
      live_max_s: rounded(Math.max(...returns.map(({ live }) => live)), 1),
    };
    return { tables: [table([['figure', 'value'], ...Object.entries(figures)])], figures };
  },
};

async function measureMemory({ report }: BenchmarkOptions, subject: TwinSubject, devices: number) {
  // One interval of the fleet, the first devices of it: code, caches and connections are warm then.
  const warmUp = Math.min(WARM_UP_MESSAGES, devices / 10);
  await subject.feed(warmUp, 'fast');
  const before = await subject.measure(true);
  const { seconds } = await subject.feed(devices - warmUp, 'fast');
  const after = await subject.measure(true);
  const grown = devices - warmUp;
  const perTwin = (key: 'rssBytes' | 'heapBytes') => Math.round((after[key] - before[key]) / grown);
  report(
    `${devices} twins in ${seconds.toFixed(1)} s: ${perTwin('rssBytes')} bytes each of RSS, ${perTwin('heapBytes')} of heap`,
  );
  return {
    rss_before_mib: mib(before.rssBytes),
    rss_after_mib: mib(after.rssBytes),
    heap_total_after_mib: mib(after.heapTotalBytes),
    external_after_mib: mib(after.externalBytes),
    rss_bytes_per_twin: perTwin('rssBytes'),
    heap_bytes_per_twin: perTwin('heapBytes'),
  };
}

/** Seconds from the kill until all twins can be read, and until every site shows a reading that came after it. */
async function returnAfterKill(
  subject: TwinSubject,
  devices: number,
): Promise<{ readable: number; live: number }> {
  const names = Array.from({ length: SITES }, (_, index) => `${siteName(index)}/probe`);
  const watcher = await openWatcher({ url: subject.url, twins: names });
  let n = 0;
  const probing = setInterval(() => void subject.probe(++n).catch(() => {}), PROBE_MS);
  const shownFrom = (least: number) =>
    names.every(name => Number(watcher.twins.get(name)?.metrics.n?.value ?? 0) >= least);
  try {
    await until('every site shows its probe', () => shownFrom(1));
    await subject.node.kill();
    const killedAt = performance.now();
    const first = n + 1;
    const since = () => (performance.now() - killedAt) / 1000;
    const started = subject.node.start();
    let readable = 0;
    let live = 0;
    await until('all twins are back', async () => {
      if (live === 0 && shownFrom(first)) live = since();
      if (readable === 0 && (await countTwins(subject.url)) >= devices + SITES) readable = since();
      return live > 0 && readable > 0;
    });
    await started;
    return { readable, live: Math.max(live, readable) };
  } finally {
    clearInterval(probing);
    watcher.close();
  }
}

async function countTwins(url: string): Promise<number> {
  try {
    const response = await fetch(`${url}/twins?limit=1`, { signal: AbortSignal.timeout(2000) });
    return response.ok ? ((await response.json()) as { total: number }).total : 0;
  } catch {
    return 0;
  }
}

async function until(what: string, isSo: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`not within ${PATIENCE_MS / 1000} s: ${what}`);
    await sleep(10);
  }
}

const microsecondsPerReading = (fed: Fed): number => (fed.cpuMs * 1000) / fed.readings;
const mib = (bytes: number): number => rounded(bytes / 1024 / 1024, 1);
