/** The fleet's process as the demo sees it: started with its plan, asked for its journal at the end. */
import { resolve } from 'node:path';
import { type NodeProcess, nodeProcess } from '../local/node-process.ts';
import type { Stack } from '../local/stack.ts';
import { type DemoArguments, demoSites } from './arguments.ts';
import type { FleetJournal, FleetPlan } from './fleet.ts';

const DEVICE_INTERVAL_MS = 1000;

export function fleetProcess({ replay, devices }: DemoArguments, stack: Stack): NodeProcess {
  const perSite = Math.floor(devices / demoSites.length);
  const plan: FleetPlan = {
    sites: demoSites.map((site, index) => ({
      site,
      url: stack.brokers.get(site)!.deviceUrl,
      devices: perSite + (index === 0 ? devices % demoSites.length : 0),
    })),
    intervalMs: DEVICE_INTERVAL_MS,
    replay: replay && {
      file: resolve(replay.file),
      url: stack.brokers.get(replay.site)!.deviceUrl,
      device: replay.device,
      metric: replay.metric,
      speed: replay.speed,
    },
  };
  return nodeProcess({
    name: 'fleet',
    entry: new URL('./fleet.ts', import.meta.url),
    env: { HOLDFAST_DEMO_FLEET: JSON.stringify(plan) },
  });
}

/** Ends the fleet. Rejects when it is gone, or goes, without having told its journal. */
export function finish(fleet: NodeProcess): Promise<FleetJournal> {
  return new Promise((resolve, reject) => {
    const gone = (reason: string) =>
      reject(new Error(`the fleet ${reason} before it told what was acknowledged`));
    if (fleet.pid() === undefined) return gone('was gone');
    fleet.onMessage(message => {
      if (message.type === 'journal') resolve(message as unknown as FleetJournal);
    });
    fleet.onUnexpectedExit(gone);
    fleet.send({ type: 'finish' });
  });
}
