/** What goes wrong with cloud nodes. */
import { inSeconds, type Stage } from './conductor.ts';
import type { Fault } from './plan.ts';

/** @returns whether it happened */
export async function cloudFault(fault: Fault, stage: Stage): Promise<boolean> {
  const { cluster, recovery, say, pause } = stage;
  const { kind, forMs } = fault;
  const node = cluster.nodes[fault.target]!;
  /** Others take over at once: recovery counts from the blow itself. Where there are no others, from its end. */
  const others = cluster.nodes.some(other => other !== node && other.pid() !== undefined);

  if (kind === 'cloud-rolling-restart') {
    say('rolling restart of all cloud nodes');
    for (const each of cluster.nodes) {
      const over = recovery.troubled();
      if (cluster.nodes.length > 1) over();
      await each.stop();
      await each.start();
      if (cluster.nodes.length === 1) over();
    }
    return true;
  }
  if (kind === 'cloud-kill') {
    say(`${node.name} killed, back in ${inSeconds(forMs)}`);
    const over = recovery.troubled();
    if (others) over();
    await node.kill();
    await pause(forMs);
    await node.start();
    if (!others) over();
    return true;
  }
  const pid = node.pid();
  if (pid === undefined) return false;
  if (kind === 'cloud-pause') {
    say(`${node.name} paused for ${inSeconds(forMs)}`);
    const over = recovery.troubled();
    if (others) over();
    process.kill(pid, 'SIGSTOP');
    await pause(forMs).finally(() => process.kill(pid, 'SIGCONT'));
    if (!others) over();
    return true;
  }
  if (kind === 'cloud-clock') {
    say(`the clock of ${node.name} is off by ${inSeconds(fault.shiftMs)} for ${inSeconds(forMs)}`);
    node.shiftClock(fault.shiftMs);
    await pause(forMs).finally(() => node.shiftClock(0));
    return true;
  }
  const cut = (['nats', 'redis', 'postgres'] as const).filter(
    server => fault.servers === 'all' || fault.servers === server,
  );
  const how = kind === 'cloud-cut' ? 'cut off from' : 'half-open to';
  say(`${node.name} ${how} ${cut.join(', ')} for ${inSeconds(forMs)}`);
  const over = recovery.troubled();
  for (const server of cut) {
    if (kind === 'cloud-cut') node.links[server].cut();
    else node.links[server].stall();
  }
  await pause(forMs).finally(() => {
    for (const server of cut) node.links[server].heal();
  });
  over();
  return true;
}
