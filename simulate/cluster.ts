/**
 * A whole installation in one process: servers, cloud nodes, sites with brokers and gateways, dashboards; and the hand that
 * breaks parts of it and mends them again.
 */
import { Packr } from 'msgpackr';
import { decodeBatch } from '../protocol/batch-codec.ts';
import type { GatewayId, SiteId } from '../protocol/ids.ts';
import { parseIngestSubject, settledSubject } from '../protocol/subjects.ts';
import { type Broker, openBroker } from './broker.ts';
import { drawFaults, type Fault } from './faults.ts';
import { copyOfDisk, type Disk, emptyDisk, type GatewayModel, startGateway } from './gateway.ts';
import { type Journal, newJournal } from './journal.ts';
import { type NatsModel, newNats } from './nats.ts';
import { type Network, newNetwork } from './network.ts';
import { type CloudNodeModel, startNode } from './node.ts';
import { openPage } from './page.ts';
import { newPostgres, type PostgresModel } from './postgres.ts';
import { newRedis, type RedisModel } from './redis.ts';
import { rulesOfSimulation } from './rules.ts';
import type { World } from './world.ts';

export const bugs = [
  'skip-fence',
  'skip-ledger',
  'ack-before-commit',
  'puback-before-sync',
  'trim-on-puback',
  'ignore-stream-identity',
  'push-without-epoch',
  'reuse-log-id',
] as const;
export type Bug = (typeof bugs)[number];

export interface SiteModel {
  readonly site: SiteId;
  readonly devices: readonly string[];
  readonly broker: Broker;
  readonly gatewayName: GatewayId;
  /** The one that serves, and its clones, which only drain. */
  gateway: GatewayModel;
  readonly clones: GatewayModel[];
}

export interface Cluster {
  readonly world: World;
  readonly journal: Journal;
  readonly postgres: PostgresModel;
  readonly redis: RedisModel;
  readonly nats: NatsModel;
  readonly network: Network;
  readonly sites: readonly SiteModel[];
  readonly nodes: CloudNodeModel[];
  readonly pages: readonly ReturnType<typeof openPage>[];
  readonly faults: readonly Fault[];
  readonly wasRestored: () => boolean;
  /** How long partitions were without a living owner after each kill, milliseconds. */
  readonly recoveryMs: number[];
  /** All of it works again. */
  readonly healedAt: () => number | null;
}

export const FAULTS_FROM_MS = 1200;
export const FAULTS_TO_MS = 6000;
export const HEAL_AT_MS = 7500;
/** What is only begun by mending, such as a server's start, is over by then. */
const MENDED_MS = 3000;
/** Devices go on for that long: a gap on a dashboard is mended by the next change. */
const GO_ON_MS = 2000;
const SAMPLE_MS = 100;

