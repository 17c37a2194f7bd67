/** A stack whose sites each have a fleet at its own pace, a dashboard with a stopwatch and a link that can be cut. */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { type Link, openLink } from '../../deploy/local/link.ts';
import { type Stack, startStack } from '../../deploy/local/stack.ts';
import type { BenchmarkOptions } from './benchmark.ts';
import { type LiveLatency, openLiveLatency } from './live-latency.ts';
import { STANDARD_SEED } from './standard-fleet.ts';
import { type SteadyFleet, startSteadyFleet } from './steady-fleet.ts';

export interface SteadySite {
  readonly site: string;
  readonly link: Link;
  readonly fleet: SteadyFleet;
  readonly latency: LiveLatency;
}

export interface SteadyScene {
  readonly stack: Stack;
  readonly pool: pg.Pool;
  readonly sites: readonly SteadySite[];
  /** Messages of the site that history has settled. */
  settled(site: string): Promise<number>;
  /**
   * All fleets end; resolves when history has every message, with what it holds.
   * @throws Error at the deadline, with what is missing
   */
  finish(deadlineMs: number): Promise<{ acknowledged: number; stored: number; duplicates: number }>;
}

const POLL_MS = 50;

export async function openSteadyScene(
  { directory, binaries, releases, report }: BenchmarkOptions,
  fleets: readonly { readonly site: string; readonly devices: number; readonly intervalMs: number }[],
  env: { cloudEnv?: Readonly<Record<string, string>>; gatewayEnv?: Readonly<Record<string, string>> } = {},
): Promise<SteadyScene> {
  const links: Link[] = [];
  const stack = await startStack({
    directory,
    binaries,
    sites: fleets.map(({ site }) => ({ site, gateways: ['gw-1'] })),
    ...env,
    async gatewayNatsUrl(url) {
      const through = new URL(url);
      const link = await openLink({ host: through.hostname, port: Number(through.port) });
      releases.add(() => link.close());
      links.push(link);
      through.port = String(link.port);
      return through.toString();
    },
  });
  releases.add(() => stack.close());
  const pool = new pg.Pool({ connectionString: stack.postgres.url, max: 2 });
  // PostgreSQL may be stopped on purpose.
  pool.on('error', () => {});
  releases.add(() => pool.end());
  const sites: SteadySite[] = [];
  for (const [index, { site, devices, intervalMs }] of fleets.entries()) {
    const latency = await openLiveLatency(stack.url, site);
    releases.add(() => latency.close());
    const broker = stack.brokers.get(site)!.deviceUrl;
    const fleet = await startSteadyFleet({ broker, devices, intervalMs, seed: STANDARD_SEED + index });
    releases.add(() => fleet.stop());
    sites.push({ site, link: links[index]!, fleet, latency });
    report(`${site}: ${devices} devices, ${fleet.messagesPerSecond} messages/s`);
  }

  const settled = async (site: string) => {
    const { rows } = await pool.query<{ settled: string }>(
      `select coalesce(sum(upper(range) - lower(range)), 0) as settled
         from holdfast.gateway_log, unnest(settled) as range where site = $1`,
      [site],
    );
    return Number(rows[0]!.settled);
  };

  return {
    stack,
    pool,
    sites,
    settled,
    async finish(deadlineMs) {
      const counts = await Promise.all(sites.map(({ fleet }) => fleet.finish()));
      const acknowledged = counts.reduce((sum, count) => sum + count, 0);
      const deadline = performance.now() + deadlineMs;
      const settledInAll = async () =>
        (await Promise.all(sites.map(({ site }) => settled(site)))).reduce((sum, count) => sum + count, 0);
      while ((await settledInAll().catch(() => 0)) < acknowledged) {
        if (performance.now() > deadline) {
          throw new Error(`settled ${await settledInAll()} of ${acknowledged} after ${deadlineMs} ms`);
        }
        await sleep(POLL_MS);
      }
      const { rows } = await pool.query<{ stored: string; rows: string }>(
        'select count(distinct (device, at)) as stored, count(*) as rows from holdfast.message',
      );
      const stored = Number(rows[0]!.stored);
      return { acknowledged, stored, duplicates: Number(rows[0]!.rows) - stored };
    },
  };
}
