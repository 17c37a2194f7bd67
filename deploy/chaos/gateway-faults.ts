/** What goes wrong at the sites: links, gateways, their disks, brokers. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { NodeProcess } from '../local/node-process.ts';
import type { GatewayHandle } from './cluster.ts';
import { inSeconds, type Stage } from './conductor.ts';
import { copyFolder } from './disk-images.ts';
import { startLookalike } from './lookalike.ts';
import type { Fault } from './plan.ts';

/** Between "forget nothing from now on" and the kill: it dies in mid-stream all the same. */
const KEPT_FOR_MS = 150;
const KEEP_TIMEOUT_MS = 5000;
const STORED_MS = 20_000;
const ROUTER_FIRST_MS = 1000;

/** @returns whether it happened */
export async function gatewayFault(fault: Fault, stage: Stage): Promise<boolean> {
  if (fault.kind === 'broker-kill' || fault.kind === 'broker-kill-queueing') return brokerFault(fault, stage);
  const gateway = stage.cluster.gateways[fault.target]!;
  const over = stage.recovery.siteTroubled(gateway.site);
  try {
    return await atGateway(fault, gateway, stage);
  } finally {
    over();
  }
}

async function atGateway(fault: Fault, gateway: GatewayHandle, stage: Stage): Promise<boolean> {
  const { cluster, say, pause } = stage;
  const { kind, forMs } = fault;
  const { process: own, link, dataDirectory } = gateway;
  const name = `${gateway.site}/${gateway.gateway}`;
  const image = (what: string) =>
    join(cluster.directory, 'images', `${gateway.site}-${gateway.gateway}-${what}`);

  if (kind === 'link-cut' || kind === 'link-half-open') {
    say(`the link of ${name} ${kind === 'link-cut' ? 'cut' : 'half-open'} for ${inSeconds(forMs)}`);
    if (kind === 'link-cut') link.cut();
    else link.stall();
    await pause(forMs).finally(link.heal);
  } else if (kind === 'gateway-kill') {
    await keepDisk(own);
    await pause(KEPT_FOR_MS);
    await own.kill();
    say(`gateway ${name} killed, back in ${inSeconds(forMs)}`);
    await pause(forMs);
    await own.start();
  } else if (kind === 'power-cut') {
    // The router loses its power first: what came last is on the gateway's disk and nowhere else.
    link.cut();
    try {
      await pause(ROUTER_FIRST_MS);
      await own.kill();
      say(`power cut at ${name}, back in ${inSeconds(forMs)}`);
      await pause(forMs);
    } finally {
      link.heal();
    }
    await own.start();
  } else if (kind === 'gateway-pause') {
    const pid = own.pid()!;
    say(`gateway ${name} paused for ${inSeconds(forMs)}`);
    process.kill(pid, 'SIGSTOP');
    await pause(forMs).finally(() => process.kill(pid, 'SIGCONT'));
  } else if (kind === 'gateway-clock') {
    say(`the clock of gateway ${name} is off by ${inSeconds(fault.shiftMs)} for ${inSeconds(forMs)}`);
    gateway.shiftClock(fault.shiftMs);
    await pause(forMs).finally(() => gateway.shiftClock(0));
  } else if (kind === 'log-cloned') {
    copyFolder(dataDirectory, image('clone'), own.pid());
    say(`a clone of gateway ${name} runs for ${inSeconds(forMs)}`);
    const clone = await startLookalike(gateway, {
      name: `clone of ${name}`,
      mqttUrl: null,
      natsUrl: gateway.directNatsUrl,
      dataDirectory: image('clone'),
    });
    await pause(forMs).finally(() => clone.stop());
  } else if (kind === 'gateway-duplicate') await duplicate();
  else return restore();
  return true;

  /** A second gateway of the same name, with a disk and a broker session that it fights for. What it took it sends in the end. */
  async function duplicate(): Promise<void> {
    const of = { natsUrl: gateway.directNatsUrl, dataDirectory: image('duplicate') };
    await drainers.get(gateway)?.stop();
    say(`a second gateway calls itself ${name} for ${inSeconds(forMs)}`);
    const second = await startLookalike(gateway, {
      ...of,
      name: `second ${name}`,
      mqttUrl: gateway.mqttUrl,
    });
    await pause(forMs).finally(() => second.stop());
    const drainer = await startLookalike(gateway, {
      ...of,
      name: `rest of the second ${name}`,
      mqttUrl: null,
    });
    drainers.set(gateway, drainer);
    stage.atEnd(() => drainer.stop());
  }

  /**
   * A disk that is put back takes with it what was on the one it replaces. That is no fault of Holdfast's, so the gateway is stopped
   * first, and all that it acknowledged is in history.
   */
  async function restore(): Promise<boolean> {
    copyFolder(dataDirectory, image('earlier'), own.pid());
    await pause(forMs);
    await own.stop();
    const stored = await stage.takenIsStored(gateway.site, STORED_MS).catch(() => false);
    if (stored) copyFolder(image('earlier'), dataDirectory, undefined);
    await own.start();
    say(
      stored
        ? `the disk of gateway ${name} was replaced by its copy of ${inSeconds(forMs)} before`
        : `the disk of gateway ${name} was not replaced: it holds what history does not have yet`,
    );
    return stored;
  }
}

/** What keeps running to send what a second gateway of the same name had taken. */
const drainers = new WeakMap<GatewayHandle, NodeProcess>();

async function brokerFault(fault: Fault, stage: Stage): Promise<boolean> {
  const { cluster, say, pause } = stage;
  const [site, broker] = [...cluster.brokers][fault.target]!;
  const over = stage.recovery.siteTroubled(site);
  try {
    if (fault.kind === 'broker-kill') {
      await broker.server.kill();
      stage.brokerKilled(site);
      say(`broker of ${site} killed, back in ${inSeconds(fault.forMs)}`);
      await pause(fault.forMs);
      await broker.server.start();
      return true;
    }
    // What it has acknowledged to devices since its last save is in its memory alone: that is the broker's to lose.
    const own = cluster.gateways.filter(gateway => gateway.site === site).map(gateway => gateway.process);
    await Promise.all(own.map(keepDisk));
    await Promise.all(own.map(each => each.kill()));
    say(`gateways of ${site} killed; its broker queues for ${inSeconds(fault.forMs)} and is killed too`);
    await pause(fault.forMs);
    await broker.server.kill();
    stage.brokerKilled(site);
    await broker.server.start();
    for (const each of own) await each.start();
    return true;
  } finally {
    over();
  }
}

/** The gateway's disk forgets nothing any more until it starts again: what follows is no power cut. */
async function keepDisk(gateway: GatewayHandle['process']): Promise<void> {
  const kept = Promise.withResolvers<void>();
  const forget = gateway.onMessage(message => message.type === 'kept' && kept.resolve());
  gateway.send({ type: 'keep' });
  await Promise.race([kept.promise, sleep(KEEP_TIMEOUT_MS, undefined, { ref: false })]);
  forget();
}