export function newCluster(world: World, bug: Bug | null): Cluster {
  const journal = newJournal();
  const network = newNetwork(world);
  const partitions = world.between(1, 3);
  const is = (name: Bug) => bug === name;
  const postgres = newPostgres(world, network, journal, partitions, {
    skipFence: is('skip-fence'),
    skipLedger: is('skip-ledger'),
  });
  const redis = newRedis(world, network, journal, { skipFence: is('skip-fence') });
  const nats: NatsModel = newNats(world, network, {
    sameIdentity: is('ignore-stream-identity'),
    withoutEpoch: is('push-without-epoch') ? withoutEpoch : null,
    onDelivered: is('ack-before-commit') ? acknowledgeAtOnce : null,
  });
  const reclaims = world.chance(0.5);
  const oneLane = world.chance(0.5);
  const wants = drawFaults(world, { fromMs: FAULTS_FROM_MS, toMs: FAULTS_TO_MS, reclaims });

  const servers = { world, journal, postgres, redis, nats, network, partitions, rules: rulesOfSimulation };
  const nodeNames = Array.from({ length: world.between(2, 3) }, (_, i) => `node-${i + 1}`);
  let runs = 0;
  const nodes = nodeNames.map(name => startNode(servers, name, ++runs));

  const gatewayBugs = {
    pubackBeforeSync: is('puback-before-sync'),
    trimOnPubAck: is('trim-on-puback'),
    reuseLogId: is('reuse-log-id'),
  };
  const startAt = (site: Pick<SiteModel, 'site' | 'broker' | 'gatewayName'>, disk: Disk, name: string) =>
    startGateway({
      world,
      nats,
      broker: site.broker,
      site: site.site,
      gateway: site.gatewayName,
      host: name,
      disk,
      // A disk that is slow to sync shows what it had not.
      syncMs: world.between(2, 40) * (gatewayBugs.pubackBeforeSync ? 6 : 1),
      reclaims,
      oneLane,
      bugs: gatewayBugs,
    });
  const sites: SiteModel[] = Array.from({ length: world.between(1, 2) }, (_, i) => {
    const site = `site-${i + 1}` as SiteId;
    const devices = Array.from({ length: world.between(1, 2) }, (_, d) => `pump-${d + 1}`);
    const periodMs = world.between(150, 400);
    const broker = openBroker(world, network, journal, {
      site,
      devices,
      periodMs,
      until: HEAL_AT_MS + GO_ON_MS,
    });
    const parts = { site, devices, broker, gatewayName: 'box' as GatewayId, clones: [] };
    return { ...parts, gateway: startAt(parts, emptyDisk(), `gateway-${i + 1}`) };
  });
  const pages = [1].map(number =>
    openPage(world, journal, {
      name: `page-${number}`,
      sites: sites.map(({ site }) => site),
      nodes: () => nodes,
    }),
  );

  /** With the bug `ack-before-commit`: tells the gateway that its batch is in history when a node has got it. */
  function acknowledgeAtOnce(subject: string, data: Uint8Array, created: string, sequence: number): void {
    const address = parseIngestSubject(subject);
    const decoded = decodeBatch(data);
    if (!address || decoded.outcome !== 'batch') return;
    const { logId, firstSequence, count } = decoded.batch;
    const node = nodes.find(each => each.process.phase === 'up');
    if (!node) return;
    const notice = {
      stream: { created, live: 0, backfill: 0, [address.lane]: sequence },
      settled: { [logId]: `{[${firstSequence},${firstSequence + count})}` },
    };
    bugSender ??= nats.connect(world.spawn('too-early'), 'too-early');
    bugSender.nats.publish(settledSubject(address.site, address.gateway), JSON.stringify(notice));
  }
  let bugSender: ReturnType<NatsModel['connect']> | undefined;

  // --- what goes wrong

  let restored = false;
  let healedAt: number | null = null;
  const mending = new Map<Fault, () => void>();
  const recoveryMs: number[] = [];
  let recoveringSince: number | null = null;

  function restart(name: string): void {
    const index = nodes.findIndex(node => node.name === name);
    if (nodes[index]!.process.phase !== 'dead') return;
    nodes[index] = startNode(servers, name, ++runs);
  }
  function restartGateway(of: SiteModel, disk = of.gateway.disk): void {
    if (of.gateway.process.phase === 'dead') of.gateway = startAt(of, disk, of.gateway.name);
  }
  /** Everything on the disk beyond the copy is in history, so that the copy lacks nothing that only it had. */
  function isSettled({ disk }: GatewayModel, site: SiteId, copy: Disk): boolean {
    return disk.logs.every(log => {
      const kept = copy.logs.find(({ logId }) => logId === log.logId)?.frames.length ?? 0;
      const stored = [...postgres.tables.logs.values()].find(
        each => each.site === site && each.logId === log.logId,
      );
      return kept >= log.frames.length || stored?.settled.covers(kept + 1, log.frames.length + 1) === true;
    });
  }

  /** @returns what mends it */
  function breakDown({ kind, which, chance }: Fault): (() => void) | null {
    const node = nodes[which % nodes.length]!;
    const at = sites[which % sites.length]!;
    const cut = (a: string, b: string) => {
      network.cut(a, b);
      if (b === 'nats') nats.breakConnections(a);
      return () => network.heal(a, b);
    };
    switch (kind) {
      case 'node-kill':
        if (node.process.phase === 'dead') return null;
        world.kill(node.process);
        if ((node.ownership?.held.size ?? 0) > 0) recoveringSince ??= world.elapsed();
        return () => restart(node.name);
      case 'node-stop':
        if (node.process.phase === 'dead') return null;
        node.stop();
        return () => {
          world.kill(node.process);
          restart(node.name);
        };
      case 'node-pause':
        world.pause(node.process);
        return () => world.resume(node.process);
      case 'node-cut-postgres':
        return cut(node.name, 'postgres');
      case 'node-cut-redis':
        return cut(node.name, 'redis');
      case 'node-cut-nats':
        return cut(node.name, 'nats');
      case 'node-clock':
        // Further back, a node takes every gateway for one whose clock runs ahead.
        node.process.clockAheadMs = chance * 840_000 - 240_000;
        return null;
      case 'gateway-cut':
        return cut(at.gateway.name, 'nats');
      case 'gateway-kill':
        at.gateway.kill();
        return () => restartGateway(at);
      case 'gateway-clock':
        at.gateway.process.clockAheadMs = (chance - 0.5) * 2 * 200_000;
        return null;
      case 'log-restored': {
        const copy = copyOfDisk(at.gateway.disk);
        return () => {
          if (at.gateway.process.phase !== 'up') return;
          at.gateway.stop();
          const lacksNothing = isSettled(at.gateway, at.site, copy);
          restartGateway(at, lacksNothing ? copy : at.gateway.disk);
        };
      }
      case 'log-cloned': {
        if (at.gateway.process.phase !== 'up') return null;
        const clone = startAt(
          at,
          copyOfDisk(at.gateway.disk),
          `${at.gateway.name}-copy-${at.clones.length + 1}`,
        );
        at.clones.push(clone);
        return () => clone.leaveBroker();
      }
      case 'broker-kill':
        at.broker.kill();
        return () => at.broker.start();
      case 'postgres-stop':
        postgres.stop();
        return () => postgres.start();
      case 'postgres-slow':
        network.slow('postgres', 200 + chance * 1500);
        return () => network.slow('postgres', 0);
      case 'postgres-answers-lost':
        postgres.loseAnswers(0.1 + chance * 0.4);
        return () => postgres.loseAnswers(0);
      case 'postgres-restored': {
        postgres.remember();
        return () => {
          restored = true;
          postgres.stop();
          postgres.restore();
          world.after(200 + chance * 1500, null, 'postgres starts', () => postgres.start());
        };
      }
      case 'redis-stop':
        redis.stop();
        return () => redis.start();
      case 'redis-slow':
        network.slow('redis', 100 + chance * 900);
        return () => network.slow('redis', 0);
      case 'redis-wiped':
        redis.wipe();
        return null;
      case 'redis-stale': {
        redis.remember();
        return () => {
          const owner = chance < 0.5 ? node : null;
          if (owner && owner.process.phase === 'up') {
            world.pause(owner.process);
            world.after(3500, null, 'node goes on', () => world.resume(owner.process));
          }
          redis.replaceByCopy();
        };
      }
      case 'nats-kill':
        nats.stop();
        return () => nats.start();
      case 'nats-emptied':
        nats.stop();
        nats.deleteStream();
        return () => nats.start();
      case 'stream-deleted':
        nats.deleteStream();
        return null;
      case 'stream-full':
        nats.setFull(true);
        return () => nats.setFull(false);
      case 'stream-purged':
        nats.purge((subject, created, sequence) => {
          const address = parseIngestSubject(subject)!;
          const cursor = postgres.tables.cursors.get(`${address.partition}.${address.lane}`);
          return cursor?.created === created && cursor.sequence >= sequence;
        });
        return null;
      case 'cloud-lost': {
        // Nothing can be written, and then all that was read is gone, with the stream that it came from.
        postgres.stop();
        world.after(1000, null, 'nodes and stream are gone', () => {
          nats.deleteStream();
          for (const each of nodes) world.kill(each.process);
        });
        return () => {
          postgres.start();
          for (const name of nodeNames) restart(name);
        };
      }
      case 'messages-lost':
        nats.setLoss(0.05 + chance * 0.4, chance * 0.4);
        return () => nats.setLoss(0, 0);
    }
  }

  for (const fault of wants) {
    world.after(fault.atMs, null, `fault ${fault.kind}`, () => {
      journal.faults++;
      const mend = breakDown(fault);
      if (!mend) return;
      mending.set(fault, mend);
      world.after(fault.forMs, null, `mended ${fault.kind}`, () => {
        if (mending.delete(fault)) mend();
      });
    });
  }
  world.after(HEAL_AT_MS, null, 'all is mended', () => {
    for (const mend of mending.values()) mend();
    mending.clear();
    network.healAll();
    network.slow('postgres', 0);
    network.slow('redis', 0);
    world.after(MENDED_MS, null, 'healed', () => {
      healedAt = world.elapsed();
    });
  });

  function sample(): void {
    world.after(SAMPLE_MS, null, 'sample', () => {
      if (world.elapsed() > HEAL_AT_MS + 30_000) return;
      if (recoveringSince !== null && allOwned()) {
        recoveryMs.push(Math.round(world.elapsed() - recoveringSince));
        recoveringSince = null;
      }
      sample();
    });
  }
  function allOwned(): boolean {
    for (const { id, epoch } of postgres.tables.partitions.values()) {
      const owner = nodes.find(
        ({ process, ownership }) => process.phase === 'up' && ownership?.held.get(id)?.epoch === epoch,
      );
      if (!owner) return false;
    }
    return true;
  }
  sample();

  return {
    world,
    journal,
    postgres,
    redis,
    nats,
    network,
    sites,
    nodes,
    pages,
    faults: wants,
    wasRestored: () => restored,
    recoveryMs,
    healedAt: () => healedAt,
  };
}

const packr = new Packr({ useRecords: false });

/** With the bug `push-without-epoch`: what owners put on the bus looks the same. */
function withoutEpoch(data: Uint8Array): Uint8Array {
  const frame = packr.unpack(data) as { epoch: number; fragments: string[] };
  return packr.pack({
    ...frame,
    epoch: 1,
    fragments: frame.fragments.map(fragment => JSON.stringify({ ...JSON.parse(fragment), epoch: 1 })),
  });
}
