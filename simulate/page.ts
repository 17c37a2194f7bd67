/**
 * A dashboard that watches all sites: production's own fleet model behind a simulated WebSocket. It writes down the newest
 * time that it has shown of each twin: a twin that goes back is a regression (C).
 */
import { applyFrame, emptyFleet, type Fleet, forgetSnapshots } from '../cloud/dashboard/fleet-state.ts';
import { readFrame } from '../cloud/dashboard/model.ts';
import type { Journal } from './journal.ts';
import type { CloudNodeModel } from './node.ts';
import type { PageSocket } from './sockets.ts';
import type { World } from './world.ts';

const RETRY_MS = 500;
const ASK_AGAIN_MS = 5000;

export function openPage(
  world: World,
  journal: Journal,
  options: { name: string; sites: readonly string[]; nodes: () => readonly CloudNodeModel[] },
): { readonly fleet: Fleet } {
  const { name, sites } = options;
  const process = world.spawn(name);
  const fleet = emptyFleet();
  const asked = new Map<string, number>();
  const epochs = new Map<string, number>();
  let socket: PageSocket | null = null;
  let connection = 0;
  let node: CloudNodeModel | null = null;

  function connect(): void {
    const mine = ++connection;
    const ready = options.nodes().filter(each => each.process.phase === 'up');
    node = ready.length > 0 ? world.pick(ready) : null;
    socket =
      node?.sockets.connect(process, name, {
        text: text => {
          if (mine === connection) onText(text);
        },
        closed: () => {
          if (mine === connection) again();
        },
      }) ?? null;
    if (!socket) {
      again();
      return;
    }
    forgetSnapshots(fleet);
    asked.clear();
    socket.send({ type: 'subscribe', sites });
  }

  function again(): void {
    connection++;
    socket = null;
    node = null;
    world.after(RETRY_MS + world.random() * RETRY_MS, process, 'page connect', connect);
  }

  function onText(text: string): void {
    const frame = readFrame(text);
    if (!frame) return;
    if (frame.type === 'error') {
      const mine = connection;
      world.after(RETRY_MS, process, 'page asks again', () => {
        if (mine === connection) socket?.send({ type: 'subscribe', sites });
      });
      return;
    }
    const { changed, resync } = applyFrame(fleet, frame);
    for (const twin of changed) {
      const reading = twin.metrics.get('n');
      const key = `${name} ${twin.key}`;
      const epoch = epochs.get(twin.key) ?? 0;
      if (twin.epoch < epoch)
        journal.staleEffects.push(`${key} was shown under epoch ${twin.epoch} after ${epoch}`);
      epochs.set(twin.key, Math.max(epoch, twin.epoch));
      if (!reading) continue;
      const shown = journal.shown.get(key) ?? 0;
      if (reading.at < shown) {
        journal.regressions.push(
          `${key} went back by ${shown - reading.at} ms to ${reading.value} at ${world.elapsed().toFixed(0)}`,
        );
      }
      journal.shown.set(key, Math.max(shown, reading.at));
    }
    const wanted = resync.filter(key => world.now() - (asked.get(key) ?? 0) > ASK_AGAIN_MS);
    if (wanted.length === 0) return;
    for (const key of wanted) asked.set(key, world.now());
    socket?.send({ type: 'subscribe', twins: wanted });
  }

  /** A dead node's sockets close; a paused one is given up for its silence. */
  function watch(): void {
    world.after(400, process, 'page watch', () => {
      if (node && node.process.phase !== 'up' && socket) {
        socket.close();
        again();
      }
      watch();
    });
  }
  world.after(20, process, 'page connect', connect);
  watch();
  return { fleet };
}
