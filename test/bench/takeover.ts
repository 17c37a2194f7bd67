/**
 * `takeover`: three cloud nodes with the sites shared among them, and a fourth that only shows them, where the stopwatch
 * is. A node is killed, frozen past its lease, and all three are restarted one after the other, under live load: how long
 * dashboards stand still, and whether a reading is lost or stored twice (A, B, D).
 *
 *   killed, frozen    until all partitions have a living owner, and until every site is live again; lease of 2 s included
 *   join              a node comes (back) and is handed its share: the latest of all readings meanwhile
 *   rolling           each node drains, ends, starts and is handed its share: the latest of all readings meanwhile
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ownerOf } from '../../cloud/cluster/rendezvous.ts';
import { cloudNodeOn } from '../../deploy/local/cloud-process.ts';
import type { NodeProcess } from '../../deploy/local/node-process.ts';
import { siteId } from '../../protocol/ids.ts';
import { partitionOf } from '../../protocol/subjects.ts';
import type { Benchmark } from './benchmark.ts';
import { openFreshness } from './freshness.ts';
import { percentile } from './live-latency.ts';
import { openSteadyScene } from './steady-scene.ts';
import { median, rounded, table } from './tables.ts';

const ROUNDS = 5;
const SITES = ['north', 'east', 'south', 'west', 'hill', 'lake'];
const NODES = ['cloud-1', 'cloud-2', 'cloud-3'];
const DEVICES = 10;
const INTERVAL_MS = 200;
const CALM_MS = 5000;
/** After a change, for what is late. */
const SETTLE_MS = 1000;
const POLL_MS = 20;
const PATIENCE_MS = 30_000;
const FINISH_MS = 60_000;
const LEASE_MS = 2000;

interface Loss {
  readonly ownedMs: number;
  /** Of the sites that the node had. */
  readonly liveMs: readonly number[];
  readonly delayMaxMs: number;
}

export const takeover: Benchmark = {
  does: 'three nodes, one killed, frozen, all restarted in turn: how long dashboards stand still',
  async run(options) {
    const rounds = options.rounds ?? ROUNDS;
    const scene = await openSteadyScene(
      options,
      SITES.map(site => ({ site, devices: DEVICES, intervalMs: INTERVAL_MS })),
      { cloudEnv: { HOLDFAST_NODE: 'dashboards', HOLDFAST_ROLES: 'push,api' } },
    );
    const { stack, pool } = scene;
    const nodes = NODES.map(name => cloudNodeOn(stack, name));
    for (const node of nodes) {
      options.releases.add(() => node.stop());
      await node.start();
    }
    const freshness = await openFreshness({ url: stack.url, sites: SITES, intervalMs: INTERVAL_MS });
    options.releases.add(() => freshness.close());

    /** Resolves when every partition belongs to the one of these nodes that it should belong to. @returns by partition */
    async function shared(among: readonly NodeProcess[]): Promise<Map<number, string>> {
      const names = among.map(({ name }) => name).join();
      const deadline = performance.now() + PATIENCE_MS;
      for (;;) {
        const { rows } = await pool.query<{
          id: number;
          owner: string | null;
          live: string[];
          names: string;
        }>(
          `with live as (select id, name from holdfast.live_nodes($1) where actors and not draining)
           select p.id, p.owner, (select array_agg(id) from live) as live,
                  (select string_agg(name, ',' order by name) from live) as names from holdfast.partition p`,
          [LEASE_MS],
        );
        const done = rows.every(row => row.names === names && row.owner === ownerOf(row.id, row.live));
        if (done) return new Map(rows.map(row => [row.id, row.owner!]));
        if (performance.now() > deadline) throw new Error(`not all partitions belong to ${names}`);
        await sleep(POLL_MS);
      }
    }

    /** How far history is behind the brokers: whoever takes over goes on from there. */
    const behind: number[] = [];
    async function noteBehind(): Promise<void> {
      const settled = await Promise.all(SITES.map(site => scene.settled(site)));
      const late = scene.sites.map(({ fleet }, index) => fleet.acknowledged - settled[index]!);
      behind.push((Math.max(...late) * INTERVAL_MS) / DEVICES);
    }

    async function lose(victim: NodeProcess, had: readonly string[], how: () => unknown): Promise<Loss> {
      await noteBehind();
      freshness.take();
      const lostAt = Date.now();
      const live = had.map(site => freshness.liveAgain(site, lostAt));
      await how();
      await shared(nodes.filter(node => node !== victim));
      const ownedMs = Date.now() - lostAt;
      const liveMs = (await Promise.all(live)).map(at => at - lostAt);
      await sleep(SETTLE_MS);
      return { ownedMs, liveMs, delayMaxMs: freshness.take().delayMaxMs };
    }

    /** @returns the latest reading while the node gets its share, milliseconds */
    async function join(how: () => unknown): Promise<number> {
      freshness.take();
      await how();
      await shared(nodes);
      await sleep(SETTLE_MS);
      return freshness.take().delayMaxMs;
    }

    /** The one with the most sites, and which. */
    async function busiest(): Promise<{ victim: NodeProcess; had: string[] }> {
      const owners = await shared(nodes);
      const hadBy = (node: NodeProcess) =>
        SITES.filter(site => owners.get(partitionOf(siteId(site), owners.size))!.startsWith(`${node.name}.`));
      const victim = nodes.toSorted((a, b) => hadBy(b).length - hadBy(a).length)[0]!;
      return { victim, had: hadBy(victim) };
    }

    await shared(nodes);
    await sleep(CALM_MS);
    freshness.take();
    await sleep(CALM_MS);
    const calmMs = freshness.take().delayMaxMs;
    options.report(`calm: no reading later than ${calmMs} ms`);

    const killed: Loss[] = [];
    const frozen: Loss[] = [];
    const joins: number[] = [];
    const thaws: number[] = [];
    const leaves: number[] = [];
    const rolling: number[] = [];
    for (let round = 1; round <= rounds; round++) {
      const { victim, had } = await busiest();
      killed.push(await lose(victim, had, () => victim.kill()));
      joins.push(await join(() => victim.start()));
      const next = await busiest();
      const pid = next.victim.pid()!;
      frozen.push(await lose(next.victim, next.had, () => process.kill(pid, 'SIGSTOP')));
      thaws.push(await join(() => process.kill(pid, 'SIGCONT')));

      let latest = 0;
      for (const node of nodes) {
        await noteBehind();
        freshness.take();
        await node.stop();
        await shared(nodes.filter(other => other !== node));
        await sleep(SETTLE_MS);
        const left = freshness.take().delayMaxMs;
        const joined = await join(() => node.start());
        leaves.push(left);
        joins.push(joined);
        latest = Math.max(latest, left, joined);
      }
      rolling.push(latest);
      options.report(
        `round ${round} of ${rounds}: killed, live again after ${killed.at(-1)!.liveMs.join(', ')} ms; ` +
          `frozen, ${frozen.at(-1)!.liveMs.join(', ')} ms; latest reading: rolling ${latest} ms, join ${joins.at(-1)} ms`,
      );
    }
    const count = await scene.finish(FINISH_MS);

    const spread = (values: readonly number[]) => [
      rounded(median(values), 0),
      rounded(percentile(values, 0.99), 0),
    ];
    const rows: [string, readonly number[]][] = [
      ['killed: every partition has an owner', killed.map(loss => loss.ownedMs)],
      ['killed: all sites live again', killed.map(loss => Math.max(0, ...loss.liveMs))],
      ['killed: latest reading', killed.map(loss => loss.delayMaxMs)],
      ['frozen: every partition has an owner', frozen.map(loss => loss.ownedMs)],
      ['frozen: all sites live again', frozen.map(loss => Math.max(0, ...loss.liveMs))],
      ['thawed: latest reading', thaws],
      ['drained: latest reading', leaves],
      ['join: latest reading', joins],
      ['rolling restart of all three: latest reading', rolling],
      ['history behind, before each of these', behind],
    ];
    return {
      tables: [
        table([
          ['what', 'times', 'median, ms', 'p99, ms'],
          ...rows.map(([what, values]): (string | number)[] => [what, values.length, ...spread(values)]),
        ]),
      ],
      figures: {
        rounds,
        calm_latest_ms: calmMs,
        ...Object.fromEntries(
          rows.map(([what, values]) => [what.replaceAll(/[^a-z]+/g, '_'), spread(values)]),
        ),
        ...count,
        missing: count.acknowledged - count.stored,
      },
    };
  },
};
